"""Are these the calls that were expected? Order-free, after the rules of BFCL v4's AST checker.

A call is `{"name": str, "arguments": {str: value}}`. Two lists of calls match when their names are
equal as multisets and the calls can be paired one to one so that every pair agrees (a perfect
bipartite matching, so the order of the calls never matters and two calls of one tool cannot be
mistaken for each other). A pair agrees when its arguments do, value by value:

- strings: equal after case folding and the removal of blanks and of `, . / - _ * ^`; a single quote
  equals a double one; a leading article does not count. E-mail addresses, versions, codes, ids, telephone
  numbers and addresses of pages, which those signs tell apart, must be equal but for case (`is_code`)
- numbers: equal in value; an integer may stand for a float, but a float never for an integer that the
  schema calls `integer`; a boolean is no number
- lists: element by element, in order; objects: key by key
- an optional argument that is left out equals the same argument given with its schema default
- any other argument that only one side has makes the pair differ

Source: the Berkeley Function Calling Leaderboard's `ast_checker.py`. It pairs calls greedily, where
this pairs them optimally; it lists the allowed values of each argument, where most examples have one.
Where an example has such lists (`possible`), these decide, by the rules of `possible.py`.
"""

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from callwright.data.schema import parameters_by_name
from callwright.evals.scoring import possible_answers

Call = dict[str, Any]
Possible = dict[str, list[Any]]


def match_calls(
    expected: Sequence[Call],
    got: Sequence[Call],
    tools: Sequence[dict[str, Any]],
    possible: Sequence[Possible] | None = None,
) -> bool:
    """True when `got` makes the `expected` calls, in any order. `tools` are OpenAI tool objects.

    `possible`: for each expected call the right values of its arguments, which then count instead of its own.
    """
    if not same_names(expected, got):
        return False
    return all(partner is not None for partner in pair_calls(expected, got, tools, possible))


def same_names(expected: Sequence[Call], got: Sequence[Call]) -> bool:
    """True when both lists call the same tools, each equally often."""
    return Counter(call["name"] for call in expected) == Counter(call["name"] for call in got)


def pair_calls(
    expected: Sequence[Call],
    got: Sequence[Call],
    tools: Sequence[dict[str, Any]],
    possible: Sequence[Possible] | None = None,
) -> list[int | None]:
    """For each expected call the index of its partner in `got`, or None: as many pairs as possible."""
    schemas = parameters_by_name(tools)

    def agree(i: int, j: int) -> bool:
        if got[j]["name"] != expected[i]["name"]:
            return False
        return call_difference(expected[i], got[j], schemas, possible[i] if possible else None) is None

    return maximum_matching(len(expected), len(got), agree)


def maximum_matching(left: int, right: int, agree: Callable[[int, int], bool]) -> list[int | None]:
    """A maximum bipartite matching: for each of `left` nodes its partner among `right`, or None.

    Breadth-first augmenting paths, O(left * edges); `agree` is asked once per pair.
    """
    edges = [[j for j in range(right) if agree(i, j)] for i in range(left)]
    partner: list[int | None] = [None] * left
    owner: list[int | None] = [None] * right
    for start in range(left):
        came_from: dict[int, int] = {}  # right node -> the left node it was reached from
        queue = deque([start])
        free = None
        while queue and free is None:
            i = queue.popleft()
            for j in edges[i]:
                if j in came_from:
                    continue
                came_from[j] = i
                holder = owner[j]
                if holder is None:
                    free = j
                    break
                queue.append(holder)
        while free is not None:  # flip the path: each left node on it takes the right node it led to
            i = came_from[free]
            partner[i], owner[free], free = free, i, partner[i]
    return partner


def call_difference(
    expected: Call, got: Call, schemas: dict[str, dict[str, Any]], possible: Possible | None = None
) -> str | None:
    """How the arguments of two calls of one tool differ: None, or a label as of `difference`."""
    schema = schemas.get(expected["name"], {})
    if possible is not None:
        return possible_answers.difference(possible, got["arguments"], schema)
    return difference(expected["arguments"], got["arguments"], schema)


def difference(expected: dict[str, Any], got: dict[str, Any], schema: dict[str, Any]) -> str | None:
    """How two objects of arguments differ: None, or the gravest of the labels below.

    `missing_argument` (expected, not given, and no default says the same), `wrong_type`,
    `wrong_value` (also: an optional argument given that was not expected).
    """
    properties = _properties(schema)
    required = schema.get("required") or ()
    found: set[str] = set()
    for name, value in expected.items():
        part = properties.get(name, {})
        if name in got:
            found.add(compare_values(value, got[name], part) or "")
        elif name in required or not _is_default(value, part):
            found.add("missing_argument")
    for name, value in got.items():
        if name not in expected and (name in required or not _is_default(value, properties.get(name, {}))):
            found.add("wrong_value")
    return next((label for label in possible_answers.LABELS if label in found), None)


