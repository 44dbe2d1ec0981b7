"""Corrections: requests that a model answered wrongly, each with the answer that would have been right.

A file of corrections is JSON Lines that is only ever appended to. A line is

    {"id", "time", "messages", "tools", "calls", "answer", "kind", "answered", "model", "via"}

as an Example has `messages`, `tools`, `calls` and `answer`; `kind` is call, ask or decline; `answered` is what the
model had said (`{"calls", "content"}`), `time` an ISO 8601 date and time, `via` playground or agent. `{"undo": id}`
takes a correction back. The last correction of a request, with the same tools on offer, is the one that counts.
"""

import codecs
import contextlib
import datetime
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from callwright.chat.formats import NO_CALL
from callwright.data.held_back import held_back
from callwright.data.records import POOL_TRAIN, Example, RecordError, kind, normalize, short
from callwright.runtime.errors import FULL_DISK, CallwrightError
from callwright.runtime.files import sha256_json

KINDS = ("call", "ask", "decline")
HELD_BACK = 0.25  # share of the corrections that are never trained
PREFIX = "correction:"
LONGEST = 1 << 20  # bytes of a line


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction. `example` is what there is to learn, or to be tested on; `row` the line as it was read."""

    id: str
    time: str
    kind: str
    example: Example
    answered: dict[str, Any]
    row: dict[str, Any]

    @property
    def held_back(self) -> bool:
        """Whether it is kept for tests."""
        return held_back(self.example.query, HELD_BACK)


@dataclass(frozen=True, slots=True)
class Found:
    """What a file holds: the corrections that count, in the order of the file, and what cannot be used.

    rejected: `{"id", "rule", "reason"}` of lines that are broken, taken back or replaced by a later one.
    """

    corrections: list[Correction]
    rejected: list[dict[str, str]]

    @property
    def trained(self) -> list[Correction]:
        """Those that are trained."""
        return [correction for correction in self.corrections if not correction.held_back]

    @property
    def kept_back(self) -> list[Correction]:
        """Those that only tests use."""
        return [correction for correction in self.corrections if correction.held_back]


def read(path: str | Path) -> Found:
    """The corrections of a file; one that does not exist holds none.

    A broken line, also one that was cut in the middle, is rejected with its number and reason; reading goes on.
    """
    path = Path(path)
    by_request: dict[str, Correction] = {}
    rejected: list[dict[str, str]] = []
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")  # some editors write one
    except FileNotFoundError:
        return Found([], [])
    except OSError as error:
        raise CallwrightError(f"the corrections {path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path.name}:{number}"
        try:
            row = parse(line)
            if "undo" in row:
                undone = next((key for key, found in by_request.items() if found.id == row["undo"]), None)
                if undone is None:
                    raise RecordError("undo", f"there is no correction {short(row['undo'])} above it")
                rejected.append({"id": str(row["undo"]), "rule": "undone", "reason": f"taken back in line {number}"})
                del by_request[undone]
                continue
            found = correction(row)
        except RecordError as error:
            cut = number == len(lines) and error.rule == "invalid_json"
            reason = f"the line is cut: {error.reason}" if cut else error.reason
            rejected.append({"id": place, "rule": error.rule, "reason": reason})
            continue
        key = same_request(found.example)
        if key in by_request:
            earlier = by_request.pop(key)
            rejected.append({"id": earlier.id, "rule": "replaced", "reason": f"corrected again in line {number}"})
        by_request[key] = found
    return Found(list(by_request.values()), rejected)


def parse(line: bytes) -> dict[str, Any]:
    """A line as an object; raises RecordError."""
    if len(line) > LONGEST:
        raise RecordError("too_large", f"the line has {len(line)} bytes, at most {LONGEST} are read")
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RecordError("invalid_json", str(error)) from error
    if not isinstance(row, dict):
        raise RecordError("wrong_type", f"the line is {kind(row)}, expected an object")
    return row


def correction(row: dict[str, Any]) -> Correction:
    """A correction from its row, checked in full; raises RecordError with rule and reason."""
    identifier, sort = row.get("id"), row.get("kind")
    if not isinstance(identifier, str) or not identifier:
        raise RecordError("missing_field", "the field 'id' is missing")
    if sort not in KINDS:
        raise RecordError("wrong_type", f"the field 'kind' is {short(sort)}, expected {', '.join(KINDS)}")
    calls, answer = row.get("calls"), row.get("answer")
    if (sort == "call") != bool(calls):
        raise RecordError("wrong_type", f"kind {sort!r} has {'no' if not calls else 'a'} call under `calls`")
    if sort == "ask" and not (isinstance(answer, str) and answer.strip()):
        raise RecordError("no_answer", "kind 'ask' needs a question under `answer`")
    tag = {
        "call": "calls:1" if len(calls or []) == 1 else "calls:2+",
        "ask": "abstain:missing",
        "decline": "abstain:no_tool",
    }
    example = Example.from_row(
        {
            "id": PREFIX + identifier,
            "messages": row.get("messages"),
            "tools": row.get("tools"),
            "calls": calls or [],
            "answer": None if sort == "call" else (answer or NO_CALL),
            "source": "corrections",
            "tags": ["correction", *([] if sort == "call" else ["calls:0"]), tag[sort], POOL_TRAIN],
        }
    )
    answered = row.get("answered") if isinstance(row.get("answered"), dict) else {}
    return Correction(identifier, str(row.get("time", "")), sort, example, answered, row)


def same_request(example: Example) -> str:
    """A text that is equal for corrections of the same request with the same tools on offer."""
    said = [[message["role"], normalize(str(message.get("content") or ""))] for message in example.messages]
    return sha256_json([said, sorted(example.tool_names)])


class CorrectionStore:
    """A file of corrections that is appended to, by any number of processes at once."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def add(self, row: dict[str, Any]) -> Correction:
        """Append a correction, its id and time filled in; raises RecordError for one that cannot be used."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        made = correction({"id": uuid.uuid4().hex[:12], "time": now, **row})
        self._append(made.row)
        return made

    def undo(self, identifier: str) -> None:
        """Take a correction back; raises RecordError when there is none of this id that counts."""
        if all(found.id != identifier for found in read(self.path).corrections):
            raise RecordError("undo", f"there is no correction {short(identifier)} to take back")
        self._append({"undo": identifier, "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")})

    def _append(self, row: dict[str, Any]) -> None:
        line = orjson.dumps(row) + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._locked() as stream:
                if stream.tell() and not self._ends_a_line(stream):
                    line = b"\n" + line  # whoever wrote last was cut: its line stays broken, this one is whole
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            if error.errno in FULL_DISK:
                raise CallwrightError(
                    f"no space left on the disk: the correction was not written to {self.path}"
                ) from error
            raise CallwrightError(f"the corrections {self.path} cannot be written: {error.strerror}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[Any]:
        with open(self.path, "ab+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0, os.SEEK_END)
            yield stream

    @staticmethod
    def _ends_a_line(stream: Any) -> bool:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def curated(
    found: Found, tests: Iterable[Example], fits: Any = None
) -> tuple[list[Example], list[Example], list[dict[str, str]]]:
    """The examples to train, those to test on, and the rejections, with those that a test set holds already.

    tests: the run's test sets; a correction of one of their requests is never trained. fits: whether an example is
    short enough, or None.
    """
    known = {normalize(example.query) for example in tests} | {normalize(c.example.query) for c in found.kept_back}
    rejected, trained = list(found.rejected), []
    for made in found.trained:
        if normalize(made.example.query) in known:
            rejected.append({"id": made.id, "rule": "test_item", "reason": "a test set has this request: not trained"})
        elif fits is not None and not fits(made.example):
            rejected.append({"id": made.id, "rule": "too_long", "reason": "longer than data.max_tokens"})
        else:
            trained.append(made.example)
    return trained, [made.example for made in found.kept_back], rejected


def repeated(examples: Iterable[Example], times: int) -> list[Example]:
    """Each example so many times, with ids of their own."""
    return [replace(e, id=e.id if turn == 1 else f"{e.id}/{turn}") for e in examples for turn in range(1, times + 1)]


def ledger(
    found: Found, trained: list[Example], rejected: list[dict[str, str]], name: str, repeat: int
) -> dict[str, Any]:
    """What became of the file `name`: counts, the rejections, and a row for each correction that counts."""
    ids = {example.id for example in trained}
    return {
        "file": name,
        "repeat": repeat,
        "trained": len(trained),
        "kept_back": len(found.kept_back),
        "rejected": rejected,
        "corrections": [
            {
                "id": c.id,
                "time": c.time,
                "kind": c.kind,
                "request": c.example.query[:200],
                "used": "test" if c.held_back else "trained" if c.example.id in ids else "left out",
                "answered": c.answered,
            }
            for c in found.corrections
        ],
    }


def settings_of(run: dict[str, Any]) -> dict[str, Any]:
    """`{"path", "repeat"}` of a run's `corrections`, which may be a path alone."""
    given = run.get("corrections")
    if given is None or isinstance(given, str):
        given = {"path": given}
    return {"path": given.get("path"), "repeat": given.get("repeat", 3)}
