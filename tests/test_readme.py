"""What README.md and the documents beside it say of files, rules and results is so."""

import re
import tomllib

import pytest

from callwright.evals.statistics import wilson
from callwright.report import architecture, manual

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "config/README.md"]
OLD_NAME = "call" + "smith"


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(root):
    return (root / architecture.PAGE).read_text(encoding="utf-8")


def test_the_front_door_is_one_page(readme):
    assert len(readme.splitlines()) <= 150
    assert {"make run", "make test"} <= set(re.findall(r"make \w+", readme))


@pytest.mark.slow
def test_the_generated_parts_are_those_of_today(page, root):
    """Else: python -m callwright.report.manual"""
    assert manual.renewed(page, architecture.generated(root)) == page


def test_every_file_says_what_it_is(page):
    tree = page.partition("<!-- generated: files -->")[2].partition("```\n")[2].partition("```")[0]
    entries = [line for line in tree.splitlines() if not line.rstrip().endswith("/")]
    assert len(entries) > 150
    assert [line for line in entries if not re.fullmatch(r" *[\w.\-/]+ +\S.*", line)] == []


def test_a_graph_loses_the_arrows_that_a_longer_way_says_too():
    arrows = {("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("a", "c"), ("e", "d")}
    assert architecture.reduced(arrows) == {("a", "b"), ("b", "c"), ("c", "d"), ("e", "d")}


def test_links_lead_to_files_and_headings(root):
    documents = [root / name for name in DOCUMENTS] + sorted((root / "docs").glob("*.md"))
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if path.startswith("http"):
                continue
            file = (document.parent / path).resolve() if path else document
            assert file.exists(), (document.name, target)
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in anchors, (document.name, target)
    assert len(documents) > 10


def test_corrections_made_without_a_run_go_to_the_file_that_a_run_reads(root):
    """A playground finds the file of the run that its adapter comes from; the adapters of the project have none."""
    text = (root / "docs" / "your-own-tools.md").read_text(encoding="utf-8")
    commands = [line for line in re.findall(r"callwright serve [^`\n]*", text) if "--adapter adapters/" in line]
    assert len(commands) == 2
    named = [re.search(r"--corrections (\S+)-corrections\.jsonl", command) for command in commands]
    assert [match and match[1] for match in named] == ["cafe", "cafe-coder"]


def test_what_skipped_tests_ask_for_is_an_extra(root):
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((root / "tests").glob("*.py")))
    asked = {name for names in re.findall(r"pip install ([a-z ]+)", text) for name in names.split()}
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert asked == set(project["optional-dependencies"]["peers"])


def test_the_result_tables_add_up(root):
    rows = re.findall(
        r"\| (\d+) of (\d+) \| ([\d.]+) % \[([\d.]+), ([\d.]+)\] ", (root / "docs" / "results.md").read_text()
    )
    assert len(rows) >= 4
    for k, n, share, low, high in rows:
        k, n = int(k), int(n)
        shown = [float(share), float(low), float(high)]
        assert shown == [round(100 * x, 1) for x in (k / n, *wilson(k, n))]


def test_the_old_name_stands_in_the_lab_notes_history_alone(root):
    """It is another project's."""
    skipped = {".git", ".venv", ".cache", ".snakemake", "results"}
    files = [
        path
        for path in root.rglob("*")
        if path.is_file() and not skipped & set(path.relative_to(root).parts) and "__pycache__" not in path.parts
    ]
    named = [path.relative_to(root).as_posix() for path in files if OLD_NAME.encode() in path.read_bytes().lower()]
    assert named == ["docs/lab-notes.md"]
    assert len(files) > 300
