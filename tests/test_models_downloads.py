"""Bytes of downloads in the log."""

import logging
import sys

import pytest
from huggingface_hub.utils.tqdm import _create_progress_bar, hf_thread_map

from callwright.models.downloads import MB, hub_bar, run_pip
from callwright.runtime.logs import Progress

PIP = """
import sys
assert sys.argv[-2:] == ["--progress-bar", "raw"]
print("Collecting x")
for done in range(0, 101, 25):
    print(f"Progress {done * 10**6} of {100 * 10**6}")
print("ERROR: no", file=sys.stderr)
raise SystemExit(3)
"""


@pytest.fixture
def lines(caplog):
    """The messages of the progress log; `propagate` lets pytest see them."""
    logging.getLogger("callwright").propagate = True
    caplog.set_level(logging.INFO, logger="callwright.progress")
    return lambda: [record.getMessage() for record in caplog.records]


def test_pips_progress_goes_to_the_log_and_the_rest_comes_back(lines):
    status, output = run_pip([sys.executable, "-c", PIP], "x==1")
    assert status == 3
    assert output.splitlines() == ["Collecting x", "ERROR: no"]
    [line] = lines()
    assert line.startswith("x==1: 100 of 100 MB, ")


def test_pips_own_bar_has_the_lines_that_are_read():
    """pip 24.1 or newer; the lock pins one."""
    status, output = run_pip([sys.executable, "-m", "pip", "download", "--help"], "help")
    assert status == 0
    assert "raw" in output


def test_the_hubs_bytes_go_to_the_log_once(lines, capsys):
    bar = hub_bar("owner/model")
    received = _create_progress_bar(cls=bar, log_level=20, desc="Downloading bytes", total=0, initial=0, unit="B")
    written = _create_progress_bar(cls=bar, log_level=20, desc="Reconstructing", total=0, initial=0, unit="B")

    def download(size):
        written.total = (written.total or 0) + size
        written.refresh()
        received.update(size)
        written.update(size)

    written.total = 10 * MB
    hf_thread_map(download, [5 * MB, 15 * MB], desc="Fetching 2 files", tqdm_class=bar, max_workers=1)
    written.progress.last -= 10  # as if a line were due
    written.set_description("Reconstruction complete")
    received.close()
    written.close()
    assert lines()[-1].startswith("owner/model: 20 of 30 MB, ")
    assert all(line.startswith("owner/model: ") and " MB, " in line for line in lines())
    assert capsys.readouterr().err == ""


def test_a_total_that_is_not_known_gives_no_time_left(lines):
    progress = Progress("curate", 0, "records", every=0)
    progress.advance(3, "2 of them usable")
    progress.reach(5, 10)
    first, second = lines()
    assert first.startswith("curate: 3 records, ")
    assert first.endswith("/s, 2 of them usable")
    assert " left" not in first
    assert second.startswith("curate: 5 of 10 records, ")
    assert second.endswith(" left")
