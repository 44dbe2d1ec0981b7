"""Files and folders, and who may see them."""

from callwright.evals.executed.world.basics import Function, State, ToolError, find, key, lookup, named, plain
from callwright.evals.executed.world.messages import known

# The endings of each type that a search may ask for.
TYPES = {
    "pdf": ("pdf",),
    "image": ("jpg", "png"),
    "video": ("mp4", "mov"),
    "text": ("txt", "md"),
}
TOP = "Home"

START = {
    "folders": [f"{TOP}/{name}" for name in ("Documents", "Desktop", "Downloads")],
    "files": {name: {} for name in ("report.pdf", "notes.txt", "beach.jpg", "party.mp4", "shopping.md", "tickets.pdf")},
}


def create_folder(state: State, /, name: str, parent: str | None = None) -> str:
    """Create a folder, at the top unless another one is named."""
    above = TOP if parent is None or key(parent) == key(TOP) else _folder(state, parent)
    path = f"{above}/{named(name, 'folder')}"
    if lookup(state["folders"], path) is not None:
        raise ToolError(f"the folder {path} is there already")
    state["folders"].append(path)
    return f"created {path}"


def rename_file(state: State, /, file: str, new_name: str) -> str:
    """Give a file another name; it keeps its ending where the new name has none."""
    old = find(state["files"], file, "file")
    name, ending = named(new_name, "file"), old.rpartition(".")[2]
    if "." not in name:
        name = f"{name}.{ending}"
    if lookup(state["files"], name) is not None:
        raise ToolError(f"there is a file {name!r} already")
    state["files"][name] = state["files"].pop(old)
    return f"{old} is called {name} now"


def search_files(state: State, /, keyword: str, type: str | None = None) -> list[str]:
    """The files whose names have the keyword."""
    word = key(keyword)
    if not word:
        raise ToolError("the keyword is empty")
    if type is not None and type not in TYPES:
        raise ToolError(f"{type!r} is no type of files: {', '.join(TYPES)}")
    endings = TYPES.get(type)
    found = [name for name in state["files"] if word in name.casefold()]
    return sorted(name for name in found if endings is None or name.rpartition(".")[2] in endings)


def share_file(state: State, /, file: str, contact: str, can_edit: bool = False) -> str:
    """Let a contact see a file, or change it too."""
    name, person = find(state["files"], file, "file"), find(state["contacts"], contact, "contact")
    state["files"][name][person] = "edits" if can_edit else "sees"
    return f"{person} {state['files'][name][person]} {name}"


def _folder(state: State, name: str) -> str:
    """The path of a folder, from its name or its path."""
    by_name = {path.rpartition("/")[2]: path for path in state["folders"]}
    found = lookup(state["folders"], name)
    return found or by_name[find(by_name, name, "folder")]


def _parent(state: State, /, name: str, parent: str | None = None) -> None:
    if parent is not None and lookup((path.rpartition("/")[2] for path in state["folders"]), parent) is None:
        state["folders"].append(f"{TOP}/{plain(parent)}")


def _file(state: State, name: str) -> None:
    if lookup(state["files"], name) is None:
        state["files"][name] = {}


def _shareable(state: State, /, file: str, contact: str, can_edit: bool = False) -> None:
    _file(state, file)
    known(state, contact)


def _findable(state: State, /, keyword: str, type: str | None = None) -> None:
    """A file of each type has the keyword, so that it matters which type is asked for."""
    for number, (ending, *_) in enumerate(TYPES.values(), 1):
        _file(state, f"{keyword} {number}.{ending}")


FUNCTIONS = {
    "create_folder": Function(create_folder, arrange=_parent),
    "rename_file": Function(rename_file, arrange=lambda state, /, file, new_name: _file(state, file)),
    "search_files": Function(search_files, reads=True, arrange=_findable),
    "share_file": Function(share_file, arrange=_shareable),
}
