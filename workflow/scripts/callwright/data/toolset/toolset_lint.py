"""What a toolset's requests lack: ways to ask, values, requests that need no tool."""

import re

from callwright.data.toolset.lint import Hint
from callwright.data.toolset.phrasing import Toolset

FEW_PHRASINGS, FEW_VALUES, FEW_TALK = 5, 4, 5


def lint_toolset(toolset: Toolset) -> list[Hint]:
    """The hints on how people ask, tool by tool; then on what the toolset lacks as a whole."""
    found = []
    asked: dict[str, str] = {}
    for tool in toolset.tools:
        for text in dict.fromkeys(re.sub(r"\{\w+\}", "{}", phrasing.text).lower() for phrasing in tool.phrasings):
            if text in asked:
                found.append(Hint(tool.name, None, "same_phrasing",
                                  f"{text!r} is a phrasing of {asked[text]!r}, too",
                                  "say what only this one does"))  # fmt: skip
            asked.setdefault(text, tool.name)
        about = tool.definition["function"].get("description") or ""
        first = about.split(".")[0].strip().lower()
        copied = [p for p in tool.phrasings if first and first[-25:] in p.text.lower()]
        if len(tool.phrasings) < FEW_PHRASINGS:
            found.append(Hint(tool.name, None, "few_phrasings", f"it has {len(tool.phrasings)} phrasings",
                              f"write {FEW_PHRASINGS} ways to ask, questions and hints among them"))  # fmt: skip
        elif 2 * len(copied) > len(tool.phrasings):
            found.append(Hint(tool.name, None, "plain_phrasings",
                              f"{len(copied)} of {len(tool.phrasings)} phrasings repeat its description",
                              "say it as your users do"))  # fmt: skip
        if tool.required and not tool.missing:
            found.append(Hint(tool.name, None, "no_missing", "no request lacks a required value",
                              "write some under `missing`, and the question under `ask`"))  # fmt: skip
        for name, pool in tool.pools.items():
            enum = tool.parameters["properties"][name].get("enum")
            different = len({repr(value) for _, value in pool.entries}) if pool.entries else None
            kind = tool.parameters["properties"][name].get("type")
            if different is not None and different < FEW_VALUES and not enum and kind not in ("boolean", None):
                found.append(Hint(tool.name, name, "few_values", f"it has {different} values",
                                  "with few values a model learns these, not to copy what was said"))  # fmt: skip
    own_talk = [phrasing for phrasing, _ in toolset.small_talk if "/built-in/" not in phrasing.id]
    if len(own_talk) < FEW_TALK:
        found.append(Hint(toolset.name, None, "small_talk", f"{len(own_talk)} requests of its own that no tool serves",
                          "write what your users ask for in vain under `small_talk`"))  # fmt: skip
    return found
