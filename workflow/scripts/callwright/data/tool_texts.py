"""A tool in plain words: what a model reads that is to say which tool a request is about."""

import re
from typing import Any

_EDGES = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_.\-/]+")  # of the words in a name


def words_of(name: str) -> str:
    """`lookUpOrder`, `look_up.order` -> `look up order`."""
    return " ".join(_EDGES.sub(" ", name).lower().split())


def described(function: dict[str, Any]) -> str:
    """The `function` of an OpenAI tool: its name, what it does, and what it takes, enumerated values included."""
    parts = [f"{words_of(function['name'])}: {function.get('description') or ''}"]
    for name, schema in ((function.get("parameters") or {}).get("properties") or {}).items():
        schema = schema if isinstance(schema, dict) else {}
        values = schema.get("enum")
        shown = " ".join(map(str, values)) if isinstance(values, list) else ""
        parts.append(f"{words_of(name)} {schema.get('description') or ''} {shown}")
    return " ".join(" ".join(parts).split())
