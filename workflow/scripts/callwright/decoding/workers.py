"""Many prompts answered greedily: on a CPU by an engine for each core, which take prompt after prompt.

Most of MLX's CPU operations use a single core, and OpenBLAS's own threads wait for one another at every product.
Engines side by side wait for nobody: with another program on one of two cores, the other engine goes on.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx
import mlx.nn as nn

from callwright.decoding.beginnings import Beginnings, shared_lengths
from callwright.decoding.constrain import Constraint
from callwright.decoding.decision import Decision
from callwright.decoding.decode import Answer
from callwright.decoding.engine import Request, Spent
from callwright.decoding.engines import engine_for
from callwright.decoding.name_preference import NamePreference
from callwright.models.cpu_math import fast_inference
from callwright.runtime import device
from callwright.runtime.threads import blas_threads, cores

ConstraintOf = Callable[[int], Constraint]
DecisionOf = Callable[[int], Decision]
PreferenceOf = Callable[[int], NamePreference | None]
# Called every now and then with what was done so far, and the lengths of the answers that still grow.
Counted = Callable[[Spent, list[int]], None]
Found = list[tuple[int, Answer]]
WAIT = 0.5  # seconds between two such calls where other threads do the work


def default_workers() -> int:
    """Engines side by side: on a CPU one for each thread."""
    return cores() if device.on_cpu() else 1


def answer_all(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    limit: int,
    stop_ids: set[int],
    running: int,
    workers: int | None = None,
    constraint_of: ConstraintOf | None = None,
    decision_of: DecisionOf | None = None,
    counted: Counted = lambda spent, growing: None,
    preference_of: PreferenceOf | None = None,
) -> Iterator[tuple[int, Answer]]:
    """Yield (number of a prompt, its answer) as the answers end, in any order.

    running: answers that grow at once in each engine. constraint_of: gives a fresh constraint for a prompt's number,
    when its turn comes. decision_of: gives a fresh decision for it, whose probability the answer then has.
    preference_of: gives its preference among tools, or None. The longest prompts come first: those in an engine at a
    time are then of like length. What several prompts begin with is computed once.
    """
    job = Job(model, prompts, limit, stop_ids, running, constraint_of, decision_of, preference_of)
    workers = min(workers or default_workers(), len(prompts))
    with fast_inference(model):
        if workers <= 1:
            for found in job.work():
                counted(*job.progress)
                yield from found
            return
        # What the model computes once and keeps (rotary frequencies) must be there before it is shared.
        mx.eval(model(mx.array([list(prompts[0][:1])])))
        # OpenBLAS lets only one caller at a time use several threads.
        with blas_threads(1):
            for found in in_threads(job, workers):
                counted(*job.progress)
                yield from found


class Job:
    """The prompts that wait, for any number of threads that `work`."""

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        limit: int,
        stop_ids: set[int],
        running: int,
        constraint_of: ConstraintOf | None,
        decision_of: DecisionOf | None = None,
        preference_of: PreferenceOf | None = None,
    ):
        self.model, self.prompts, self.limit, self.stop_ids = model, prompts, limit, stop_ids
        self.running, self.constraint_of, self.decision_of = running, constraint_of, decision_of
        self.preference_of = preference_of
        self.waiting = deque(sorted(range(len(prompts)), key=lambda item: (-len(prompts[item]), item)))
        self.shared = shared_lengths(prompts)
        self.beginnings = Beginnings()
        self.engines = []
        self.stopped = threading.Event()

    @property
    def progress(self) -> tuple[Spent, list[int]]:
        """What was done so far, and the lengths of the answers that still grow."""
        growing = [len(request.ids) for engine in self.engines for request in engine.rows]
        return sum((engine.spent for engine in self.engines), Spent()), growing

    def work(self) -> Iterator[Found]:
        """Take prompts as there are places for them; yields after each step the answers that ended with it."""
        engine = engine_for(self.model, self.stop_ids, self.running, self.beginnings)
        self.engines.append(engine)
        numbers: dict[Request, int] = {}
        try:
            while not self.stopped.is_set():
                while engine.hungry and (request := self._next(numbers)) is not None:
                    engine.submit(request)
                if engine.read() is not None:
                    yield []
                    continue
                if not engine.busy:
                    return
                ended = [request for request in engine.advance() if request.finish_reason]
                for request in ended:
                    if request.error is not None:
                        raise request.error
                yield [(numbers.pop(r), Answer(r.ids, r.finish_reason, r.seconds, probability(r))) for r in ended]
        finally:
            engine.close()

    def _next(self, numbers: dict[Request, int]) -> Request | None:
        try:
            number = self.waiting.popleft()
        except IndexError:
            return None
        constraint = None if self.constraint_of is None else self.constraint_of(number)
        decision = None if self.decision_of is None else self.decision_of(number)
        preference = None if self.preference_of is None else self.preference_of(number)
        request = Request(
            self.prompts[number],
            self.limit,
            constraint=constraint,
            decision=decision,
            preference=preference,
            keep=self.shared[number],
        )
        numbers[request] = number
        return request


def probability(request: Request) -> float | None:
    """How likely a call was at the answer's beginning."""
    return None if request.decision is None else request.decision.probability


def in_threads(job: Job, workers: int) -> Iterator[Found]:
    """`workers` threads work, each with an MLX stream of its own; yields what they find, and [] now and then."""
    results: queue.SimpleQueue[Found | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            with mx.stream(mx.new_stream(mx.default_device())):
                for found in job.work():
                    if found:
                        results.put(found)
        except BaseException as error:
            results.put(error)
        finally:
            results.put(None)

    threads = [threading.Thread(target=work, name=f"generate-{number}") for number in range(workers)]
    for thread in threads:
        thread.start()
    try:
        left = workers
        while left:
            try:
                found = results.get(timeout=WAIT)
            except queue.Empty:
                found = []
            if isinstance(found, BaseException):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        job.stopped.set()
        for thread in threads:
            thread.join()
