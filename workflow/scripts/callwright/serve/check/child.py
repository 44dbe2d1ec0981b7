"""A server's process: started, waited for, and ended by whoever started it, whatever happens."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from callwright.runtime.errors import CallwrightError
from callwright.runtime.processes import free_ports
from callwright.serve.check import launch

PATIENCE = 10.0  # seconds that a server has to end by itself


@contextlib.contextmanager
def running(kind: str, arguments: Sequence[str], log_path: str | Path, seconds: float = 300.0) -> Iterator[str]:
    """Run a server (`stock` or `callwright`) on a free port of the loopback; yields its address.

    It has a process group of its own, which is ended at the end of the block, after an error and after Ctrl-C: by
    SIGTERM, and by SIGKILL when it has not ended within PATIENCE. Should this process be killed, it ends too
    (`processes.follow_parent`). What it says goes to `log_path`.

    Raises CallwrightError when it ends at once or does not answer within `seconds`.
    """
    (port,) = free_ports(1)
    command = [sys.executable, "-m", launch.__name__, kind, *arguments, "--host", "127.0.0.1", "--port", str(port)]
    library = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [library, os.environ.get("PYTHONPATH")]))}
    with open(log_path, "wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        try:
            wait_for(process, f"http://127.0.0.1:{port}", log_path, seconds)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process)


def wait_for(process: subprocess.Popen, address: str, log_path: str | Path, seconds: float) -> None:
    """Wait until the server says that it is well; raises CallwrightError when it does not."""
    end = time.monotonic() + seconds
    while True:
        if process.poll() is not None:
            lines = Path(log_path).read_text(errors="replace").strip().splitlines()
            raise CallwrightError(
                f"the server ended with status {process.returncode} before it answered: "
                f"{lines[-1] if lines else 'it said nothing'} (see {log_path})"
            )
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        if time.monotonic() > end:
            raise CallwrightError(f"the server did not answer within {seconds:.0f} seconds (see {log_path})")
        time.sleep(0.2)


def stop(process: subprocess.Popen) -> None:
    """End the process and all that it started."""
    for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    with contextlib.suppress(ProcessLookupError):  # what outlived its leader
        os.killpg(process.pid, signal.SIGKILL)
    process.stdin.close()
