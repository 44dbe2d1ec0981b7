"""Test suites from elsewhere: the single-turn categories of BFCL v4, and files of anybody's records.

Items are written in a seeded order in which any first so many are a stratified sample: by the number of calls, why
there is none, and how many tools are on offer. So smaller samples lie within larger ones, and every run and machine
that answers `evaluation.items` of a suite answers the same ones.
"""

import dataclasses
import logging
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from callwright.data.formats import bfcl
from callwright.data.formats.conversations import Record
from callwright.data.formats.readers import read_values
from callwright.data.order import in_order
from callwright.data.records import Example, RecordError
from callwright.evals.scoring.match import match_calls
from callwright.models.fetch import checked_wheel, extract, license_of_wheel
from callwright.models.folders import fresh_folder
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

# Data and answers of BFCL v4, Apache-2.0. Not a setting: another version has other items and other answers, so that
# its numbers do not compare with ours, and the agreement with its checker was measured on this one.
BFCL = {
    "package": "bfcl-eval",
    "version": "2026.3.23",
    "sha256": "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
}
CATEGORIES = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
)
FAULTY = "answer:faulty"  # the tag of an item whose own answer is not accepted: nobody can get it right


def fetch_bfcl(folder: str | Path) -> dict[str, Any]:
    """Put the data files of BFCL's wheel into `folder`, nothing else; returns what was fetched, with its license.

    Raises CallwrightError of one line as `models.fetch` does: no network, a wrong hash, a full disk.
    """
    with fresh_folder(folder) as filling, tempfile.TemporaryDirectory() as scratch:
        wheel = checked_wheel(BFCL, Path(scratch), key="callwright.evals.suites.BFCL")
        return {**BFCL, "license": unpack(wheel, filling)}


def unpack(wheel: Path, folder: Path) -> str | None:
    """Write the wheel's questions into `folder` and the answers into `possible_answer`; returns its license."""
    (folder / "possible_answer").mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for category in CATEGORIES:
            extract(archive, f"bfcl_eval/data/{file_name(category)}", folder)
            answers = f"bfcl_eval/data/possible_answer/{file_name(category)}"
            if answers in names:
                extract(archive, answers, folder / "possible_answer")
        return license_of_wheel(archive)


def file_name(category: str) -> str:
    """The name of a category's file, of its questions and of its answers."""
    return f"BFCL_v4_{category}.json"


def bfcl_records(folder: str | Path, category: str) -> Iterable[Record]:
    """The items of a category by id, in BFCL's order; RecordError for one that cannot be asked."""
    path = Path(folder) / file_name(category)
    answers = bfcl.answers_beside(path)
    nothing = None if category == "live_relevance" else []
    for _, row in read_values(path):
        try:
            item = bfcl.suite_item(row, answers.get(row["id"], nothing))
            yield item.id, item if is_answerable(item) else dataclasses.replace(item, tags=(*item.tags, FAULTY))
        except RecordError as error:
            yield row["id"], error


def is_answerable(example: Example) -> bool:
    """Whether an item's own answer is accepted."""
    return match_calls(example.calls, example.calls, example.tools, example.possible)


def build(name: str, records: Iterable[Record]) -> tuple[list[Example], dict[str, Any]]:
    """The items of a suite in the order in which they are answered, and what is to be said of them.

    The latter is `{"suite", "items", "faulty": [ids], "left_out": [{"id", "rule", "reason"}]}`. Raises CallwrightError
    when no item is left, or two have the same id.
    """
    examples: list[Example] = []
    left_out = []
    for record_id, record in records:
        if isinstance(record, RecordError):
            left_out.append({"id": record_id, "rule": record.rule, "reason": record.reason})
        else:
            examples.append(record)
    ids = [example.id for example in examples]
    if not ids:
        raise CallwrightError(f"suite {name!r} has no item that can be asked: {len(left_out)} records were left out")
    if len(set(ids)) < len(ids):
        double = next(identifier for identifier in ids if ids.count(identifier) > 1)
        raise CallwrightError(f"suite {name!r} has two items with the id {double!r}: give each an id of its own")
    faulty = [example.id for example in examples if FAULTY in example.tags]
    log.info("suite %s: %d items", name, len(ids))
    if left_out:
        log.warning("suite %s: %d left out, e.g. %s", name, len(left_out), left_out[0])
    if faulty:
        log.warning("suite %s: no answer is right for %d items: %s", name, len(faulty), ", ".join(faulty))
    return in_order(examples), {"suite": name, "items": len(ids), "faulty": faulty, "left_out": left_out}
