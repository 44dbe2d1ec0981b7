"""The parts of `make check-slurm` that need no Slurm: what it writes, what it reads, what it says."""

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import check_slurm
import slurm_node

# As squeue prints them with --format=%i|%T|%k.
QUEUE = """\
1|COMPLETED|rule_fetch_model_wildcards_tiny-gemma
9|CANCELLED|rule_train_wildcards_tiny.rank-2.seed-1
10|RUNNING|rule_train_wildcards_tiny.rank-2.seed-2
13|COMPLETED|rule_train_wildcards_tiny.rank-2.seed-1
"""


def test_jobs_of_one_training_are_found_by_snakemakes_comment():
    jobs = slurm_node.read_jobs(QUEUE)
    assert len(jobs) == 4
    found = check_slurm.trainings("tiny.rank-2.seed-1", jobs)
    assert [job[:2] for job in found] == [("9", "CANCELLED"), ("13", "COMPLETED")]
    assert slurm_node.read_jobs("") == []


def test_the_profile_names_the_clusters_account_and_partition_and_is_else_as_it_was(root):
    text = (root / "profiles" / "slurm" / "profile.yaml").read_text()
    before, after = yaml.safe_load(text), yaml.safe_load(check_slurm.profile(text))
    own = {"slurm_account": slurm_node.NAME, "slurm_partition": slurm_node.NAME}
    assert after["default-resources"] == {**before["default-resources"], **own}
    assert after["retries"] == before["retries"] >= 1
    assert after["set-resources"] == before["set-resources"]
    assert set(after) - set(before) == {"slurm-status-command", "slurm-init-seconds-before-status-checks"}
    with pytest.raises(ValueError, match="names no my-account"):
        check_slurm.profile("executor: slurm\n")


def test_the_node_has_what_the_profile_asks_for_twice(root, tmp_path):
    rules = yaml.safe_load((root / "profiles" / "slurm" / "profile.yaml").read_text())["set-resources"].values()
    assert 2 * max(rule["cpus_per_task"] for rule in rules) <= slurm_node.CPUS
    assert 2 * max(rule["mem_mb"] for rule in rules) <= slurm_node.MEMORY
    files = slurm_node.files(tmp_path, "host", "user", [7001, 7002])
    lines = files["slurm.conf"].splitlines()
    assert {"SlurmctldHost=host(127.0.0.1)", "SlurmctldPort=7001", "SlurmdPort=7002", "SlurmUser=user"} <= set(lines)
    assert f"StateSaveLocation={tmp_path}/state" in lines
    assert files["gres.conf"].count("Name=gpu") == len(slurm_node.GPUS) == 2


def test_the_step_that_a_training_went_on_from():
    assert check_slurm.resumed_from("20:57:02 I continuing from the snapshot of step 240\n") == 240
    assert check_slurm.resumed_from("20:57:02 I step 0: validation loss 8.4835 (0.0 s)\n") == 0


def test_what_is_missing_is_one_line():
    line = check_slurm.needed(["slurmd", "munged"], plugin=False)
    assert "\n" not in line
    assert line.startswith("check-slurm lacks slurmd, munged, snakemake-executor-plugin-slurm: `apt install slurm-wlm")
    assert "pip" not in check_slurm.needed(["slurmd"], plugin=True)
    assert "apt" not in check_slurm.needed([], plugin=False)


def test_a_point_is_as_expected_only_where_it_was_cut_off_resumed_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(check_slurm, "OUT", tmp_path)
    point = check_slurm.POINTS[0]
    for name in ("alone", "slurm"):
        folder = tmp_path / name / "results" / point
        (folder / "adapter").mkdir(parents=True)
        (folder / "adapter" / "adapters.safetensors").write_bytes(b"the adapter")
    (folder / "training").mkdir()
    log = folder / "training" / "train.log"
    jobs = slurm_node.read_jobs(QUEUE)
    log.write_text("20:57:02 I continuing from the snapshot of step 240\n")
    row = check_slurm.look_at(point, jobs)
    assert row["good"]
    assert row["jobs"] == ["9 CANCELLED", "13 COMPLETED"]
    assert "step 240" in check_slurm.table([row], jobs, {"slurm": 300, "alone": 60}, finished=True)
    log.write_text("20:57:02 I step 0\n")
    assert not check_slurm.look_at(point, jobs)["good"], "begun anew"
    log.write_text("20:57:02 I continuing from the snapshot of step 240\n")
    assert not check_slurm.look_at(point, jobs[:3])["good"], "never submitted again"
    (folder / "adapter" / "adapters.safetensors").write_bytes(b"another one")
    row = check_slurm.look_at(point, jobs)
    assert not row["good"]
    assert "OTHER BYTES" in check_slurm.table([row], jobs, {"slurm": 300, "alone": 60}, finished=True)