def compare_values(expected: Any, got: Any, schema: dict[str, Any]) -> str | None:
    """None when the values agree, else `wrong_type` or `wrong_value`; `schema` is the value's JSON Schema.

    Nested deeper than Python's stack allows, two values count as different.
    """
    try:
        return _compare(expected, got, schema)
    except RecursionError:
        return "wrong_value"


def _compare(expected: Any, got: Any, schema: Any) -> str | None:
    if not isinstance(schema, dict):  # JSON Schema also knows `true` and `false`
        schema = {}
    if isinstance(expected, str):
        if not isinstance(got, str):
            return "wrong_type"
        return None if same_text(expected, got) else "wrong_value"
    if isinstance(expected, bool) or expected is None:
        if type(got) is not type(expected):
            return "wrong_type"
        return None if got == expected else "wrong_value"
    if isinstance(expected, int | float):
        if isinstance(got, bool) or not isinstance(got, int | float):
            return "wrong_type"
        if isinstance(got, float) and isinstance(expected, int) and _only_integers(schema.get("type")):
            return "wrong_type"
        return None if got == expected else "wrong_value"
    if isinstance(expected, list):
        return _compare_lists(expected, got, schema)
    return _compare_objects(expected, got, schema)


def _compare_lists(expected: list[Any], got: Any, schema: dict[str, Any]) -> str | None:
    if not isinstance(got, list):
        return "wrong_type"
    if len(got) != len(expected):
        return "wrong_value"
    return _gravest(_compare(a, b, schema.get("items")) for a, b in zip(expected, got, strict=True))


def _compare_objects(expected: dict[str, Any], got: Any, schema: dict[str, Any]) -> str | None:
    if not isinstance(got, dict):
        return "wrong_type"
    properties = _properties(schema)
    required = schema.get("required") or ()
    labels = [_compare(expected[key], got[key], properties.get(key)) for key in expected.keys() & got.keys()]
    for one, other in ((expected, got), (got, expected)):
        for key in one.keys() - other.keys():
            if key in required or not _is_default(one[key], properties.get(key)):
                labels.append("wrong_value")
    return _gravest(labels)


def _only_integers(kind: Any) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return "integer" in kinds and "number" not in kinds


def _gravest(labels: Iterable[str | None]) -> str | None:
    found = set(labels)
    return "wrong_type" if "wrong_type" in found else "wrong_value" if "wrong_value" in found else None


def _is_default(value: Any, schema: Any) -> bool:
    return isinstance(schema, dict) and "default" in schema and compare_values(schema["default"], value, schema) is None


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


# What is written without blanks, and read by machines: a@b.c, 1.2.3, v2.0, INV-2290, 555-0188, a/b.html, QX83LM.
_CODE = re.compile(
    r"[^\s@]+@[^\s@]+\.\w+|v?\d+(?:\.\d+){2,}(?:[-+.]\w+)*|v\d+(?:\.\d+)+|\+?\d{2,}(?:-\d+)+|(?:https?://)?[\w-]+(?:\.[\w-]+)+/\S*"
    r"|(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[A-Za-z\d]+(?:[-_/.#][A-Za-z\d]+)*"
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\S*)?|\d\d-\d\d")
_ARTICLE = re.compile(r"(?:the|an?)\s+(?=\S)", re.I)


def same_text(expected: str, got: str) -> bool:
    """Whether two strings count as the same; see the module."""
    if is_code(expected):
        return expected.strip().casefold() == got.strip().casefold()
    if normalize(expected) == normalize(got):
        return True
    return normalize(bare(expected)) == normalize(bare(got))


def bare(text: str) -> str:
    """A string without its leading article."""
    text = text.strip()
    found = _ARTICLE.match(text)
    return text[found.end() :] if found else text


def is_code(text: str) -> bool:
    """Whether a string is an e-mail address, a version, a code, an id, a telephone number or a page's address."""
    text = text.strip()
    return _CODE.fullmatch(text) is not None and _DATE.fullmatch(text) is None


def normalize(text: str) -> str:
    """A string as BFCL compares it: `New-York, N.Y.` -> `newyorkny`."""
    return text.translate(possible_answers.IGNORED).casefold()


def exactly_equal(expected: Sequence[Call], got: Sequence[Call]) -> bool:
    """True when both lists hold the same calls to the letter, in any order: 1 is not 1.0, "a" is not "A"."""
    try:
        return Counter(map(canonical, expected)) == Counter(map(canonical, got))
    except RecursionError:
        return False


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal text means equal value and equal types."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
