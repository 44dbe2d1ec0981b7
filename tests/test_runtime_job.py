"""What a user sees of a rule that fails: one line for what they can mend, a traceback for what they cannot."""

import errno
import logging
from types import SimpleNamespace

import pytest

from callwright.runtime import job, logs
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, write_json


@pytest.fixture
def snakemake(tmp_path):
    yield SimpleNamespace(rule="train", log=[str(tmp_path / "train.log")], config={})
    logs.setup()


def run(snakemake, error=None):
    """Run a rule that raises `error`; returns the lines of its log."""

    def main(_):
        logging.getLogger("callwright.test").info("at work")
        if error:
            raise error

    if error:
        with pytest.raises(SystemExit) as stopped:
            job.run(snakemake, main)
        assert stopped.value.code == 1
    else:
        job.run(snakemake, main)
    with open(snakemake.log[0], encoding="utf-8") as stream:
        return stream.read().splitlines()


def test_log_file_and_console_have_the_same_lines(snakemake, capsys):
    lines = run(snakemake)
    assert lines[1].endswith("I at work")
    assert lines[-1].split(" I ")[1].startswith("train done in ")
    assert capsys.readouterr().err.splitlines() == lines


def test_what_a_user_can_mend_is_one_line(snakemake):
    assert run(snakemake, CallwrightError("the file is missing"))[-1].endswith("E the file is missing")


def test_a_full_disk_is_one_line(snakemake):
    lines = run(snakemake, OSError(errno.ENOSPC, "No space left on device", "results/answers.jsonl"))
    assert lines[-1].endswith("E no space left on the disk (results/answers.jsonl): free some and run again")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "disk broken"), ValueError("a mistake in the code")])
def test_anything_else_keeps_its_traceback(snakemake, error):
    lines = run(snakemake, error)
    assert any(line.startswith("Traceback") for line in lines)
    assert str(error) in lines[-1]


def test_files_of_code_that_changed_since_the_last_run_are_named(snakemake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()
    assert not any("changed since" in line for line in run(snakemake))
    [kept] = (tmp_path / job.CODE).iterdir()
    code = read_json(kept)
    assert not any("changed since" in line for line in run(snakemake))
    assert "runtime/files.py" in code
    write_json(kept, {**code, "runtime/files.py": "another", "gone.py": "0"})
    [line] = [line for line in run(snakemake) if "changed since" in line]
    assert line.endswith("I changed since this last ran: gone.py, runtime/files.py")


def test_the_last_words_are_those_of_the_failed_jobs(snakemake, tmp_path):
    """A line that can be acted on, or a whole traceback; nothing of jobs that went well."""
    run(snakemake, CallwrightError("the file is missing"))
    other = tmp_path / "other.log"
    other.write_text("10:00:00 I fine\n10:00:01 E split failed\nTraceback (most recent call last):\nValueError: no\n")
    said = [
        f"    log: {name} (check log file(s) for error details)" for name in (snakemake.log[0], other, tmp_path / "x")
    ]
    text = tmp_path / "snakemake.log"
    text.write_text("\n".join([*said, *said, "    log: results/fine.log"]))
    words = job.last_words(text).split("\n")
    assert words[-4:] == [f"{other}:", *other.read_text().splitlines()[1:]]
    assert words[:2] == ["", f"{snakemake.log[0]}:"]
    assert words[2].endswith("E the file is missing")
    assert len(words) == 8
