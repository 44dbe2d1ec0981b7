"""What could not work is told before any model is fetched."""

import shutil
from collections import namedtuple

import pytest
from fixtures_toolset import TOOLSET

from callwright.data import preflight as module
from callwright.data.preflight import preflight
from callwright.runtime.errors import CallwrightError


def run(**changes):
    found = {"toolset": "none.yaml", "corrections": None, "data": {"source": "files", "path": None},
             "evaluation": {"suites": ["test_seen"]}}  # fmt: skip
    return {**found, **changes}


@pytest.fixture(autouse=True)
def fresh():
    for cached in (module.check_disk, module.load, module.some_usable):
        cached.cache_clear()


def test_faults_of_a_toolset_come_with_their_line_and_no_warnings(tmp_path, caplog, root):
    path = tmp_path / "cafe.yaml"
    path.write_text(TOOLSET)
    mine = run(toolset=str(path), data={"source": "toolset", "path": None})
    preflight(mine, root)
    assert caplog.text == ""
    module.load.cache_clear()
    path.write_text(TOOLSET.replace("{drink}, please", "{drnk}, please"))
    with pytest.raises(CallwrightError, match=r"line 8.*the slot \{drnk\}"):
        preflight(mine, root)


def test_a_file_without_a_usable_record_is_named(tmp_path, root):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"a": 1}\n' * 100)
    with pytest.raises(
        CallwrightError, match=r"data.path is .*mine.jsonl: none of its first records is usable; .*unknown"
    ):
        preflight(run(data={"source": "files", "path": str(path)}), root)
    with pytest.raises(CallwrightError, match=r"evaluation.suites \(own\) is .*mine.jsonl"):
        preflight(run(evaluation={"suites": ["test_seen", {"own": str(path)}]}), root)


def test_a_full_disk_is_told_at_once(monkeypatch, root):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 3 * 10**8))
    with pytest.raises(CallwrightError, match=r"has 0.30 GB free, and a run needs 1 GB"):
        preflight(run(), root)
