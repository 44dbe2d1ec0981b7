"""Another program beside what is measured, which takes one of the cores (`--busy`)."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def busy_loop(wanted: bool) -> Iterator[None]:
    """Another program that computes all the time, where it is wanted."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()
