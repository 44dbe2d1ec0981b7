"""How much memory a lazy computation will take, counted on its graph without computing anything.

MLX builds graphs; `mx.export_function` hands out their operations with shapes and types. A `GraphTrace`
collects those of several functions, one feeding the next, and plays them in the order in which MLX
evaluates a graph: an array is there from the operation that makes it to the last one that reads it.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

# Operations whose output is their (first) input's memory under another shape.
VIEWS = {"Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze", "View", "StopGradient", "Depends", "Copy"}
STRIDED = {"Transpose", "Broadcast", "BroadcastAxes", "Slice", "Split", "AsStrided"}  # the same, with gaps
# Operations that can write their output over an input that nobody reads any more.
ELEMENTWISE = {
    "Abs", "Add", "AsType", "Cos", "Divide", "Equal", "Erf", "Exp", "Greater", "GreaterEqual", "Less", "LessEqual",
    "Log", "Maximum", "Minimum", "Multiply", "Negative", "Power", "Select", "Sigmoid", "Sin", "Softmax", "Sqrt",
    "Square", "Subtract", "Tanh",
}  # fmt: skip
# MLX runs ahead of the device: what an operation read is freed, and can be written over, only so many operations
# later. The number was fitted to measured peaks on the CPU.
LAG = 20
WIDTH = 20  # how many operations MLX lines up side by side (its `MLX_BFS_MAX_WIDTH`)


@dataclass(frozen=True)
class Handle:
    """An array on a tape."""

    id: int
    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.size


@dataclass
class Operation:
    """One operation: the ids of what it reads and makes."""

    name: str
    inputs: list[int]
    outputs: list[int]
    cast: bool = True  # whether an AsType changes anything


class GraphTrace:
    """Operations on arrays that are never computed.

    tape = Tape()
    x, w = tape.held(mx.zeros((8, 4))), tape.held(mx.zeros((4, 2)))
    [y] = tape.add(lambda x, w: [mx.exp(x @ w)], x, w)
    tape.peaks([[y]])   # bytes, beyond what is held
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.sizes: dict[int, int] = {}
        self.same: dict[int, int] = {}  # promised arrays, by the id of what they turned out to be
        self.count = 0

    def held(self, tree: Any) -> Any:
        """Handles in place of the arrays in `tree`, for what stays in memory anyway and is counted elsewhere."""
        return tree_unflatten([(name, self._handle(a.shape, a.dtype)) for name, a in tree_flatten(tree)])

    def promise(self, like: Handle) -> Handle:
        """An array that is to be made further on, see `keep`."""
        return self._handle(like.shape, like.dtype)

    def keep(self, promised: Handle, found: Handle) -> None:
        """Say what a promised array is."""
        self.same[promised.id] = found.id

    def after(self, x: Handle, other: Handle) -> Handle:
        """`x`, for operations that are not to begin before `other` is there."""
        view = self.promise(x)
        self.operations.append(Operation("Depends", [x.id, other.id], [view.id]))
        return view

    def add(self, function: Callable[..., list[mx.array]], *trees: Any) -> list[Handle]:
        """The outputs of `function`, called with arrays in place of the handles in `trees`.

        Raises ValueError for an operation that MLX cannot hand out: functions with a derivative of
        their own, and checkpointed ones.
        """
        flat = tree_flatten(list(trees))
        names = [name for name, _ in flat]
        handles = [handle for _, handle in flat]

        def call(*arrays: mx.array) -> list[mx.array]:
            return function(*tree_unflatten(list(zip(names, arrays, strict=True))))

        events: list[dict[str, Any]] = []
        mx.export_function(events.append, call, *(mx.zeros(handle.shape, handle.dtype) for handle in handles))
        by_type = {event["type"]: event for event in events}
        known = {entry[0]: handle.id for entry, handle in zip(by_type["inputs"]["inputs"], handles, strict=True)}
        for event in events:
            if event["type"] == "primitive":
                inputs = [known[name] for name, *_ in event["inputs"] if name in known]
                for name, shape, dtype in event["outputs"]:
                    known[name] = self._handle(shape, dtype).id
                cast = event["name"] != "AsType" or event["inputs"][0][2] != event["outputs"][0][2]
                outputs = [known[name] for name, *_ in event["outputs"]]
                self.operations.append(Operation(event["name"], inputs, outputs, cast))
        return [Handle(known[name], tuple(shape), dtype) for name, shape, dtype in by_type["outputs"]["outputs"]]

    def peaks(self, phases: Sequence[Iterable[Handle]], lag: int = LAG) -> list[tuple[int, int]]:
        """(most bytes during, bytes after) the evaluation of each phase's arrays, one phase after the other.

        The arrays of all phases are kept to the end; what is held is not counted.
        """
        wanted = [[self._real(handle.id) for handle in phase] for phase in phases]
        for operation in self.operations:
            operation.inputs = [self._real(array) for array in operation.inputs]
        maker = {array: at for at, operation in enumerate(self.operations) for array in operation.outputs}
        reaches = self._ancestors([array for phase in wanted for array in phase], maker, set())
        memory = _Memory(self.sizes, lag)
        for at in reaches:
            memory.readers.update(set(self.operations[at].inputs))
        memory.readers.update(array for phase in wanted for array in phase)  # read at the end of all
        done: set[int] = set()
        found = []
        for phase in wanted:
            memory.peak = memory.alive
            for at in self._order(phase, maker, done):
                done.add(at)
                memory.run(self.operations[at])
            memory.settle(everything=True)
            found.append((memory.peak, memory.alive))
        return found

    def _handle(self, shape: Sequence[int], dtype: mx.Dtype) -> Handle:
        self.count += 1
        handle = Handle(self.count, tuple(shape), dtype)
        self.sizes[handle.id] = handle.nbytes
        return handle

    def _real(self, array: int) -> int:
        while array in self.same:
            array = self.same[array]
        return array

    def _inputs(self, at: int, maker: dict[int, int], done: set[int]) -> list[int]:
        """The operations, not done yet, whose outputs operation `at` reads; one as often as it is read."""
        made = (maker.get(array) for array in self.operations[at].inputs)
        return [other for other in made if other is not None and other not in done]

    def _ancestors(self, arrays: Iterable[int], maker: dict[int, int], done: set[int]) -> Counter[int]:
        """The operations that `arrays` need, with how often each is asked for."""
        first = [maker[array] for array in arrays if array in maker and maker[array] not in done]
        asked, left = Counter(first), list(dict.fromkeys(first))
        while left:
            for other in self._inputs(left.pop(), maker, done):
                if other not in asked:
                    left.append(other)
                asked[other] += 1
        return asked

    def _order(self, arrays: Sequence[int], maker: dict[int, int], done: set[int]) -> list[int]:
        """The operations that `arrays` need, in MLX's order: breadth first from the end, then down a level."""
        asked = self._ancestors(arrays, maker, done)
        ends = [maker[array] for array in arrays if array in maker and maker[array] not in done]
        trace: list[int | None] = [None]  # from the end to the beginning; None stands for the evaluation itself
        postponed: list[tuple[int | None, int]] = []
        at = 0
        while asked and (at < len(trace) or postponed):
            begin = 0
            if at < len(trace):
                current, at = trace[at], at + 1
            else:
                current, begin = postponed.pop()
            inputs = ends if current is None else self._inputs(current, maker, done)
            for index in range(begin, len(inputs)):
                if len(trace) - at >= WIDTH:
                    postponed.append((current, index))
                    break
                asked[inputs[index]] -= 1
                if not asked[inputs[index]]:
                    del asked[inputs[index]]
                    trace.append(inputs[index])
        return [operation for operation in reversed(trace) if operation is not None]


