"""Answers that are already there when a generation was interrupted."""

import fcntl
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

Row = dict[str, Any]


class Partial:
    """Rows of finished batches in a hidden file beside the output, one line each after a line with the fingerprint.

    Snakemake deletes an output before it runs the rule again; this file is none, so it survives. Each row notes the
    seconds that were spent until then, so that those of all parts add up.
    """

    def __init__(self, out_path: Path, fingerprint: str, begun: float):
        self.out_path, self.fingerprint, self.begun = out_path, fingerprint, begun
        self.path = out_path.with_name(f".{out_path.name}.partial")
        self.rows: dict[str, Row] = {}
        self.spent = 0.0
        self.stream: BinaryIO

    @property
    def seconds(self) -> float:
        """Seconds spent so far, those of interrupted runs included."""
        return self.spent + time.monotonic() - self.begun

    def __enter__(self) -> "Partial":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = open(self.path, "a+b")  # noqa: SIM115
        try:
            fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.stream.close()
            raise CallwrightError(
                f"another process is answering into {self.out_path}: wait for it, or end it and run again"
            ) from error
        self._read()
        return self

    def _read(self) -> None:
        self.stream.seek(0)
        lines = self.stream.read().split(b"\n")
        whole = [line for line in lines[:-1] if line]  # what follows the last line break was cut by a kill
        header = orjson.dumps({"fingerprint": self.fingerprint})
        if whole and whole[0] == header:
            for line in whole[1:]:
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError:  # a power cut may leave a file its length without its bytes
                    break
                self.spent = row.pop("spent", self.spent)
                self.rows[row["id"]] = row
        elif whole:
            log.info("model, prompts or settings have changed: answering from the start")
        self.stream.truncate(0)
        self.stream.write(header + b"\n" + self._lines(self.rows.values(), self.spent))
        self.stream.flush()

    def _lines(self, rows: Iterable[Row], spent: float) -> bytes:
        return b"".join(orjson.dumps({**row, "spent": round(spent, 3)}) + b"\n" for row in rows)

    def append(self, rows: Sequence[Row]) -> None:
        """Add a finished batch."""
        self.rows.update({row["id"]: row for row in rows})
        self.stream.write(self._lines(rows, self.seconds))
        self.stream.flush()

    def remove(self) -> None:
        """Delete the file: the output holds everything."""
        self.path.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        self.stream.close()
