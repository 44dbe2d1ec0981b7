"""Notes, and a list of things to do."""

from callwright.evals.executed.world.basics import Function, State, ToolError, as_day, find, key, lookup, named, plain


def todo(task: str, due: str | None = None, priority: str = "normal") -> State:
    """A task as the state holds it."""
    return {"task": task, "due": due, "priority": priority, "done": False}


START = {
    "notes": [
        {"title": "Library", "text": "the card number is 20 117"},
        {"title": None, "text": "the neighbors are away until Sunday"},
    ],
    "todo": [todo("water the ferns"), todo("return the drill", "2026-03-07"), todo("pay the fine", None, "high")],
}


def create_note(state: State, /, text: str, title: str | None = None) -> str:
    """Save a note."""
    state["notes"].append({"title": None if title is None else plain(title), "text": named(text, "note")})
    return "the note is saved"


def search_notes(state: State, /, query: str) -> list[State]:
    """The notes that have all words of the query."""
    words = key(query).split()
    if not words:
        raise ToolError("the query is empty")
    return [note for note in state["notes"] if all(word in _whole(note) for word in words)]


def add_todo(state: State, /, task: str, due: str | None = None, priority: str = "normal") -> str:
    """Add a task."""
    state["todo"].append(todo(named(task, "task"), None if due is None else as_day(due), priority))
    return f"{plain(task)} is on the list"


def complete_todo(state: State, /, task: str) -> str:
    """Mark a task as done."""
    name = find((entry["task"] for entry in state["todo"] if not entry["done"]), task, "open task")
    next(entry for entry in state["todo"] if entry["task"] == name and not entry["done"])["done"] = True
    return f"{name} is done"


def _whole(note: State) -> str:
    return f"{note['title'] or ''} {note['text']}".casefold()


def _noted(state: State, /, query: str) -> None:
    """A note about what the task looks for."""
    state["notes"].append({"title": plain(query), "text": f"what I know about {key(query)}"})


def _open(state: State, /, task: str) -> None:
    if lookup((entry["task"] for entry in state["todo"]), task) is None:
        state["todo"].append(todo(plain(task)))


FUNCTIONS = {
    "create_note": Function(create_note),
    "search_notes": Function(search_notes, reads=True, arrange=_noted),
    "add_todo": Function(add_todo),
    "complete_todo": Function(complete_todo, arrange=_open),
}
