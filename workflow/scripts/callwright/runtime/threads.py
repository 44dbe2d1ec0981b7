"""Threads that compute side by side, each with a BLAS of one thread.

Of MLX's operations on a CPU only matrix products use more than one core. `ThreadPool` runs whole jobs at the same
time, which keeps all cores busy in between as well.
"""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from callwright.runtime import blas

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextlib.contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """Give MLX's BLAS so many threads while the block runs; no effect where it is not an OpenBLAS of ours."""
    before = _blas_call("get_num_threads", [])
    if before is not None:
        _blas_call("set_num_threads", [ctypes.c_int(threads)])
    try:
        yield
    finally:
        if before is not None:
            _blas_call("set_num_threads", [ctypes.c_int(before)])


def cores() -> int:
    """The threads that the BLAS was given (config key `device.cpu_threads`), or else the machine's cores."""
    return _blas_call("get_num_threads", []) or os.cpu_count() or 1


def _blas_call(name: str, arguments: Sequence[Any]) -> int | None:
    if blas._loaded is None:
        return None
    for prefix in ("openblas_", "scipy_openblas_"):
        function = getattr(blas._loaded[1], prefix + name, None)
        if function is not None:
            return function(*arguments)
    return None


class ThreadPool:
    """As many threads as cores; each runs one job at a time, with a BLAS of one thread.

    Python's lock is no hindrance: MLX and NumPy release it while they compute.
    """

    def __init__(self, count: int | None = None):
        self.count = count or cores()
        self.pool = ThreadPoolExecutor(self.count, thread_name_prefix="callwright")

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """`function` of each job, in the jobs' order.

        Raises what a job raised, once no other job is running any more.
        """
        with blas_threads(1):
            running = [self.pool.submit(function, job) for job in jobs]
            wait(running)
            return [job.result() for job in running]

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown()
