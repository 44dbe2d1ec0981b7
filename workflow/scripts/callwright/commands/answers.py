"""Files of examples and of answers to them, as anybody may have written them: read, checked, matched."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callwright.commands import shared
from callwright.evals.conditions import CONDITIONS  # others are scored as they are
from callwright.runtime.errors import CallwrightError
from callwright.runtime.peers import peer_of

# How a server says that the model ended its answer itself; `length` says that the limit did.
ENDED = ("stop", "tool_calls", "function_call", "eos", "end_turn", "stop_sequence", "tool_use")
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Items:
    """The items of a file: `examples`, and the ids of those that were left out, since they are no usable ones."""

    examples: list[Any]
    left_out: set[str]

    @property
    def ids(self) -> set[str]:
        """The ids of the examples."""
        return {example.id for example in self.examples}


def read_items(path: str | Path, strict: bool = False) -> Items:
    """The examples of a file in any format that callwright reads.

    Records that are none, such as those whose expected calls break their own tools, are listed on standard error and
    left out; with `strict`, or when no other is there, they raise CallwrightError. So do ids that stand there twice.
    """
    from callwright.data.records import RecordError
    from callwright.data.sources import records_and_rows

    found: list[Any] = []
    wrong: list[tuple[str, RecordError]] = []
    ids: set[str] = set()
    for place, record, row in records_and_rows(shared.existing([path])):
        if isinstance(record, RecordError):
            wrong.append((place, record))
            own = row.get("id") if isinstance(row, dict) else None
            ids |= {place, *([str(own)] if isinstance(own, str | int) else [])}
        else:
            found.append(record)
    if wrong and (strict or not found):
        listed = "; ".join(f"{place} ({error})" for place, error in wrong[:3])
        raise CallwrightError(
            f"{len(wrong)} of {len(wrong) + len(found)} records of {path} are no usable examples: {listed}. "
            "Mend them, or leave them out (`callwright curate` does)"
        )
    if not found:
        raise CallwrightError(f"{path} holds no example")
    if wrong:
        rules = Counter(error.rule for _, error in wrong)
        shared.note(
            f"{len(wrong)} of {len(wrong) + len(found)} items of {path} are left out of everything below "
            f"({', '.join(f'{rule} {count}' for rule, count in rules.most_common())}): "
            + "; ".join(f"{place} ({error.reason})" for place, error in wrong[: shared.SHOWN])
            + (f"; and {len(wrong) - shared.SHOWN} more" if len(wrong) > shared.SHOWN else "")
            + ". With --strict this is an error"
        )
    twice = [name for name, count in Counter(example.id for example in found).items() if count > 1]
    if twice:
        raise CallwrightError(f"{path}: {len(twice)} ids stand there more than once: {shared.some(twice)}")
    return Items(found, ids - {example.id for example in found})


def read_generations(paths: Sequence[str | Path], suite: str, items: Items) -> list[Row]:
    """The answers of some files, each to one of the items; what a row does not say is filled in.

    Answers to items that were left out are left out too.

    `id` and `text` must be there. Absent, `condition` is `answers` or, of several files, the file's name, `suite` is
    the given one and `finish_reason` `stop`. Raises CallwrightError that names line and field,
    unknown ids, and answers given twice.
    """
    rows, silent, ids = [], 0, items.ids
    each = ((path, place, row) for path in paths for place, row in shared.json_rows(path))
    for path, place, row in each:
        row = dict(row)
        if isinstance(row.get("id"), int) and not isinstance(row["id"], bool):
            row["id"] = str(row["id"])
        if row.get("id") in items.left_out:
            continue
        for key in ("id", "text"):
            if not isinstance(row.get(key), str):
                raise CallwrightError(f"{place}: an answer needs the field {key!r} with a text, found {row.get(key)!r}")
        for key, default in (("condition", shared.name_of(path) if len(paths) > 1 else "answers"), ("suite", suite)):
            row[key] = default if row.get(key) is None else row[key]
            if not isinstance(row[key], str) or not _NAME.fullmatch(row[key]):
                raise CallwrightError(f"{place}: {key} is {row[key]!r}, expected letters, digits, `_`, `.` and `-`")
        silent += row.get("finish_reason") is None
        row["finish_reason"] = finish_reason(row.get("finish_reason"), place)
        if not isinstance(row.get("prompt", ""), str) or not isinstance(row.get("prompt_sha256", ""), str):
            raise CallwrightError(f"{place}: `prompt` and `prompt_sha256` must be text")
        rows.append(row)
    if not rows:
        raise CallwrightError(f"{' and '.join(map(str, paths))}: no answer is there")
    unknown = list(dict.fromkeys(row["id"] for row in rows if row["id"] not in ids))
    if unknown:
        raise CallwrightError(
            f"{len(unknown)} ids of the answers are those of no example: {shared.some(unknown)}. The examples have "
            f"ids like {shared.some(sorted(ids)[:3])}: is it the right pair of files?"
        )
    counts = Counter((row["suite"], row["condition"], row["id"]) for row in rows)
    if twice := [f"{item} ({condition})" for (_, condition, item), count in counts.items() if count > 1]:
        raise CallwrightError(f"{len(twice)} items are answered more than once: {shared.some(twice)}")
    if silent:
        shared.note(f"{silent} of {len(rows)} answers have no finish_reason: they count as ended by the model itself")
    named = {row["condition"] for row in rows if row["condition"] not in ("answers", *map(shared.name_of, paths))}
    if strange := sorted(name for name in named - set(CONDITIONS) if peer_of(name) is None):
        shared.note(f"conditions that the workflow does not know, taken as they are: {', '.join(strange)}")
    return rows


def finish_reason(value: Any, place: str) -> str:
    """`stop`, `length`, or `too_long` of a prompt that was not answered; raises CallwrightError for another word."""
    if value is None or value in ENDED:
        return "stop"
    if value in ("length", "max_tokens"):
        return "length"
    if value == "too_long":
        return value
    raise CallwrightError(
        f"{place}: finish_reason is {value!r}, expected one of {', '.join(ENDED)}, length or too_long"
    )


def by_suite(rows: list[Row], only: list[str]) -> dict[str, dict[str, list[Row]]]:
    """The rows by suite and condition; `only` these conditions, if any are named."""
    there = dict.fromkeys(row["condition"] for row in rows)
    if missing := [name for name in only if name not in there]:
        raise CallwrightError(f"there is no condition {shared.some(missing)}: the answers have {', '.join(there)}")
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if not only or row["condition"] in only:
            found.setdefault(row["suite"], {}).setdefault(row["condition"], []).append(row)
    return found
