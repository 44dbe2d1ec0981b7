"""A run as it is now, from the files that its rules write: what is under way, and the training curve as text.

Nothing here locks, writes or asks a process: it reads the logs, `state/history.jsonl`, and the times of files.
"""

import os
import re
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from callwright.lora import convergence

Row = dict[str, Any]

# A rule writes a progress line each few seconds; without one for so long, it hangs, or its process is gone.
SILENCE = 120.0
WAITING, RUNNING, BETWEEN, SILENT, FAILED, INTERRUPTED, FINISHED = (
    "not started", "running", "between rules", "silent", "failed", "interrupted", "finished",
)  # fmt: skip
_LINE = re.compile(r"(?P<time>\d\d:\d\d:\d\d) (?P<level>[A-Z]) (?P<text>.*)")
_FIRST = re.compile(r"(\w+), Python ")
_COUNT = re.compile(r"(?P<what>.*?): (?P<done>[\d,]+) of (?P<total>[\d,]+) (?P<rest>.*)")
BAR = 24
LEGEND = "• loss   ⠤ smoothed   o validation"


@dataclass
class Log:
    """One rule's log file: which rule, when it last wrote, its last line, and its last progress line, if any."""

    path: Path
    rule: str
    age: float  # seconds since its last line
    last: str = ""
    level: str = "I"
    progress: str | None = None

    @property
    def done(self) -> bool:
        """True when the rule has said that it is done."""
        return self.last.startswith(f"{self.rule} done in ")


@dataclass
class View:
    """A run at one moment. `logs`: the newest last. `history`: the training's rows, as `lora.loop` writes them."""

    folder: Path
    status: str = WAITING
    logs: list[Log] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)

    @property
    def current(self) -> Log | None:
        """The log that was written last."""
        return self.logs[-1] if self.logs else None


def look(folder: str | Path, now: float | None = None) -> View:
    """The state of the run in `folder` (`results/<run>`); `now` in seconds since the epoch, as `time.time` gives it."""
    folder, now = Path(folder), time.time() if now is None else now
    logs = [log for path in sorted(folder.glob("**/*.log")) if (log := read_log(path, now))]
    shared = [path for name in ("models", "suites") for path in (folder.parent / name).glob("**/*.log")]
    own = min((log.age for log in logs), default=float("inf"))
    # A model or a suite is fetched for this run only if that happens now, and may then be for another one.
    logs += [log for path in shared if (log := read_log(path, now)) and log.age < min(own, SILENCE)]
    view = View(folder, logs=sorted(logs, key=lambda log: -log.age), history=read_history(folder))
    view.status = status_of(view)
    return view


def status_of(view: View) -> str:
    """One of the words above."""
    log = view.current
    if log is None:
        return WAITING
    if not log.done:
        if log.level == "E" or "Traceback" in log.last:
            return FAILED
        if log.rule == "train" and not alive(view.folder / "state" / "lock"):
            return INTERRUPTED
        return RUNNING if log.age < SILENCE or log.rule == "train" else SILENT
    summary = modified(view.folder / "summary.json")
    results = [view.folder / "training" / "training.json", *view.folder.glob("evaluation/*/*/scores.json")]
    return FINISHED if summary and summary >= max(map(modified, results)) else BETWEEN


def modified(path: Path) -> float:
    """When a file was last written, in seconds since the epoch; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def alive(lock: Path) -> bool:
    """Whether the process named in the training's lock file lives; True where that cannot be told (another machine)."""
    try:
        os.kill(int(lock.read_text()), 0)
    except (ProcessLookupError, FileNotFoundError):
        return False
    except (OSError, ValueError):
        return True
    return True


def read_log(path: Path, now: float) -> Log | None:
    """What a log file says; None for one that is empty or gone."""
    try:
        with open(path, "rb") as stream:
            first = stream.readline().decode("utf-8", "replace")
            stream.seek(max(0, path.stat().st_size - 8000))
            lines = stream.read().decode("utf-8", "replace").splitlines()
        age = max(0.0, now - path.stat().st_mtime)
    except OSError:
        return None
    found = _LINE.match(first.rstrip("\n"))
    rule = _FIRST.match(found["text"]) if found else None
    log = Log(path, rule[1] if rule else path.stem, age)
    entries = [entry for line in lines if (entry := _LINE.fullmatch(line))]
    if not entries:
        return None
    log.last, log.level = entries[-1]["text"], entries[-1]["level"]
    counts = [entry["text"] for entry in entries if _COUNT.fullmatch(entry["text"]) and "left" in entry["text"]]
    log.progress = counts[-1] if counts else None
    return log


def read_history(folder: Path) -> list[Row]:
    """The rows of a training that runs or ran; its last line may be cut in the middle."""
    for path in (folder / "state" / "history.jsonl", folder / "training" / "history.jsonl"):
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError:
            continue
        return list(_rows(lines))
    return []


def _rows(lines: list[bytes]) -> Iterator[Row]:
    for line in lines:
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            return


def frame(view: View, width: int = 80, height: int = 24, clock: str = "") -> str:
    """The view as lines of at most `width` characters, about `height` of them; no control sequences."""
    head = f"{view.folder.name}: {view.status}"
    lines = [head + clock.rjust(width - len(head)) if clock and len(head) + len(clock) < width else head]
    lines += under_way(view, width)
    lines += training_lines(view.history)
    done = list(dict.fromkeys(log.rule for log in view.logs if log.done))
    tail = [f"done: {', '.join(done)}"] if done else []
    lines = [part for line in lines for part in fold(line, width)]
    tail = [part for line in tail for part in fold(line, width)]
    room = height - len(lines) - len(tail) - 2
    if width >= 40 and room >= 8 and any(row["event"] == "step" for row in view.history):
        lines += [*curve(view.history, width, min(room, 20), planned_steps(view)), LEGEND]
    return "\n".join(lines + tail)


