"""A rule's list of code is what its script really imports: asked of Python itself, in a process of its own."""

import json
import subprocess
import sys

import pytest

from callwright.runtime import provenance

SCRIPTS = provenance.LIBRARY.parent
RULES = sorted(path.stem for path in SCRIPTS.glob("*.py"))

# Runs every import statement of a script and, until nothing is new, of the library's modules that came with it, those
# inside functions too; then prints the files of the library's modules.
IMPORT_ALL = """
import ast, json, sys
from pathlib import Path

script, library = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(library.parent))

def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield ast.unparse(node)

def ours():
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return {Path(file).resolve() for file in files if file and Path(file).resolve().is_relative_to(library)}

done, todo = set(), {script}
while todo:
    for path in todo:
        for statement in imports(path):
            if "callwright" in statement:
                exec(statement, {})
    done |= todo
    todo = ours() - done
print(json.dumps(sorted(str(path) for path in ours())))
"""


def imported(script):
    """The library's files with content that Python has loaded once everything that `script` may import is there."""
    command = [sys.executable, "-c", IMPORT_ALL, str(script), str(provenance.LIBRARY)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {name for path in found if (name := path.removeprefix(f"{provenance.LIBRARY}/")) and size(name)}


def size(name):
    return (provenance.LIBRARY / name).stat().st_size


@pytest.mark.parametrize("rule", RULES)
def test_a_rules_code_is_what_its_script_imports(rule):
    script = SCRIPTS / f"{rule}.py"
    listed = {provenance.within_library(path) for path in provenance.code_files(script, SCRIPTS)}
    modules = {name for name in listed if name.endswith(".py")} - {script.name}
    loaded = imported(script)
    assert modules == loaded - provenance.EXEMPT.keys()
    assert script.name in listed


def test_exempt_modules_are_there_and_have_a_reason():
    assert all(size(name) and reason for name, reason in provenance.EXEMPT.items())
    assert "evals/scoring/failure_labels.py" not in provenance.EXEMPT


@pytest.mark.parametrize(("rule", "expected"), [("convert_model", "chat"), ("report", "report"), ("judge", "chat")])
def test_templates_count_where_a_module_reads_them(rule, expected):
    listed = provenance.code_files(SCRIPTS / f"{rule}.py", SCRIPTS)
    folders = {path.parent.parent.name for path in listed if path.suffix == ".jinja"}
    assert expected in folders
    assert ("report" in folders) == (rule == "report")


def test_a_module_left_out_takes_what_only_it_imports_along():
    script = SCRIPTS / "train.py"
    whole = set(provenance.code_files(script, SCRIPTS))
    less = set(provenance.code_files(script, SCRIPTS, ("callwright.evals", "callwright.data.records")))
    assert less < whole
    assert {path.relative_to(provenance.LIBRARY).parts[0] for path in whole - less} >= {"evals", "data"}


def test_a_digest_changes_with_a_byte_and_with_a_name(tmp_path):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("a = 1\n")
    two.write_text("a = 2\n")
    found = {provenance.digest(provenance.hashes(files)) for files in ([one], [two], [one, two], [])}
    assert len(found) == 4
    two.write_text("a = 1\n")
    assert provenance.digest(provenance.hashes([one])) != provenance.digest(provenance.hashes([two]))
