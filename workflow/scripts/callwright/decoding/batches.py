"""Prompts in batches of like length, and the batches answered: on a CPU one per core at a time.

Most of MLX's CPU operations use a single core.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx
import mlx.nn as nn

from callwright.decoding.constrain import Constraint
from callwright.decoding.cpu_math import fast_inference
from callwright.decoding.decode import Answer, greedy
from callwright.runtime import device
from callwright.runtime.threads import blas_threads, cores

# Tokens of the prompts in a batch, padding counted: what bounds the memory of the keys and values.
BATCH_TOKENS = 16_384

ConstraintOf = Callable[[int], Constraint]


def default_workers() -> int:
    """Batches that are under way at once: on a CPU one for each thread."""
    return cores() if device.on_cpu() else 1


def plan(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Items in batches of like prompt length, the longest first: little padding, and no long batch left for the end.

    A batch of long prompts has fewer of them: BATCH_TOKENS in all, or one prompt.
    """
    order = sorted(range(len(prompts)), key=lambda item: (-len(prompts[item]), item))
    batches = []
    while order:
        size = min(batch_size, max(BATCH_TOKENS // len(prompts[order[0]]), 1))
        batches.append(order[:size])
        order = order[size:]
    return batches


def run_batches(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    batches: Sequence[list[int]],
    limit: int,
    stop_ids: set[int],
    workers: int | None = None,
    alive: Callable[[], None] = lambda: None,
    constraint_of: ConstraintOf | None = None,
) -> Iterator[tuple[list[int], list[Answer]]]:
    """Yield (batch, its answers) as the batches end, in any order; `alive` is called at every token.

    constraint_of: gives a fresh constraint for a prompt's number; a batch's are made when its turn comes.
    """
    workers = min(workers or default_workers(), len(batches))

    def answer(batch: list[int], stopped: Callable[[], bool]) -> list[Answer]:
        constraints = None if constraint_of is None else [constraint_of(item) for item in batch]
        return greedy(model, [prompts[item] for item in batch], limit, stop_ids, stopped, constraints)

    def never_stopped() -> bool:
        alive()
        return False

    with fast_inference(model):
        if workers <= 1:
            for batch in batches:
                yield batch, answer(batch, never_stopped)
            return
        # What the model computes once and keeps (rotary frequencies) must be there before it is shared.
        mx.eval(model(mx.array([list(prompts[0][:1])])))
        # OpenBLAS lets only one caller at a time use several threads.
        with blas_threads(1):
            yield from in_threads(answer, batches, workers, alive)


def in_threads(
    answer: Callable[[list[int], Callable[[], bool]], list[Answer]],
    batches: Sequence[list[int]],
    workers: int,
    alive: Callable[[], None],
) -> Iterator[tuple[list[int], list[Answer]]]:
    """`workers` threads, each with an MLX stream of its own, take batch after batch."""
    waiting: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[list[int], list[Answer] | BaseException]] = queue.SimpleQueue()
    stop = threading.Event()
    for batch in batches:
        waiting.put(batch)

    def stopped() -> bool:
        alive()
        return stop.is_set()

    def work() -> None:
        with mx.stream(mx.new_stream(mx.default_device())):
            while not stop.is_set():
                try:
                    batch = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    finished.put((batch, answer(batch, stopped)))
                except BaseException as error:
                    finished.put((batch, error))
                    return

    threads = [threading.Thread(target=work, name=f"generate-{number}") for number in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for _ in batches:
            batch, answers = finished.get()
            if isinstance(answers, BaseException):
                raise answers
            yield batch, answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()
