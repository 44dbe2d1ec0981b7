"""What must hold between two arguments of a call: an end after its start, a highest above its lowest.

In a toolset file: `constraints: [start < end, lowest <= highest, source != target]` beside a tool's `values`. Numbers,
dates as `2026-03-14`, times as `07:30` and both together are compared; what cannot be compared holds.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from callwright.data.tool_texts import words

COMPARE: dict[str, Callable[[Any, Any], bool]] = {"<": operator.lt, "<=": operator.le, "!=": operator.ne}
WRITTEN = re.compile(r"\s*(\w+)\s*(<=|<|!=)\s*(\w+)\s*")
# Words that tell the earlier or lower of two parameters from the later or higher one.
PAIRS = [
    ("start", "end", "<"), ("begin", "end", "<"), ("from", "to", "<"), ("from", "until", "<"), ("since", "until", "<"),
    ("first", "last", "<"), ("after", "before", "<"), ("check in", "check out", "<"), ("checkin", "checkout", "<"),
    ("departure", "return", "<"), ("depart", "return", "<"), ("departure", "arrival", "<"),
    ("arrival", "departure", "<"),
    ("pickup", "dropoff", "<"), ("pick up", "drop off", "<"), ("open", "close", "<"), ("opens", "closes", "<"),
    ("opening", "closing", "<"), ("starts", "ends", "<"), ("min", "max", "<="),
    ("minimum", "maximum", "<="), ("low", "high", "<="), ("lowest", "highest", "<="), ("lower", "upper", "<="),
    ("source", "target", "!="), ("origin", "destination", "!="),
]  # fmt: skip
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)?(?:(?<=\d)[T ])?(\d\d:\d\d(?::\d\d)?)?")


@dataclass(frozen=True, slots=True)
class ArgumentConstraint:
    """`left` `sign` `right`, as in `start < end`."""

    left: str
    sign: str
    right: str

    def holds(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call's arguments keep it; a missing argument, or two that cannot be compared, do."""
        if self.left not in arguments or self.right not in arguments:
            return True
        left, right = arguments[self.left], arguments[self.right]
        if self.sign == "!=":
            return left != right
        return not comparable(left, right) or COMPARE[self.sign](left, right)

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"


def comparable(left: Any, right: Any) -> bool:
    """Whether two values have an order: two numbers, or two dates or times that are written alike."""
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (left, right)]
    if all(numbers):
        return True
    if not (isinstance(left, str) and isinstance(right, str)):
        return False
    found = [_TIME.fullmatch(value) for value in (left, right)]
    return all(found) and [bool(g) for g in found[0].groups()] == [bool(g) for g in found[1].groups()] != [False, False]


def read(text: Any, known: set[str]) -> ArgumentConstraint:
    """A constraint as a toolset file writes it; raises ValueError that says what is wrong."""
    match = WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"found {text!r:.60}, expected two parameters with <, <= or != between them, as `start < end`")
    for name in (match.group(1), match.group(3)):
        if name not in known:
            raise ValueError(f"there is no parameter {name!r}; the parameters are {', '.join(sorted(known))}")
    return ArgumentConstraint(*match.groups())


def guess(properties: Mapping[str, Mapping[str, Any]]) -> list[ArgumentConstraint]:
    """The constraints that the parameters' names tell: `start_date < end_date`, `min_price <= max_price`.

    Only between parameters of the same type, whose names agree but for the two words; those of two texts with an order
    hold where their values turn out to be dates or times.
    """
    found: list[ArgumentConstraint] = []
    for first in properties:
        for second in properties:
            if first == second or properties[first].get("type") != properties[second].get("type"):
                continue
            for low, high, sign in PAIRS:
                if _rest(first, low) is not None and _rest(first, low) == _rest(second, high):
                    if sign == "!=" and properties[first].get("enum"):
                        continue
                    # "departure" and "arrival" are in both orders above: a stay arrives first, a journey departs first.
                    if not any({c.left, c.right} == {first, second} for c in found):
                        found.append(ArgumentConstraint(first, sign, second))
    return found


def _rest(name: str, word: str) -> str | None:
    """The other words of a name that has `word` among its own; None where it has not."""
    text = f" {words(name)} "
    return " ".join(text.replace(f" {word} ", " ", 1).split()) if f" {word} " in text else None


def hold(constraints: tuple[ArgumentConstraint, ...], arguments: Mapping[str, Any]) -> bool:
    """Whether all of them hold."""
    return all(constraint.holds(arguments) for constraint in constraints)
