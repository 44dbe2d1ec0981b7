"""Several processes of one program on this machine, connected as an MLX ring; they end together.

Why not `mlx.launch`, whose environment variables are set here too (mlx 0.32.4): it uses fixed ports, so that two
trainings on one machine meet each other; its exit status is 0 whatever happens; when it is killed, its processes
run on; and it leaves a temporary file for each. A program started by `run` can still be started by `mlx.launch` by
hand, on several machines that share their files.

No process is left behind, whoever is killed and however: each has a pipe from its parent as standard input, and
`follow_parent` ends it when the other end is closed, by the parent or by the system. The launcher watches them all,
and one that fails ends the others. What is locked by an inherited file stays locked until the last is gone.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, write_json

# Exit statuses (sysexits' EX_UNAVAILABLE and EX_TEMPFAIL) of a process that could not meet or has lost the others.
NOT_CONNECTED, LOST = 69, 75
# Seconds that the others have to notice by themselves that one is gone.
GRACE = 5.0
ATTEMPTS = 3


class Lost(CallwrightError):
    """A process has ended without a word."""


def run(module: str, job: dict[str, Any], count: int, folder: str | Path, keep: tuple[int, ...] = ()) -> Any:
    """`python -m module <folder>/job.json` in `count` processes; returns what the first one wrote as its result.

    `job` gets `token`, a number that belongs to these processes alone. Process r finds its number in `MLX_RANK`, writes
    `result-<r>.json` or `error-<r>.txt` in `folder`, and its output goes to `<r>.log` there; the first one's to this
    process's. They inherit the file descriptors `keep`.

    Raises CallwrightError with the message that one of them left, and Lost when one was killed or failed without.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    for _ in range(ATTEMPTS):
        write_json(folder / "job.json", {**job, "token": secrets.randbelow(2**53)})
        hosts = [[f"127.0.0.1:{port}"] for port in free_ports(count)]
        write_json(folder / "hosts.json", hosts)
        codes = _run(module, count, folder, keep)
        if not any(codes):
            return read_json(folder / "result-0.json")
        if NOT_CONNECTED not in codes or any(code not in (NOT_CONNECTED, None) for code in codes):
            break  # else another program took one of the ports meanwhile: once more, with others
    raise _what_happened(codes, folder)


def _run(module: str, count: int, folder: Path, keep: tuple[int, ...]) -> list[int | None]:
    """Each process's exit status, as `Popen.returncode`; None for those that had to be ended here."""
    library = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "MLX_HOSTFILE": str((folder / "hosts.json").absolute()),
        "PYTHONPATH": os.pathsep.join(filter(None, [library, os.environ.get("PYTHONPATH")])),
    }
    processes: list[subprocess.Popen] = []
    try:
        for rank in range(count):
            with open(folder / f"{rank}.log", "ab") if rank else contextlib.nullcontext() as output:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", module, str(folder / "job.json")],
                        env={**environment, "MLX_RANK": str(rank)},
                        stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=keep,
                    )
                )  # fmt: skip
        end = float("inf")
        while None in (codes := [process.poll() for process in processes]) and time.monotonic() < end:
            if any(codes):
                end = min(end, time.monotonic() + GRACE)
            time.sleep(0.05)
        return codes
    finally:
        for process in processes:
            process.kill()  # nothing happens to one that has ended
        for process in processes:
            process.wait()
            process.stdin.close()


def _what_happened(codes: list[int | None], folder: Path) -> CallwrightError:
    """The error of the process that failed first, as far as their exit statuses tell."""
    count = len(codes)
    for rank, code in enumerate(codes):
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return Lost(f"worker {rank} of {count} was killed by {name} (by the system, if memory ran out)")
    for rank, code in enumerate(codes):
        error = folder / f"error-{rank}.txt"
        if code not in (None, 0, LOST, NOT_CONNECTED):
            if error.exists():
                return CallwrightError(error.read_text())
            log = f"see {folder / f'{rank}.log'}" if rank else "see above"
            return Lost(f"worker {rank} of {count} ended with status {code}: {log}")
    errors = [error.read_text() for error in sorted(folder.glob("error-*.txt"))]
    return Lost(f"the {count} workers have lost each other: {'; '.join(errors) or 'none says why'}")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens at now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def follow_parent() -> None:
    """End this process at once when its parent is gone; the parent alone answers to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="follow-parent", daemon=True).start()
