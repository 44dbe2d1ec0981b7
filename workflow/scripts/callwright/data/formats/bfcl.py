"""Rows of the Berkeley Function Calling Leaderboard: a question, functions, and the answers that are right.

    {"id": "simple_python_0", "question": [[{"role": "user", "content": …}]],
     "function": [{"name", "description", "parameters": {"type": "dict", "properties": …, "required": …}}]}
    {"id": "simple_python_0", "ground_truth": [{"f": {"x": [1, 1.0], "unit": ["m", ""]}}]}

The second is a row of the file of the same name in the folder `possible_answer`, or its `ground_truth` stands in
the first. An argument lists every value that is right; the first is taken, and "" means that it may be left out.
In the categories of irrelevance no call is right. Questions of several turns have answers that are code: rejected.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from callwright.data.formats.conversations import Record
from callwright.data.formats.readers import read_values
from callwright.data.formats.turns import value_of
from callwright.data.normal_schema import SchemaError, normal_parameters
from callwright.data.records import ANY_CALL, Example, RecordError, kind, short

_TYPES = {
    "dict": "object", "hashmap": "object", "map": "object", "float": "number", "double": "number", "tuple": "array",
    "list": "array", "arraylist": "array", "bool": "boolean", "int": "integer", "long": "integer", "short": "integer",
    "byte": "integer", "char": "string", "str": "string", "bigint": "integer",
}  # fmt: skip
_JSON = {"object", "number", "array", "boolean", "integer", "string", "null"}


def fits(row: dict[str, Any]) -> bool:
    """True when a record looks like one of this format."""
    return "question" in row and "function" in row


def answers_beside(path: Path) -> dict[str, Any]:
    """The `ground_truth` by id of the file of the same name in the folder `possible_answer` beside a file."""
    beside = path.parent / "possible_answer" / path.name
    if not beside.is_file():
        return {}
    rows = [row for _, row in read_values(beside) if isinstance(row, dict)]
    return {row["id"]: row.get("ground_truth") for row in rows if isinstance(row.get("id"), str)}


def examples(record_id: str, row: dict[str, Any], answers: Mapping[str, Any] | None = None) -> Iterator[Record]:
    """The one example of a row; raises RecordError when it cannot be used."""
    name = row.get("id") if isinstance(row.get("id"), str) else record_id
    truth = value_of(row.get("ground_truth", (answers or {}).get(name)), loose=False)
    if truth is None and "irrelevance" not in name:
        raise RecordError(
            "missing_field", "no ground_truth in the row, nor in a file of the same name in possible_answer/"
        )
    functions = value_of(row.get("function"), loose=False)
    if isinstance(functions, dict):
        functions = [functions]
    if not isinstance(functions, list):
        raise RecordError("wrong_type", f"the field 'function' is {kind(functions)}, expected a list")
    calls = _calls(truth or [])
    tags = [f"calls:{len(calls)}" if len(calls) < 2 else "calls:2+", *([] if calls else ["abstain:no_tool"])]
    example = {
        "id": record_id,
        "messages": _messages(value_of(row.get("question"), loose=False)),
        "tools": [tool(function) for function in functions],
        "calls": calls,
        "source": "bfcl",
        "tags": tags,
    }
    yield record_id, Example.from_row(example)


def suite_item(row: dict[str, Any], truth: list[Any] | None) -> Example:
    """A row as an item of a test suite: with all the values that are right, and kept if its own schema forbids them.

    `truth`: the row's `ground_truth`, [] where no call is right, None where some call is, whichever. Raises
    RecordError for a row that cannot be asked: without functions, above all.
    """
    tools = [tool(function) for function in row["function"]]
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    answers = [(name, possible) for call in truth or [] for name, possible in call.items()]
    calls = [{"name": name, "arguments": _gold(possible, schemas.get(name) or {})} for name, possible in answers]
    tags = [f"calls:{len(calls)}" if len(calls) < 2 else "calls:2+", *([] if calls else ["abstain:no_tool"])]
    example = {
        "id": row["id"],
        "messages": _messages(row["question"]),
        "tools": tools,
        "calls": calls,
        "source": "bfcl",
        "tags": [ANY_CALL] if truth is None else tags,
        "possible": [possible for _, possible in answers] if calls else None,
    }
    return Example.from_row(example)


def _gold(possible: dict[str, list[Any]], schema: dict[str, Any]) -> dict[str, Any]:
    """An answer that is right, as far as there is one: required arguments are given, be it as ""."""
    taken = {}
    for name, choices in possible.items():
        values = [choice for choice in choices if choice != ""]
        if name in (schema.get("required") or ()):
            values = values or choices
        elif choices[:1] == [""]:
            continue
        if values:
            taken[name] = _nested(values[0])
    return taken


def _messages(question: Any) -> list[Any]:
    if isinstance(question, str):
        return [{"role": "user", "content": question}]
    if isinstance(question, list) and question and isinstance(question[0], list):
        if len(question) > 1:
            raise RecordError("wrong_type", f"the question has {len(question)} turns, expected one")
        question = question[0]
    if not isinstance(question, list):
        raise RecordError("wrong_type", f"the field 'question' is {kind(question)}, expected a list")
    return question


def tool(function: Any) -> dict[str, Any]:
    """A function of BFCL as an OpenAI tool object; its types, which are Python's, Java's or JavaScript's, as JSON's."""
    if not isinstance(function, dict):
        raise RecordError("bad_tool", f"a function is {kind(function)}, expected an object")
    parameters = json_types(function.get("parameters") or {"type": "object", "properties": {}})
    try:
        parameters = normal_parameters(parameters)
    except SchemaError as error:
        raise RecordError("bad_tool", f"the parameters of {short(function.get('name'))}: {error}") from error
    description = function.get("description") or ""
    return {
        "type": "function",
        "function": {"name": function.get("name"), "description": description, "parameters": parameters},
    }


def json_types(schema: Any) -> Any:
    """A schema with the names of types as JSON Schema has them; `any` is no restriction."""
    if not isinstance(schema, dict):
        return schema
    found = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, str):
            name = value.casefold()
            if name == "any":
                continue
            found[key] = name if name in _JSON else _TYPES.get(name, "string")
        elif key == "properties" and isinstance(value, dict):
            found[key] = {name: json_types(part) for name, part in value.items()}
        elif key in ("items", "additionalProperties"):
            found[key] = json_types(value)
        else:
            found[key] = value
    return found


def _calls(truth: Any) -> list[dict[str, Any]]:
    if not isinstance(truth, list):
        raise RecordError("wrong_type", f"the ground_truth is {kind(truth)}, expected a list")
    calls = []
    for item in truth:
        if not isinstance(item, dict) or len(item) != 1:
            raise RecordError("wrong_type", f"an answer is {short(item)}, expected one function with its arguments")
        [(name, arguments)] = item.items()
        if not isinstance(arguments, dict):
            raise RecordError("wrong_type", f"the arguments of {short(name)} are {kind(arguments)}, expected an object")
        calls.append({"name": name, "arguments": _first(arguments)})
    return calls


def _first(arguments: dict[str, Any]) -> dict[str, Any]:
    """The first value that is right of each argument; an argument that may be left out first of all is."""
    taken = {}
    for name, choices in arguments.items():
        if not isinstance(choices, list) or not choices:
            raise RecordError("wrong_type", f"the values of {short(name)} are {short(choices)}, expected a list")
        if choices[0] != "":
            taken[name] = _nested(choices[0])
    return taken


def _nested(value: Any) -> Any:
    """Objects list the values of each field too, and so do objects in lists."""
    if isinstance(value, dict) and all(isinstance(choices, list) for choices in value.values()):
        return {name: _nested(choices[0]) for name, choices in value.items() if choices and choices[0] != ""}
    if isinstance(value, list):
        return [_nested(item) if isinstance(item, dict) else item for item in value]
    return value