class _Memory:
    """What is alive while operations run; several arrays can share a buffer."""

    def __init__(self, sizes: dict[int, int], lag: int):
        self.sizes, self.lag = sizes, lag
        self.readers: Counter[int] = Counter()  # how many operations are still to read an array
        self.buffer: dict[int, int] = {}  # of each array that was made; absent for what is held
        self.users: Counter[int] = Counter()  # how many arrays a buffer carries that are still to be read
        self.size: dict[int, int] = {}  # of each buffer
        self.gaps: set[int] = set()  # arrays whose numbers do not lie side by side
        self.last_read: dict[int, int] = {}  # of each buffer, by the clock
        self.freed: deque[tuple[int, int]] = deque()  # (clock, array) that wait for the device
        self.clock = self.alive = self.peak = 0

    def run(self, operation: Operation) -> None:
        self.settle()
        over = []  # inputs that nobody reads after this
        for array in dict.fromkeys(operation.inputs):
            self.readers[array] -= 1
            if not self.readers[array]:
                over.append(array)
        view = self._is_view(operation)
        for index, output in enumerate(operation.outputs):
            if view:
                # Depends passes its first inputs on, one by one; a constant, which is no input here, takes no memory
                sources = operation.inputs[index if operation.name == "Depends" else 0 :]
                self._share(output, self.buffer.get(sources[0]) if sources else None)
                if operation.name in STRIDED or self.gaps.intersection(sources[:1]):
                    self.gaps.add(output)
            else:
                self._share(output, self._donated(operation, output, over) or self._allocate(output))
        self.clock += not view
        made = {self.buffer.get(output) for output in operation.outputs}
        for array in operation.inputs:
            if array in self.buffer and self.buffer[array] not in made:
                self.last_read[self.buffer[array]] = self.clock
        over += [output for output in operation.outputs if not self.readers[output]]
        self.freed.extend((self.clock, array) for array in over if array in self.buffer)

    def settle(self, everything: bool = False) -> None:
        """Free what the device is done with."""
        while self.freed and (everything or self.clock - self.freed[0][0] >= self.lag):
            buffer = self.buffer[self.freed.popleft()[1]]
            self.users[buffer] -= 1
            if not self.users[buffer]:
                self.alive -= self.size[buffer]

    def _is_view(self, operation: Operation) -> bool:
        if operation.name in ("Reshape", "Flatten") and self.gaps.intersection(operation.inputs):
            return False  # has to be copied
        return operation.name in VIEWS or operation.name in STRIDED or not operation.cast

    def _donated(self, operation: Operation, output: int, over: list[int]) -> int | None:
        if operation.name in ELEMENTWISE:
            for array in over:
                buffer = self.buffer.get(array)
                if (
                    buffer is not None
                    and self.users[buffer] == 1
                    and self.size[buffer] == self.sizes[output]
                    and array not in self.gaps
                    and self.clock - self.last_read.get(buffer, -self.lag) >= self.lag
                ):
                    return buffer
        return None

    def _allocate(self, output: int) -> int:
        self.size[output] = self.sizes[output]
        self.alive += self.sizes[output]
        self.peak = max(self.peak, self.alive)
        return output

    def _share(self, array: int, buffer: int | None) -> None:
        if buffer is not None:
            self.buffer[array] = buffer
            self.users[buffer] += 1
