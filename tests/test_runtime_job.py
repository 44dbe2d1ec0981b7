"""What a user sees of a rule that fails: one line for what they can mend, a traceback for what they cannot."""

import errno
import logging
from types import SimpleNamespace

import pytest

from callwright.runtime import job, logs
from callwright.runtime.errors import CallwrightError


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
