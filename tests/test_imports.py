"""Imports go one way: a room knows the rooms below it and none above."""

import ast

import pytest

from callwright.runtime.provenance import LIBRARY

FLOORS = [
    {"runtime"},
    {"chat"},
    {"data", "models"},
    {"lora", "decoding"},
    {"evals"},
    {"train", "package", "serve"},
    {"agent", "report"},
    {"commands"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in sorted(rooms)}
# (module, what it imports from a room that is not below): none today, lazy and type-only imports included.
EXCEPTIONS: set[tuple[str, str]] = set()
MODULES = sorted(path for path in LIBRARY.rglob("*.py") if path.parent != LIBRARY)


def imports(path):
    """The library's modules that a file names in import statements, wherever they stand."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("callwright."):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("callwright."))


def test_every_folder_is_a_room_with_a_floor():
    assert {path.parent.name for path in LIBRARY.glob("*/__init__.py")} == FLOOR.keys()


@pytest.mark.parametrize("room", FLOOR)
def test_a_room_imports_only_from_below(room):
    found = {
        (path.relative_to(LIBRARY).as_posix(), module)
        for path in MODULES
        if path.relative_to(LIBRARY).parts[0] == room
        for module in imports(path)
        if module.split(".")[1] != room and FLOOR[module.split(".")[1]] >= FLOOR[room]
    }
    assert found == {entry for entry in EXCEPTIONS if entry[0].startswith(f"{room}/")}


def test_the_library_knows_nothing_of_snakemake():
    named = {path.name for path in LIBRARY.rglob("*.py") if "import snakemake" in path.read_text(encoding="utf-8")}
    assert named == set()


def test_no_two_classes_have_the_same_name():
    """Two classes of one name are read as one. A model's file has the names of mlx-lm's own models."""
    classes = [
        node.name
        for path in LIBRARY.rglob("*.py")
        if path != LIBRARY / "models" / "needle.py"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted(name for name in set(classes) if classes.count(name) > 1) == []
