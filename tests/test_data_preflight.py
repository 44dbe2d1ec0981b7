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


def test_a_source_that_is_mixed_in_is_looked_at_too(tmp_path, root):
    def mixed(path, source="files"):
        mix = [{"source": "files", "path": str(root / "config" / "requests"), "share": 0.1}]
        mix.append({"source": source, "path": str(path), "share": 0.1})
        return run(data={"source": "files", "path": None, "mix": mix})

    path = tmp_path / "mine.jsonl"
    with pytest.raises(CallwrightError, match=r"data.mix names .*mine.jsonl: there is no such file"):
        preflight(mixed(path), root)
    path.write_text('{"a": 1}\n')
    with pytest.raises(CallwrightError, match=r"data.mix is .*mine.jsonl: none of its first records is usable"):
        preflight(mixed(path), root)
    (tmp_path / "cafe.yaml").write_text(TOOLSET.replace("{drink}, please", "{drnk}, please"))
    with pytest.raises(CallwrightError, match=r"the slot \{drnk\}"):
        preflight(mixed(tmp_path / "cafe.yaml", "toolset"), root)
    (tmp_path / "cafe.yaml").write_text(TOOLSET)
    module.load.cache_clear()
    preflight(mixed(tmp_path / "cafe.yaml", "toolset"), root)


def test_a_full_disk_is_told_at_once(monkeypatch, root):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 3 * 10**8))
    with pytest.raises(CallwrightError, match=r"has 0.30 GB free, and a run needs 1 GB"):
        preflight(run(), root)
