"""What README.md says of the project's files, rules and results is so."""

import re
import subprocess
import sys

import pytest

from callwright.evals.statistics import wilson


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text()


def listed_files(readme):
    """The paths of the file tree: each level of the tree is indented by two spaces."""
    block = re.search(r"## The files\n\n```\n(.*?)```", readme, flags=re.DOTALL)[1]
    folders, found = [], {}
    for line in block.splitlines():
        name, about = re.fullmatch(r"( *\S+)(?: +(.*))?", line).groups()
        depth = (len(name) - len(name.lstrip())) // 2
        folders[depth:] = [name.strip()]
        if not name.endswith("/"):
            found["".join(folders)] = about
    return found


def test_the_file_tree_names_every_file_and_nothing_else(readme, root):
    listed = listed_files(readme)
    patterns = ["Snakefile", "rules/*", "config/**/*.yaml", "profiles/**/*.yaml", "workflow/schemas/*"]
    patterns += ["workflow/scripts/**/*.py", "workflow/scripts/**/*.jinja"]
    there = {path.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    there = {path for path in there if not path.endswith("__init__.py")}
    assert {path for path in listed if path.startswith(("rules", "config", "profiles", "workflow"))} | {
        "Snakefile"
    } == there
    assert all(list(root.glob(path)) for path in listed)
    assert all(listed.values()), "each file has a line that says what it is"


def edges(text, names=None):
    """The arrows of a mermaid graph, between rule names."""
    names = names or dict(re.findall(r"(\w+)\[(\w+)\]", text))
    return {(names[a], names[b]) for a, b in re.findall(r"(\w+) --> (\w+)", text)}


def reduced(arrows):
    """The arrows without those that a longer way says too."""
    follows = {}
    for a, b in arrows:
        follows.setdefault(a, set()).add(b)

    def reachable(start, seen):
        for after in follows.get(start, ()):
            if after not in seen:
                seen.add(after)
                reachable(after, seen)
        return seen

    return {(a, b) for a, b in arrows if not any(b in reachable(other, set()) for other in follows[a] - {b})}


def test_the_rule_graph_is_snakemakes(readme, root):
    drawn = re.search(r"```mermaid\n(.*?)```", readme, flags=re.DOTALL)[1]
    graph = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--rulegraph", "mermaid-js", "--nolock", "--forceall"],
        cwd=root, capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    plain = {name: name for pair in re.findall(r"(\w+) --> (\w+)", drawn) for name in pair}
    assert edges(drawn, plain) == reduced(edges(graph))


def test_the_result_table_adds_up(readme):
    rows = re.findall(r"\| (\d+) of (\d+) \| ([\d.]+) % \[([\d.]+), ([\d.]+)\] ", readme)
    assert len(rows) >= 4
    for k, n, share, low, high in rows:
        k, n = int(k), int(n)
        shown = [float(share), float(low), float(high)]
        assert shown == [round(100 * x, 1) for x in (k / n, *wilson(k, n))]
