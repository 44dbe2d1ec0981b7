"""benchmarks/check_device.py: on the tiny model it finds a CPU as a CPU was, and says so where something is not."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def check_device(root):
    sys.path.insert(0, str(root / "benchmarks"))
    import check_device

    return check_device


def test_a_cpu_is_found_as_a_cpu_was(root):
    command = [sys.executable, "benchmarks/check_device.py", "--models", "tiny-gemma3", "--device", "cpu"]
    library = {"PYTHONPATH": str(root / "workflow" / "scripts")}
    threads = ["--cpu-threads", "1"] if "PYTEST_XDIST_WORKER" in os.environ else []
    done = subprocess.run(
        [*command, *threads], cwd=root, env={**os.environ, **library}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    head, _, *rows = done.stdout.splitlines()
    assert head.startswith("| cpu (")
    assert [row.split(" | ")[0].removeprefix("| tiny-gemma3: ") for row in rows[:-1]] == [
        "conversion", "30 steps, beginnings shared", "30 steps, each record whole", "the first, resumed half-way",
        "answers with the adapter", "fused at 8 bits", "one served call",
    ]  # fmt: skip
    assert "the same bytes" in rows[3]
    assert rows[-1].split(" | ")[-1].startswith("compared with cpu (")


@pytest.mark.parametrize(
    ("found", "stored", "good"),
    [
        ({"losses": [4.0, 2.0, 0.1]}, {"losses": [4.0, 2.01, 0.103]}, True),  # near 0 counts as a tenth of the first
        ({"losses": [4.0, 2.0, 0.1]}, {"losses": [4.0, 2.1, 0.1]}, False),
        ({"losses": [4.01, 2.0, 0.1]}, {"losses": [4.0, 2.0, 0.1]}, False),  # nothing was trained yet
        ({"losses": [4.0, float("nan"), 0.1]}, {"losses": [4.0, 2.0, 0.1]}, False),
        ({"adapter": 0.0}, {}, True),
        ({"adapter": 1e-7}, {}, False),  # on a CPU
        ({"answers": [["a", "1"], ["b", "2"]]}, {"answers": [["a", "1"], ["b", "3"]]}, True),
        ({"answers": [["a", "1"], ["b", "2"]]}, {"answers": [["a", "1"], ["c", "3"]]}, False),
        ({"weights": "a", "lost": 0.0}, {"weights": "b"}, False),
    ],
    ids=str,
)
def test_what_is_off_is_told_from_what_is_not(check_device, found, stored, good):
    from device_work import Step

    said, fine = check_device.judge(Step(found), stored, check_device.LIMITS["cpu"])
    assert fine is good
    assert ("**" in said) is not good


def test_a_step_that_fails_is_said_and_the_others_go_on(check_device, monkeypatch, tmp_path):
    import device_work

    check = device_work.Check(device_work.GEMMA, tmp_path, "cpu", 1)
    check.rows = []
    monkeypatch.setattr(check, "plan", lambda: {"one": lambda: 1 / 0, "two": device_work.Step})
    one, two = check.steps()
    assert check_device.judge(one, {}, {})[0] == "**failed: ZeroDivisionError: division by zero**"
    assert not two.failure


def test_stored_results_of_other_examples_are_refused(check_device):
    from device_work import Step

    from callwright.runtime.errors import CallwrightError

    with pytest.raises(CallwrightError, match="make it anew on a CPU"):
        check_device.judge(Step({"rows": "a"}), {"rows": "b"}, check_device.LIMITS["cpu"])


def test_both_models_are_stored(check_device):
    stored = json.loads(check_device.STORED.read_text())
    assert list(stored["models"]) == sorted(check_device.MODELS)
