"""A tool in plain words: what a model reads that is to say which tool a request is about."""

import re
from typing import Any

_EDGES = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\W]+")  # of the words in a name


def words(name: str) -> str:
    """A name in small letters and words: `dueDate`, `due_date` and `due.date` are `due date`."""
    return _EDGES.sub(" ", name).strip().lower()


def described(function: dict[str, Any], parameters: bool = True) -> str:
    """The `function` of an OpenAI tool: its name, what it does, and what it takes, enumerated values included.

    parameters: what is said of each of them, too.
    """
    parts = [f"{words(function['name'])}: {function.get('description') or ''}"]
    for name, schema in ((function.get("parameters") or {}).get("properties") or {}).items():
        schema = schema if isinstance(schema, dict) else {}
        values = schema.get("enum")
        shown = " ".join(map(str, values)) if isinstance(values, list) else ""
        about = schema.get("description") if parameters else None
        parts.append(f"{words(name)} {about or ''} {shown}")
    return " ".join(" ".join(parts).split())
