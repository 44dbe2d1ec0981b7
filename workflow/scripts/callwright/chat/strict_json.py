"""JSON read strictly: what comes out can be written as JSON again, whatever came in."""

import json
import re
from typing import Any

import orjson

MAX_DEPTH = 64
_LONG_INTEGER = re.compile(r"\d{19}")


def read_json(text: str) -> Any:
    """A JSON value; raises ValueError, and nothing else, for what is no JSON or cannot be written as JSON again.

    Stricter than `json.loads`: no NaN, no infinity, no half surrogate pair, at most 64 levels.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from error
    if text.count("[") + text.count("{") > MAX_DEPTH:
        check_depth(value)
    # An integer beyond 64 bits is a float to orjson; such a one is read again.
    return json.loads(text) if _LONG_INTEGER.search(text) else value


def check_depth(value: Any) -> None:
    """Raise ValueError when lists and objects are nested more than 64 levels deep."""
    level = [value] if type(value) in (dict, list) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [
            inner
            for item in level
            for inner in (item.values() if type(item) is dict else item)
            if type(inner) is dict or type(inner) is list
        ]
    raise ValueError(f"the JSON is nested more than {MAX_DEPTH} levels deep")
