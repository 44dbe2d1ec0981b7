"""Arguments against lists of the values that are right, after the rules of BFCL v4's AST checker.

`possible` gives for each argument of a call every value that is right; "" among them says that the argument may be
left out. Source: `simple_function_checker` and what it calls in `bfcl_eval/eval_checker/ast_eval/ast_checker.py`
(Apache-2.0). The rules, oddities among them, are in docs/scoring.md; tests/test_evals_bfcl.py compares verdicts with
those of the original.
"""

from collections.abc import Sequence
from typing import Any

LABELS = ("missing_argument", "wrong_type", "wrong_value")  # the gravest first
IGNORED = str.maketrans({**dict.fromkeys(" ,./-_*^"), "'": '"'})

# JSON Schema's types as those of Python values; anything else (BFCL's `any`) is text, or what the values are.
_TYPES = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}


def difference(possible: dict[str, list[Any]], got: dict[str, Any], schema: dict[str, Any]) -> str | None:
    """How the arguments of a call differ from what is right: None, or the gravest of LABELS.

    `schema` is the tool's JSON Schema. An argument that it or `possible` does not name is a `wrong_value`.
    """
    properties = schema.get("properties") or {}
    absent = [name for name in schema.get("required") or () if name not in got]
    absent += [name for name, choices in possible.items() if name not in got and "" not in choices]
    found = {"missing_argument"} if absent else set()
    for name, value in got.items():
        known = name in properties and name in possible
        found.add(compare(value, possible[name], properties[name]) if known else "wrong_value")
    return next((label for label in LABELS if label in found), None)


def compare(value: Any, choices: Sequence[Any], schema: Any) -> str | None:
    """None when `value` is right, else `wrong_type` or `wrong_value`; `schema` is the argument's JSON Schema."""
    try:
        expected = _type_of(schema)
        usual = _usual(choices)
        found = float if expected is float and type(value) is int else type(value)
        if found is expected:
            items = schema.get("items") if expected is list else None
            if items is not None and not _items_fit(value, choices, _type_of(items)):
                return "wrong_type"
        elif found is not usual:
            return "wrong_type"
        # Where the right values have another type than the schema says, as variables do (`data["x"]` for a list),
        # the value must be equal to the letter.
        right = _is_right(value, choices, expected, schema) if usual in (None, expected) else value in choices
    except RecursionError:
        right = False
    return None if right else "wrong_value"


def standardize(value: Any) -> Any:
    """A string as BFCL compares it (`New-York, N.Y.` -> `newyorkny`); any other value as it is."""
    return value.translate(IGNORED).lower() if isinstance(value, str) else value


def _type_of(schema: Any) -> type:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return _TYPES.get(kind, str) if isinstance(kind, str) else str


def _usual(choices: Sequence[Any]) -> type | None:
    """The type of the right values: that of the first one."""
    return next((type(choice) for choice in choices if choice != ""), None)


def _items_fit(value: list[Any], choices: Sequence[Any], expected: type) -> bool:
    """Whether the items of a list have the type that the schema says, or that those of a right list have."""
    return any(
        not isinstance(choice, list) or all(type(item) in (expected, _usual(choice)) for item in value)
        for choice in choices
    )


def _is_right(value: Any, choices: Sequence[Any], expected: type, schema: Any) -> bool:
    if expected is dict:
        return any(isinstance(choice, dict) and _same_object(value, choice) for choice in choices)
    if expected is list:
        # "" stands for none, and so does an empty list.
        lists = [choice if isinstance(choice, list) else [] for choice in choices]
        if _type_of(schema.get("items")) is dict:
            return any(len(value) == len(right) and all(map(_same_object, value, right)) for right in lists)
        return list(map(standardize, value)) in [list(map(standardize, right)) for right in lists]
    return standardize(value) in list(map(standardize, choices))


def _same_object(value: Any, right: Any) -> bool:
    """One object against the right values of each of its fields; what is nested deeper must be equal to the letter."""
    if not isinstance(value, dict) or not isinstance(right, dict):
        return False
    fields = {name: choices if isinstance(choices, list) else [choices] for name, choices in right.items()}
    if any("" not in choices for name, choices in fields.items() if name not in value):
        return False
    return all(name in fields and standardize(item) in map(standardize, fields[name]) for name, item in value.items())
