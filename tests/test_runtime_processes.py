"""Processes that live and die together, with small programs in place of a training."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from callwright.runtime import processes
from callwright.runtime.errors import CallwrightError

# Each process says that it is there, then does what `job["does"]` has for its rank.
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
from callwright.runtime import processes
processes.follow_parent()
job, rank = json.loads(Path(sys.argv[1]).read_text()), int(os.environ["MLX_RANK"])
folder = Path(sys.argv[1]).parent
hosts = json.loads(Path(os.environ["MLX_HOSTFILE"]).read_text())
with open(job["pids"], "a") as stream:
    stream.write(f"{os.getpid()}\\n")
while Path(job["pids"]).read_text().count("\\n") < job["count"]:
    time.sleep(0.01)
does = job["does"][rank]
if does == "report":
    found = {"rank": rank, "hosts": hosts, "token": job["token"]}
    (folder / f"result-{rank}.json").write_text(json.dumps(found))
elif does == "wait":
    time.sleep(60)
elif does == "stop":
    os.kill(os.getpid(), signal.SIGSTOP)
elif does == "die":
    os.kill(os.getpid(), signal.SIGKILL)
elif does == "refuse":
    (folder / f"error-{rank}.txt").write_text("the rate is too high")
    sys.exit(1)
elif does == "break":
    raise ValueError("a fault in the program")
else:
    sys.exit(int(does))
"""
LAUNCHER = """
import json, os, sys
from pathlib import Path
from callwright.runtime import processes
lock = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
import fcntl
fcntl.flock(lock, fcntl.LOCK_EX)
job = json.loads(sys.argv[1])
processes.run("program", job, job["count"], Path(sys.argv[3]), keep=(lock,))
"""


@pytest.fixture
def program(root, tmp_path, monkeypatch):
    """`start(*does)` runs the program in a process for each of `does`; `pids()` are those of all so far."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(root / "workflow" / "scripts")]))
    monkeypatch.setattr(processes, "GRACE", 0.3)

    class Program:
        folder = tmp_path / "workers"

        def job(self, *does):
            return {"does": does, "count": len(does), "pids": str(tmp_path / "pids")}

        def start(self, *does):
            return processes.run("program", self.job(*does), len(does), self.folder)

        def pids(self, count):
            until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().count("\n") >= count)
            return [int(line) for line in (tmp_path / "pids").read_text().split()]

        def launch(self, *does):
            """The same in a process of its own, the leader of its group, that holds the file `lock`."""
            arguments = [json.dumps(self.job(*does)), str(tmp_path / "lock"), str(self.folder)]
            return subprocess.Popen([sys.executable, "-c", LAUNCHER, *arguments], start_new_session=True)

    return Program()


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def alive(pid) -> bool:
    """Whether the process still runs; one that nobody has waited for does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_each_knows_its_rank_and_the_first_ones_result_is_returned(program):
    found = program.start("report", "report")
    assert found["rank"] == 0
    assert len(found["hosts"]) == 2
    [[first], [second]] = found["hosts"]
    assert first.startswith("127.0.0.1:")
    assert second.startswith("127.0.0.1:")
    assert first != second
    assert program.start("report")["token"] != found["token"]


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (("refuse", "wait"), "^the rate is too high$"),
        (("wait", "refuse"), "^the rate is too high$"),
        (("wait", "die"), "^worker 1 of 2 was killed by SIGKILL"),
        ((str(processes.LOST), "die"), "^worker 1 of 2 was killed by SIGKILL"),
        (("die", "refuse"), "^worker 0 of 2 was killed by SIGKILL"),
        (("stop", "die"), "^worker 1 of 2 was killed by SIGKILL"),
        (("wait", "3"), r"^worker 1 of 2 ended with status 3: see .*1\.log$"),
        ((str(processes.LOST), str(processes.LOST)), "^the 2 workers have lost each other"),
    ],
    ids=str,
)
def test_one_that_fails_ends_the_others_and_its_own_words_are_passed_on(program, does, message):
    with pytest.raises(CallwrightError, match=message):
        program.start(*does)
    assert not any(map(alive, program.pids(2)))


def test_a_traceback_is_kept_beside_the_job(program):
    with pytest.raises(CallwrightError, match=r"see .*1\.log"):
        program.start("wait", "break")
    assert "ValueError: a fault in the program" in (program.folder / "1.log").read_text()


def test_those_that_cannot_connect_are_started_again_with_other_ports(program, monkeypatch):
    plain, tries, status = processes._run, [], str(processes.NOT_CONNECTED)

    def run(*args):
        tries.append((program.folder / "hosts.json").read_text())
        return plain(*args)

    monkeypatch.setattr(processes, "_run", run)
    with pytest.raises(CallwrightError, match="the 2 workers have lost each other"):
        program.start(status, "wait")
    assert len(set(tries)) == processes.ATTEMPTS == len(tries)


def test_ports_are_free_and_differ():
    ports = processes.free_ports(8)
    assert len(set(ports)) == 8
    for port in ports:
        with socket.socket() as found:
            found.bind(("127.0.0.1", port))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_none_is_left_when_the_launcher_is_killed(program, number):
    launcher = program.launch("wait", "wait")
    pids = program.pids(2)
    assert all(map(alive, pids))
    launcher.send_signal(number)
    assert launcher.wait(60) == -number
    until(lambda: not any(map(alive, pids)))


def test_none_is_left_after_ctrl_c_which_all_of_them_get(program):
    launcher = program.launch("wait", "wait")
    pids = program.pids(2)
    os.killpg(launcher.pid, signal.SIGINT)
    launcher.wait(60)
    until(lambda: not any(map(alive, pids)))


def test_what_is_locked_stays_locked_until_the_last_process_is_gone(program, tmp_path):
    launcher = program.launch("wait", "stop")
    pids = program.pids(2)
    until(lambda: psutil.STATUS_STOPPED in [psutil.Process(pid).status() for pid in pids])
    launcher.kill()
    launcher.wait()
    until(lambda: sum(map(alive, pids)) == 1)
    with open(tmp_path / "lock") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGCONT)
        released = threading.Thread(target=fcntl.flock, args=(lock, fcntl.LOCK_EX), daemon=True)
        released.start()
        released.join(60)
        assert not released.is_alive()
    until(lambda: not any(map(alive, pids)))  # files are closed a moment before a process is gone
