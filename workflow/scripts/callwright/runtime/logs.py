"""Logging and progress: the console and the rule's log file, the same lines in both."""

import logging
import sys
import time
from pathlib import Path

FORMAT = "%(asctime)s %(levelname).1s %(message)s"


def setup(log_file: str | Path | None = None, append: bool = False) -> None:
    """Send the library's log records to standard error and, if given, to `log_file` (overwritten unless `append`)."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None:
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        if not append:
            open(log_file, "wb").close()
        # Each line goes to the file's end, whoever wrote the one before: the workers of a training write there too.
        handlers.append(logging.FileHandler(log_file, mode="a", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
    logging.raiseExceptions = False  # a line that a full disk refuses must not bury the error under tracebacks
    root = logging.getLogger("callwright")
    root.handlers[:] = handlers
    root.setLevel(logging.INFO)
    root.propagate = False


class Progress:
    """A line in the log each few seconds: how far, how fast, how long still.

    progress = Progress("generate", total=100, unit="items")
    progress.advance(8, "2 cut at the limit")   # logs only when `every` seconds have passed
    progress.done()                             # logs the total time

    The first line comes after `first` seconds, or else after `every`. A total of 0 is one that is not known: then there
    is no time left to tell either.
    """

    def __init__(
        self, what: str, total: float, unit: str, every: float = 5.0, done: float = 0, first: float | None = None
    ):
        self.what, self.total, self.unit, self.every = what, total, unit, every
        self.count = self.first = done
        self.start = time.monotonic()
        self.last = self.start if first is None else self.start - every + first
        self.log = logging.getLogger("callwright.progress")

    def advance(self, steps: float = 1, note: str = "", left: float | None = None) -> None:
        """Count `steps` more units (0: only show life); `note` is appended to the line if one is due.

        left: seconds still to go, where the caller knows better than the rate so far.
        """
        self.count += steps
        now = time.monotonic()
        if now - self.last >= self.every or (0 < self.total <= self.count and self.last <= self.start):
            self.last = now
            rate = (self.count - self.first) / max(now - self.start, 1e-9)
            tail = f", {note}" if note else ""
            if not self.total:
                self.log.info("%s: %d %s, %.2f/s%s", self.what, self.count, self.unit, rate, tail)
                return
            if left is None:
                left = (self.total - self.count) / rate if rate else float("inf")
            self.log.info(
                "%s: %d of %d %s, %.2f/s, %s left%s",
                self.what, self.count, self.total, self.unit, rate, duration(left), tail,
            )  # fmt: skip

    def reach(self, count: float, total: float = 0, note: str = "", left: float | None = None) -> None:
        """So many units in all, of a total that may have become known only now."""
        self.total = total or self.total
        self.advance(count - self.count, note, left)

    @property
    def due(self) -> bool:
        """Whether the next count will be logged."""
        return time.monotonic() - self.last >= self.every

    def done(self) -> float:
        """Log the total time and return it in seconds."""
        seconds = time.monotonic() - self.start
        self.log.info("%s: %d %s in %s", self.what, self.count, self.unit, duration(seconds))
        return seconds


def duration(seconds: float) -> str:
    """`75.2` -> `1 min 15 s`; short times keep a decimal."""
    if seconds == float("inf"):
        return "unknown time"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
