"""A Slurm of one node on the loopback, with a key, ports and a state of its own, ended with the block that uses it."""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from callwright.runtime.processes import free_ports

# Account and partition; without slurmdbd any account is taken.
NAME = "check"
DAEMONS = ("munged", "slurmctld", "slurmd")
# What the profile asks for fits twice: a node says what it has, and Slurm is told to believe it.
CPUS, MEMORY = 16, 64000
# GPUs that nobody computes on; Slurm wants a device file for each.
GPUS = ("/dev/null", "/dev/zero")
CONFIGURATION = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
# Nothing that needs root, cgroups or a database.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
SwitchType=switch/none
GresTypes=gpu
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdParameters=config_overrides
ReturnToService=2
# Jobs that have ended stay in squeue, which is asked about them.
MinJobAge=86400
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName={name} Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs of Slurm and munge that are not installed."""
    return [name for name in (*DAEMONS, "sbatch", "srun", "squeue", "scancel", "sinfo") if not _program(name)]


def files(folder: Path, host: str, user: str, ports: Sequence[int]) -> dict[str, str]:
    """Slurm's configuration files, by name."""
    values = {"name": NAME, "folder": folder, "host": host, "user": user, "ports": ports}
    return {
        "slurm.conf": CONFIGURATION.format(**values, cpus=CPUS, memory=MEMORY, gpus=len(GPUS)),
        "gres.conf": "".join(f"Name=gpu File={path}\n" for path in GPUS),
        "cgroup.conf": "CgroupAutomount=no\n",
    }


@contextlib.contextmanager
def running(folder: Path, seconds: float = 60) -> Iterator[dict[str, str]]:
    """Start Slurm in `folder`; yields the environment in which its commands find it.

    Jobs that are left are cancelled at the end, and what was started is ended by its process id. Raises SystemExit
    with the last lines of the logs where the node does not come up in `seconds`.
    """
    # munge wants to see that nobody else can put files in its place, and that all can reach its socket.
    folder.chmod(0o755)
    for name in ("bin", "spool", "state"):
        (folder / name).mkdir()
    for name, text in files(folder, socket.gethostname().split(".")[0], getpass.getuser(), free_ports(2)).items():
        (folder / name).write_text(text)
    # The plugin takes SLURM_CONF away from the `srun` within a job, which would look into /etc/slurm.
    (folder / "bin" / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {_program("srun")} "$@"\n')
    (folder / "bin" / "srun").chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o400)
    own = [f"--{what}-file={folder}/munged.{what}" for what in ("pid", "seed", "log")]
    commands = {
        "munged": ["--foreground", f"--key-file={key}", f"--socket={folder}/munge.socket", *own],
        "slurmctld": ["-D", "-f", f"{folder}/slurm.conf"],
        "slurmd": ["-D", "-f", f"{folder}/slurm.conf"],
    }
    environment = {
        **os.environ,
        "SLURM_CONF": f"{folder}/slurm.conf",
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
    }
    started: list[subprocess.Popen] = []
    try:
        for name in DAEMONS:
            with open(folder / f"{name}.out", "wb") as out:
                command = [_program(name), *commands[name]]
                # Of a session of its own: Ctrl-C is for the one who waits, who then ends these in order.
                started.append(
                    subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
                )
            time.sleep(1)
        _wait_for_node(folder, environment, started, seconds)
        yield environment
    finally:
        if len(started) == len(DAEMONS):
            _cancel(environment)
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def say(environment: dict[str, str], *command: str) -> str:
    """What a command of Slurm prints; empty when it fails or takes too long, as while the controller is busy."""
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return result.stdout if result.returncode == 0 else ""


def jobs(environment: dict[str, str]) -> list[tuple[str, str, str]]:
    """Each job that was ever submitted: its number, its state, and the comment that Snakemake gave it."""
    return read_jobs(say(environment, "squeue", "--states=all", "--noheader", "--sort=i", "--format=%i|%T|%k"))


def read_jobs(text: str) -> list[tuple[str, str, str]]:
    """The lines of squeue as number, state and comment."""
    return [tuple(line.strip().split("|", 2)) for line in text.splitlines() if line.count("|") >= 2]


def _wait_for_node(folder: Path, environment: dict[str, str], started: list[subprocess.Popen], seconds: float) -> None:
    end = time.monotonic() + seconds
    while say(environment, "sinfo", "--noheader", "--format=%T").strip() != "idle":
        if time.monotonic() > end or any(process.poll() is not None for process in started):
            tails = [f"{name}:\n{(folder / f'{name}.out').read_text()[-1500:]}" for name in DAEMONS[: len(started)]]
            raise SystemExit("\n".join(["Slurm did not come up.", *tails]))
        time.sleep(0.5)


def _cancel(environment: dict[str, str]) -> None:
    """End all jobs and wait for it: a step would outlive slurmd."""
    say(environment, "scancel", f"--user={getpass.getuser()}")
    for _ in range(40):
        if not say(environment, "squeue", "--noheader"):
            break
        time.sleep(0.5)


def _program(name: str) -> str | None:
    """Its path, also where the folders of daemons are not in a user's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
