"""A run seen while it goes, from recorded logs and a recorded history; and the command that draws it."""

import contextlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from callwright import cli
from callwright.report import live

RECORDED = Path(__file__).with_name("fixtures") / "history.jsonl"  # 120 steps of a default run
NOW = 1_800_000_000.0
DONE = "11:00:00 I {0}, Python 3.11.7, Linux\n11:00:09 I {0} done in 9.0 s\n"
TRAINING = """11:01:00 I train, Python 3.11.7, Linux
11:03:00 I step 90: validation loss 0.1372 (7.5 s)
11:04:00 I train: 120 of 270 steps, 0.60/s, 4 min 9 s left, loss 0.131, validation 0.137
"""


def write(path: Path, text: str, age: float = 3.0) -> None:
    """A file that was last written `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (NOW - age, NOW - age))


@pytest.fixture
def run(tmp_path):
    """A run in the middle of its training, by a process that lives: this one."""
    folder = tmp_path / "results" / "mine"
    write(folder / "data" / "curate.log", DONE.format("curate"), age=400)
    write(folder / "tokens" / "train.log", DONE.format("tokenize_examples"), age=300)
    write(folder / "training" / "train.log", TRAINING)
    write(folder / "state" / "lock", str(os.getpid()))
    shutil.copy(RECORDED, folder / "state" / "history.jsonl")
    return folder


def drawn(folder, width=80, height=30):
    return live.frame(live.look(folder, NOW), width, height, "12:00:00")


def test_a_training_under_way(run):
    text = drawn(run)
    lines = text.splitlines()
    assert lines[0] == "mine: running" + "12:00:00".rjust(67)
    assert "120 of 270 steps, 0.60/s, 4 min 9 s left, loss 0.131" in text.replace("\n  ", " ")
    assert "█" * 11 + "░" * 13 in text
    assert live.LEGEND in lines
    assert "optimizer step" in text
    assert lines[-1] == "done: curate, tokenize_examples"
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 30


def test_numbers_are_those_of_the_history(run):
    view = live.look(run, NOW)
    steps = [row for row in view.history if row["event"] == "step"]
    tokens, size = [row["tokens"] for row in steps[-12:]], 12  # a tenth of 120
    expected = sum(row["loss"] * row["tokens"] for row in steps[-size:]) / sum(tokens)
    places, values = live.smooth(steps)
    assert (places[-1], values[-1]) == (120, pytest.approx(expected))
    [words, memory] = live.training_lines(view.history)
    assert words.startswith(f"step 120: loss {steps[-1]['loss']:.3f}, smoothed {expected:.3f}, validation ")
    assert memory.startswith(f"memory: {max(row['peak_gb'] for row in view.history):.2f} GB in arrays")


@pytest.mark.parametrize("width", [200, 80, 60, 40, 25, 10])
@pytest.mark.parametrize("height", [50, 24, 10])
def test_a_frame_fits_the_terminal(run, width, height):
    lines = drawn(run, width, height).splitlines()
    longest = max(len(word) for word in str(run).split()) + 1  # a path is not broken
    assert max(map(len, lines)) <= max(width, longest)
    assert (live.LEGEND in lines) == (width >= 40 and height >= 24)


def test_the_axis_is_that_of_most_losses_and_no_point_lies_outside():
    history = [{"event": "step", "step": n, "loss": 50.0 if n == 1 else 1.0 / n, "tokens": 10} for n in range(1, 101)]
    lines = live.curve(history, 60, 15)
    assert len(lines) == 15
    assert not any("50" in line.split("┤")[0] for line in lines if "┤" in line)
    assert any("•" in line for line in lines)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_first_steps_are_drawn_too(run, rows):
    history = run / "state" / "history.jsonl"
    kept = [line for line in RECORDED.read_text().splitlines() if '"step":0' in line or '"event":"step"' in line]
    history.write_text("\n".join(kept[: rows + 3]) + '\n{"event": "st')  # the last line is being written
    assert live.LEGEND in drawn(run)


def test_a_run_that_has_not_begun(tmp_path):
    (tmp_path / "results" / "other" / "state").mkdir(parents=True)
    text = drawn(tmp_path / "results" / "mine")
    assert "mine: not started" in text
    assert "runs beside it: other" in text


def test_a_model_that_is_fetched_for_it_now(tmp_path):
    line = "10:00:00 I fetch_model, Python 3.11.7, Linux\n10:00:05 I x==1: 45 of 90 MB, 9.00/s, 5.0 s left\n"
    write(tmp_path / "results" / "models" / "m" / "fetch_model.log", line)
    text = drawn(tmp_path / "results" / "mine")
    assert "running" in text
    assert "x==1 " + "█" * 12 + "░" * 12 + " 45 of 90 MB" in text


def test_an_interrupted_training(run):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (run / "state" / "lock").write_text(str(dead.pid))
    text = drawn(run)
    assert "mine: interrupted" in text
    assert "goes on from the last snapshot" in text.replace("\n  ", " ")


def test_a_rule_that_went_silent(run):
    write(run / "evaluation/s/base/generate.log", "11:05:00 I generate, Python 3\n11:05:01 I generate s base: 3\n", 1)
    assert live.look(run, NOW).status == live.RUNNING
    assert live.look(run, NOW + 1000).status == live.SILENT
    assert "nothing was written for 1001 s" in live.frame(live.look(run, NOW + 1000)).replace("\n  ", " ")


def test_a_rule_that_failed_shows_its_error(run):
    write(run / "training" / "train.log", TRAINING + "11:04:09 E training step 121: the loss is nan; lower it\n")
    text = drawn(run)
    assert "mine: failed" in text
    assert "train: training step 121: the loss is nan; lower it" in text


def test_a_finished_run_and_one_whose_results_are_older_than_its_scores(run):
    write(run / "training" / "train.log", TRAINING + "11:09:00 I train done in 8 min 0 s\n", age=90)
    write(run / "training" / "training.json", "{}", age=90)
    write(run / "evaluation/s/base/scores.json", "{}", age=60)
    write(run / "report.log", DONE.format("report"), age=20)
    assert live.look(run, NOW).status == live.BETWEEN
    write(run / "summary.json", "{}", age=30)
    assert live.look(run, NOW).status == live.FINISHED
    write(run / "evaluation/s/base/scores.json", "{}", age=10)
    assert live.look(run, NOW).status == live.BETWEEN


# -- the command ------------------------------------------------------------------------------------


def test_one_frame_for_a_pipe(run, capsys):
    assert cli.main(["watch", str(run), "--once"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "done: curate, tokenize_examples" in text


def test_a_file_is_no_run(run, capsys):
    assert cli.main(["watch", str(run / "state" / "lock"), "--once"]) == 1
    assert "is a file: expected the folder of a run" in capsys.readouterr().err


def test_without_a_terminal_frames_follow_each_other_until_the_run_is_finished(run, capsys, monkeypatch):
    frames = iter([live.RUNNING, live.BETWEEN, live.FINISHED])
    monkeypatch.setattr(live, "status_of", lambda view: next(frames))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert cli.main(["watch", str(run)]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert [text.count(f"mine: {status}") for status in ("running", "between rules", "finished")] == [1, 1, 1]


def test_in_a_terminal_it_redraws_and_ctrl_c_ends_it(run):
    """A process of its own on a pseudo-terminal."""
    os.utime(run / "training" / "train.log")
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "callwright.cli", "watch", str(run), "--every", "0.1"],
        stdin=child, stdout=child, stderr=subprocess.PIPE, cwd=Path(live.__file__).parents[2],
        env={**os.environ, "COLUMNS": "80", "LINES": "30"}, start_new_session=True,
    )  # fmt: skip
    os.close(child)
    written = b""
    try:
        while written.count(b"\x1b[H") < 3:
            ready, _, _ = select.select([parent], [], [], 60)
            assert ready, f"no frame came: {written[-500:]!r}"
            written += os.read(parent, 100_000)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while os.read(parent, 100_000):
                pass
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        os.close(parent)
    assert written.startswith(b"\x1b[2J\x1b[H")
    assert written.count(b"\x1b[2J") == 1
    assert "optimizer step" in written.decode(errors="replace")
