"""Changes to the training examples that make a model read the tools' descriptions; test sets are never changed.

    shuffle_tools   the tools of each example in another order
    distractors     up to so many more tools in each example, from other training examples
    mask_names      a share of the examples gets meaningless names of tools and parameters: what is left to read
                    are the descriptions (function masking, arXiv:2410.04587)

Each example is changed in place of the original, and its number stays the same.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from callwright.data.negatives import may_serve
from callwright.data.records import Example

ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # without letters and digits that look alike
TRIES = 20  # other tools that are looked at for one that may be added
# A schema with one of these says more about its parameters' names than `properties` and `required` do.
REFERRING = {
    "allOf", "anyOf", "oneOf", "not", "if", "dependentRequired", "dependentSchemas", "dependencies",
    "patternProperties", "propertyNames", "$defs", "definitions", "$ref",
}  # fmt: skip


def augment(
    examples: Sequence[Example],
    settings: dict[str, Any],
    seed: int,
    fits: Callable[[Example], bool] = lambda example: True,
) -> tuple[list[Example], dict[str, int]]:
    """The training examples as `settings` (data.augment) changes them, in their order, and how many were changed.

    `fits` is asked whether an example with more tools may be used (its length). The same examples and seed give
    the same result, each example by its own random numbers: more examples change nothing about the others, but
    for the distractors that they bring.
    """
    changed: Counter[str] = Counter()
    pool = {tool["function"]["name"]: tool for example in examples for tool in example.tools}
    tools = [pool[name] for name in sorted(pool)]
    result = []
    for example in examples:
        rng = random.Random(f"{seed}/augment/{example.id}")
        if settings.get("distractors"):
            wider = with_distractors(example, tools, rng.randint(0, settings["distractors"]), rng)
            while wider is not example and not fits(wider):
                wider = replace(wider, tools=wider.tools[:-1]) if len(wider.tools) > len(example.tools) + 1 else example
            changed["distractors"] += wider is not example
            example = wider
        if settings.get("shuffle_tools"):
            example = replace(example, tools=rng.sample(example.tools, len(example.tools)))
            changed["shuffle_tools"] += 1
        if rng.random() < settings.get("mask_names", 0.0):
            masked = with_masked_names(example, rng)
            if masked is not None and fits(masked):
                changed["mask_names"] += 1
                example = masked
        result.append(example)
    return result, dict(sorted(changed.items()))


def with_distractors(example: Example, tools: Sequence[dict[str, Any]], count: int, rng: random.Random) -> Example:
    """The example with `count` more tools, at the end of its list, that cannot serve its request."""
    listed, added = set(example.tool_names), []
    for _ in range(TRIES * count):
        if len(added) == count:
            break
        tool = rng.choice(tools)
        if tool["function"]["name"] not in listed and not may_serve(tool, example):
            added.append(tool)
            listed.add(tool["function"]["name"])
    return replace(example, tools=[*example.tools, *added]) if added else example


def with_masked_names(example: Example, rng: random.Random) -> Example | None:
    """The example with meaningless names instead of those of its tools and parameters.

    A parameter without a description keeps its name, and so do all of a tool whose schema refers to them in other
    places. None when a tool has no description, since nothing would be left to choose it by.
    """
    if not all((tool["function"].get("description") or "").strip() for tool in example.tools):
        return None
    used: set[str] = set()
    names: dict[str, str] = {}
    parameters: dict[str, dict[str, str]] = {}
    tools = []
    for tool in example.tools:
        function = tool["function"]
        name = names[function["name"]] = _fresh("f", rng, used)
        schema, new = _masked(function["parameters"], rng, used)
        parameters[function["name"]] = new
        tools.append({**tool, "function": {**function, "name": name, "parameters": schema}})

    def renamed(call: dict[str, Any]) -> dict[str, Any]:
        own = parameters.get(call["name"], {})
        arguments = call["arguments"]
        if isinstance(arguments, dict):
            arguments = {own.get(key, key): value for key, value in arguments.items()}
        return {**call, "name": names.get(call["name"], call["name"]), "arguments": arguments}

    messages = []
    for message in example.messages:
        if message.get("role") == "tool" and message.get("name") in names:
            message = {**message, "name": names[message["name"]]}
        if message.get("tool_calls"):
            made = [{**call, "function": renamed(call["function"])} if "function" in call else renamed(call)
                    for call in message["tool_calls"]]  # fmt: skip
            message = {**message, "tool_calls": made}
        messages.append(message)
    calls = [renamed(call) for call in example.calls]
    possible = example.possible and [
        {parameters.get(call["name"], {}).get(key, key): values for key, values in right.items()}
        for call, right in zip(example.calls, example.possible, strict=True)
    ]
    tags = (*example.tags, "augmented:mask_names")
    return replace(example, messages=messages, tools=tools, calls=calls, possible=possible, tags=tags)


def _masked(schema: dict[str, Any], rng: random.Random, used: set[str]) -> tuple[dict[str, Any], dict[str, str]]:
    properties = schema.get("properties") or {}
    if REFERRING & schema.keys():
        return schema, {}
    new = {
        name: _fresh("p", rng, used)
        for name, part in properties.items()
        if isinstance(part, dict) and (part.get("description") or "").strip()
    }
    changed = {**schema, "properties": {new.get(name, name): part for name, part in properties.items()}}
    if isinstance(schema.get("required"), list):
        changed["required"] = [new.get(name, name) for name in schema["required"]]
    return changed, new


def _fresh(start: str, rng: random.Random, used: set[str]) -> str:
    while (name := f"{start}_{''.join(rng.choices(ALPHABET, k=5))}") in used:
        pass
    used.add(name)
    return name
