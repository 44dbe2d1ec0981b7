"""Does an answer ask for what is missing? "I can't do that" does not, and neither does a question about something else.

An item that lacks required values says which (tags `needs:<parameter>`). An answer asks for one of them when it is a
question that names it: by a word of the parameter's name or description, by one of its enumerated values, by the
question word that goes with it (when, where, who, how many), or by what the expected question asks.
"""

import re
from typing import Any

from callwright.data.negatives import content_words

NEEDS = "needs:"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Question words, and the words in names and descriptions of parameters that they go with.
_ASKED_BY = {
    r"when|what time|which day|what day|which date|what date": _words(
        "date day time hour when yyyy start end month year arrival since deadline"
    ),
    r"where|which (?:city|town|place)": _words(
        "city town place location address destination origin store room stop station"
    ),
    r"who|whom|whose": _words("contact person people recipient guest patient name visitor customer child"),
    r"how (?:many|much|long|far|often)": _words(
        "number count quantity amount minute hour day night copie copy limit price level percent reading duration"
    ),
}
_EMPTY = {"detail", "need", "more", "one", "please", "tell", "like", "want", "could", "would", "sorry"}


def needs(example: Any) -> list[str]:
    """The parameters that a request lacks."""
    return [tag.removeprefix(NEEDS) for tag in getattr(example, "tags", ()) if tag.startswith(NEEDS)]


def asks_for_it(example: Any, text: str) -> bool | None:
    """Whether an answer without a call asks for a value that the request lacks; None for an item that lacks none."""
    lacking = needs(example)
    if not lacking:
        return None
    if "?" not in text:
        return False
    said = content_words(text) - _EMPTY
    for name in lacking:
        words, values = _about(example, name)
        if said & words or any(value.casefold() in text.casefold() for value in values):
            return True
        for pattern, of in _ASKED_BY.items():
            if words & of and re.search(rf"\b(?:{pattern})\b", text, re.I):
                return True
    return False


def _about(example: Any, name: str) -> tuple[set[str], list[str]]:
    """The words that name a parameter, and its enumerated values. Of all tools that have one of this name."""
    words = content_words(name.replace("_", " ")) | content_words(getattr(example, "answer", None) or "")
    values: list[str] = []
    for tool in example.tools:
        part = (tool["function"]["parameters"].get("properties") or {}).get(name)
        if isinstance(part, dict):
            words |= content_words(part.get("description") or "")
            values += [str(value) for value in part.get("enum") or []]
    return words - _EMPTY, values
