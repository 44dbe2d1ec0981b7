"""The generated parts of docs/ARCHITECTURE.md: a line for each file, the rules, and the rule graph.

Each line is what the file says of itself: a module's docstring, the first comment of a rule or configuration file.
`python -m callwright.report.manual` writes them; a test keeps them in step.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

PAGE = Path("docs") / "ARCHITECTURE.md"
FILES = ("Snakefile", "examples/*.py", "rules/*.smk", "config/**/*.yaml", "profiles/**/*.yaml", "workflow/**/*.yaml")
FILES += ("workflow/**/*.py", "workflow/**/templates", "tests/*.py", "benchmarks/*.py")
TESTS = re.compile(r"tests/test_\w+\.py")  # named after the modules that they test: no line for each


def file_tree(root: Path) -> str:
    """The project's files as a tree, each with its line."""
    paths = {path for pattern in FILES for path in root.glob(pattern)}
    names = {path.relative_to(root).as_posix(): path for path in paths if path.is_dir() or path.stat().st_size}
    lines, shown = [], ()
    for name in sorted(names, key=lambda name: [part.casefold() for part in name.split("/")]):
        if TESTS.fullmatch(name) or "__pycache__" in name:
            continue
        *folders, last = name.split("/")
        for depth in range(len(folders)):
            if shown[: depth + 1] != tuple(folders[: depth + 1]):
                lines.append(f"{'  ' * depth}{folders[depth]}/")
        shown = tuple(folders)
        entry = f"{'  ' * len(folders)}{last}{'/' if names[name].is_dir() else ''}"
        lines.append(f"{entry:<34} {about(names[name])}")
    return "\n".join(["```", *lines, "```"])


def about(path: Path) -> str:
    """What a file says of itself, in one line; of a folder, what lies in it."""
    if path.is_dir():
        return f"{len(list(path.iterdir()))} Jinja templates"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        said = ast.get_docstring(ast.parse(text)) or ""
        said = re.sub(r"^Rule \w+: ", "", said)
    else:
        comment = re.match(r"(?:#[^\n]*\n)+", text)
        said = re.sub(r"(?m)^# ?", "", comment[0]) if comment else ""
    paragraph = " ".join(said.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) |\n", paragraph)[0].rstrip(".")


def rule_table(root: Path) -> str:
    """Each rule: what it makes, by its script, and the file that declares it."""
    rows = []
    for file in _included(root):
        for name in re.findall(r"^rule (\w+):", file.read_text(encoding="utf-8"), re.MULTILINE) + (
            ["score"] if file.name == "evaluate.smk" else []
        ):
            script = root / "workflow" / "scripts" / f"{name}.py"
            said = about(script) if script.exists() else "a target: names the files of every run"
            place = f"[rules/{file.name}](../rules/{file.name})"
            rows.append(f"| `{name}` | {said} | {place} |")
    return "\n".join(["| rule | makes | declared in |", "|---|---|---|", *rows])


def _included(root: Path) -> list[Path]:
    names = re.findall(r'^include: "(.*)"', (root / "Snakefile").read_text(encoding="utf-8"), re.MULTILINE)
    return [root / name for name in names]


def rule_graph(root: Path) -> str:
    """The rules of the default run as a Mermaid graph, from Snakemake; ways that a longer one says too are left out."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock", "--forceall"]
    graph = subprocess.run(
        [*command, "--rulegraph", "mermaid-js"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    names = dict(re.findall(r"(\w+)\[(\w+)\]", graph))
    arrows = reduced((names[a], names[b]) for a, b in re.findall(r"(\w+) --> (\w+)", graph))
    return "\n".join(["```mermaid", "flowchart TB", *(f"    {a} --> {b}" for a, b in sorted(arrows)), "```"])


def reduced(arrows: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows of a graph without those that a longer way says too."""
    arrows = set(arrows)
    follows: dict[str, set[str]] = {}
    for a, b in arrows:
        follows.setdefault(a, set()).add(b)

    def reachable(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for after in follows.get(todo.pop(), set()) - seen:
                seen.add(after)
                todo.append(after)
        return seen

    return {(a, b) for a, b in arrows if not any(b in reachable(other) for other in follows[a] - {b})}


def generated(root: Path) -> dict[str, str]:
    """The generated parts by the names that their markers have."""
    return {"files": file_tree(root), "rules": rule_table(root), "graph": rule_graph(root)}
