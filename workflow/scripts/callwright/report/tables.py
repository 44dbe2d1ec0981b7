"""A table as the page's templates draw it, and how its numbers are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from callwright.report.drawing import CONDITION_STYLES
from callwright.report.html import percent

UNBROKEN = 32  # characters of words that are kept on one line


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell, with a quieter line below it and a style: `right`, `wrong`, `key` or none."""

    text: str
    note: str = ""
    style: str = ""


@dataclass
class Table:
    """Columns by their headings, and rows of as many cells.

    head: the headings. rows: text or `Cell`. words: the numbers of the columns that hold words, which stand on the
    left; all others are numbers and stand on the right. key: numbers of rows that matter most. caption: what the
    table shows, in a line.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    words: Sequence[int] = (0,)
    key: Sequence[int] = ()
    caption: str = ""
    heads: list[dict[str, Any]] = field(init=False)
    lines: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        """Raises ValueError for a row that has more or fewer cells than there are headings."""
        self.heads = [{"text": text, "number": at not in self.words} for at, text in enumerate(self.head)]
        self.lines = []
        for number, row in enumerate(self.rows):
            if len(row) != len(self.head):
                raise ValueError(f"row {number} has {len(row)} cells, the table {len(self.head)} columns: {row}")
            cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
            self.lines.append(
                {
                    "key": number in self.key,
                    "cells": [{"cell": cell, "kind": self._kind(at, cell)} for at, cell in enumerate(cells)],
                }
            )

    def _kind(self, at: int, cell: Cell) -> str:
        """How a cell is set: a number, words that stay on one line, or text."""
        return "number" if at not in self.words else "plain" if at and len(cell.text) <= UNBROKEN else ""


def interval(share: float | None, bounds: Sequence[float] | None) -> str:
    """`41.0 % [31.9, 50.8]`: a share with its interval, in per cent."""
    if share is None or bounds is None:
        return percent(share)
    low, high = (100 * bound for bound in bounds)
    return f"{percent(share)} [{low:.1f}, {high:.1f}]"


def p_value(p: float | None) -> str:
    """`0.012`; `< 0.001` for what is smaller, a dash where there is none."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """`1,234.5 GB`; a dash where nothing was measured."""
    return "–" if value is None else f"{value:,.{digits}f}{f' {unit}' if unit else ''}"


def words(name: str) -> str:
    """`called_when_should_abstain` as words."""
    return name.replace("_", " ")


def arranged(found: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Results by suite and condition in the order of the configuration's suites, and of conditions as they build up.

    `summary.json` has its keys in the order of the alphabet.
    """
    entries = config.get("evaluation", {}).get("suites", [])
    suites = [name for entry in entries for name in (entry if isinstance(entry, dict) else [entry])]
    conditions = list(CONDITION_STYLES)

    def place(name: str, known: list[str]) -> tuple[int, str]:
        return (known.index(name), "") if name in known else (len(known), name)

    return {
        suite: dict(sorted(found[suite].items(), key=lambda item: place(item[0], conditions)))
        for suite in sorted(found, key=lambda name: place(name, suites))
    }