def fold(line: str, width: int) -> list[str]:
    """A line as lines of at most `width` characters."""
    return textwrap.wrap(line, max(width, 10), subsequent_indent="  ", break_on_hyphens=False) or [""]


def under_way(view: View, width: int) -> list[str]:
    """What the rule of the newest log does, how far it is, and since when it has been silent."""
    log = view.current
    if log is None:
        beside = sorted(path.parent.name for path in view.folder.parent.glob("*/state") if path.parent != view.folder)
        others = f" (runs beside it: {', '.join(beside[:8])})" if beside else ""
        return [f"no rule has written a log there yet{others}"]
    if view.status == FINISHED:
        return [f"the results are in {view.folder / 'summary.json'} and {view.folder / 'report.html'}"]
    lines = []
    counted = _COUNT.fullmatch(log.progress) if log.progress and not log.done else None
    if counted:
        share = int(counted["done"].replace(",", "")) / max(1, int(counted["total"].replace(",", "")))
        full = round(BAR * min(share, 1.0))
        text = f"{counted['done']} of {counted['total']} {counted['rest']}"
        lines.append(f"{counted['what']} {'█' * full}{'░' * (BAR - full)} {text}" if width >= 60 else log.progress)
    if not counted or log.last != log.progress:
        lines.append(f"{log.rule}: {log.last}")
    if view.status == INTERRUPTED:
        lines.append("no process trains here now: the command that began the run goes on from the last snapshot")
    elif view.status == SILENT:
        lines.append(f"nothing was written for {round(log.age)} s: it was interrupted, or is in one long step")
    if view.status != BETWEEN:
        lines.append(f"log: {log.path} ({round(log.age)} s ago)")
    return lines


def training_lines(history: list[Row]) -> list[str]:
    """Losses and memory so far, in words."""
    steps = [row for row in history if row["event"] == "step"]
    checks = [row for row in history if row["event"] == "validation"]
    if not steps and not checks:
        return []
    parts = [f"step {steps[-1]['step']}: loss {steps[-1]['loss']:.3f}"] if steps else ["step 0"]
    if len(steps) > 1:
        parts.append(f"smoothed {smooth(steps)[1][-1]:.3f}")
    if checks:
        best = min(checks, key=lambda row: row["loss"])
        parts.append(
            f"validation {checks[-1]['loss']:.3f} at step {checks[-1]['step']}, "
            f"lowest {best['loss']:.3f} at step {best['step']}"
        )
    peaks = [row["peak_gb"] for row in history if "peak_gb" in row]
    memory = f"memory: {max(peaks):.2f} GB in arrays at most" if peaks else ""
    if process := [row["process_gb"] for row in history if "process_gb" in row]:
        memory += f", process {process[-1]:.2f} GB"
    return [", ".join(parts), *([memory] if memory else [])]


def smooth(steps: list[Row]) -> tuple[list[int], list[float]]:
    """Steps and the smoothed loss at each, by the same definition as in the training summary."""
    size = convergence.window(len(steps))
    values = convergence.smoothed([row["loss"] for row in steps], [row["tokens"] for row in steps], size)
    return [row["step"] for row in steps[size - 1 :]], values.tolist()


def planned_steps(view: View) -> int:
    """How many steps the training is to have, by its log; 0 where that does not say so."""
    progress = next((log.progress for log in view.logs if log.rule == "train" and log.progress), None)
    found = _COUNT.fullmatch(progress) if progress else None
    return int(found["total"].replace(",", "")) if found else 0


def curve(history: list[Row], width: int, height: int, end: int = 0) -> list[str]:
    """The training curve: `height` lines of at most `width` characters, up to step `end` or the last one.

    The first steps' losses may be many times the later ones; the axis ends where 98 % of the raw losses and all
    others lie below it, so that the curve stays readable.
    """
    import plotext

    steps = [row for row in history if row["event"] == "step"]
    checks = [row for row in history if row["event"] == "validation"]
    raw = [row["loss"] for row in steps]
    places, values = smooth(steps)
    top = max([sorted(raw)[int(0.98 * (len(raw) - 1))], *values, *(row["loss"] for row in checks)])
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, height)
    shown = [(row["step"], row["loss"]) for row in steps if row["loss"] <= top]
    figure.draw(figure.signal(*map(list, zip(*shown, strict=True)), marker="dot"))
    if len(places) > 1:
        figure.draw(figure.signal(places, values, marker="braille").lines())
    if checks:
        figure.draw(figure.signal([row["step"] for row in checks], [row["loss"] for row in checks], marker="o"))
    figure.ruler("y").lim(0, top * 1.02 or 1.0)
    end = max(2, end, steps[-1]["step"])
    ticks = sorted({round(end * n / 5) for n in range(6)})
    figure.ruler("x").lim(0, end)
    figure.ruler("x").ticks(ticks, list(map(str, ticks)))
    figure.label("optimizer step")
    text = re.sub(r"\x1b\[[0-9;]*m", "", figure.build().string())
    return [line.rstrip() for line in text.splitlines()]
