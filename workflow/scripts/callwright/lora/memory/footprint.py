"""The memory of a training step by autograd, from its graph alone: nothing is computed, no weight is read."""

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from callwright.lora import layers, random_state
from callwright.lora.batches import Batch
from callwright.lora.flow import Step
from callwright.lora.loss import adapted_loss_and_gradients, loss_and_gradient
from callwright.lora.memory.graph_trace import GraphTrace, Handle

if TYPE_CHECKING:
    from callwright.lora.autograd import AutogradBackend

Arrays = dict[str, mx.array]


def step_bytes(step: "AutogradBackend", batch: Batch) -> dict[str, int]:
    """The most bytes during `forward` and `backward` of `batch` (one of `Batch.parts`), and those `kept` in between.

    Weights, adapter and optimizer are not counted; gradients are, at the end of `backward`. The step is put
    together from the same parts as `AutogradBackend._loss`, with the derivatives written between them, since MLX
    cannot hand out the graph of a function that brings its own derivative.
    """
    model = step.model
    drawn = random_state.get()  # dropout draws in the graph, not in the run
    before = dict(tree_flatten(model.parameters()))
    model.train()
    try:
        return _step_bytes(step, batch)
    finally:
        model.update(tree_unflatten(list(before.items())))  # the graphs left their own arrays there
        random_state.put(drawn)


def _step_bytes(step: "AutogradBackend", batch: Batch) -> dict[str, int]:
    trace, model, blocks = GraphTrace(), step.model, step.blocks.blocks
    _, steps = step.enter(batch)
    mx.eval([a for s in steps for _, a in tree_flatten(list(s.calls)) if isinstance(a, mx.array)])
    inside = {id(a) for block in blocks for _, a in tree_flatten(block.parameters())}
    outside = {name: a for name, a in tree_flatten(model.parameters()) if id(a) not in inside}
    outer = trace.held(list(outside.values()))

    def around(arrays: list[mx.array]) -> None:
        model.update(tree_unflatten(list(zip(outside, arrays, strict=True))))

    def enter(arrays: list[mx.array]) -> list[mx.array]:
        around(arrays)
        return list(step.enter(batch)[0])

    names = {id(a): name for name, a in layers.adapter_parameters(model).items()}
    gradients: dict[str, Handle] = {}

    def entry_backward(arrays: list[mx.array], slopes: list[mx.array]) -> list[mx.array]:
        def adapted(*values: mx.array) -> list[mx.array]:
            given = {**dict(zip(outside, arrays, strict=True)), **dict(zip(step.head_names, values, strict=True))}
            return enter(list(given.values()))

        names = dict(zip(outside, arrays, strict=True))
        return mx.vjp(adapted, [names[name] for name in step.head_names], slopes)[1]

    # `h` are the states that pass a block together: those of the batch, or of its beginning and of its rows
    h = trace.add(enter, outer)
    count = len(h)
    for block, one in zip(blocks[: step.first_trained_block], steps[: step.first_trained_block], strict=True):
        h = trace.add(_forward(block, one), h, trace.held(block.parameters()))
    trained = list(
        zip(blocks[step.first_trained_block :], steps[step.first_trained_block :], step.checkpointing, strict=True)
    )
    keys = [_trained(block, names) for block, _, _ in trained]
    slopes = []  # promises of the gradients for each trained block's outputs, and of those for its inputs
    later = []  # the blocks that are recomputed
    for number, (block, one, again) in enumerate(trained):
        parameters = trace.held(block.parameters())
        asked = 1 if number == len(trained) - 1 else count  # nobody asks for what the last makes of a beginning
        slope = [trace.promise(x) for x in h[-asked:]]
        if again:
            later.append((number, h, slope, parameters))
            h = trace.add(_forward(block, one), h, parameters)
            slopes.append((slope, None))
        else:
            found = trace.add(_both(block, one), h, slope, parameters)
            h, dx = found[:asked], found[asked : asked + count]
            slopes.append((slope, dx))
            gradients |= zip(keys[number], found[asked + count :], strict=True)
    for number, x, slope, parameters in reversed(later):
        block, one, _ = trained[number]
        asked, x = len(slope), [trace.after(state, slope[-1]) for state in x]
        found = trace.add(_both(block, one), x, slope, parameters)
        slopes[number] = (slope, found[asked : asked + count])
        gradients |= zip(keys[number], found[asked + count :], strict=True)

    def head(h: mx.array, arrays: list[mx.array]) -> list[mx.array]:
        around(arrays)
        given = dict(zip(outside, arrays, strict=True))

        def gather(h: mx.array) -> mx.array:
            return h.reshape(-1, h.shape[-1])[batch.positions]

        def adapted(hidden: mx.array, parameters: Arrays) -> mx.array:
            model.update(tree_unflatten(list(parameters.items())))
            return step.blocks.head(hidden)

        hidden = gather(h)
        if step.head_names:
            on_head = {name: given[name] for name in step.head_names}
            loss, slope, found = adapted_loss_and_gradients(adapted, hidden, on_head, batch.targets, step.chunk)
        else:
            (loss, slope), found = loss_and_gradient(step.blocks.head, hidden, batch.targets, step.chunk), {}
        return [loss, slope, mx.vjp(gather, [h], [slope])[1][0], *found.values()]

    loss, chunks, dh, *found = trace.add(head, h[-1], outer)
    above = [dh]
    for slope, dx in reversed(slopes):
        for promised, made in zip(slope, above, strict=True):
            trace.keep(promised, made)
        above = dx
    if step.enters:
        gradients |= zip(step.head_names, trace.add(entry_backward, outer, above), strict=True)
    # in the order in which `AutogradBackend` asks for them, which decides what is computed first
    wanted = [gradients[name] for name in sorted(gradients)]
    (forward, kept), (backward, _) = trace.peaks([[loss, chunks, *found], wanted])
    return {"forward": forward, "kept": kept, "backward": backward}


def _trained(block: nn.Module, names: dict[int, str]) -> list[str]:
    """The full names of the block's trained arrays, in the block's own order."""
    return [names[id(a)] for _, a in tree_flatten(block.trainable_parameters())]


def _forward(block: nn.Module, step: Step):
    def forward(states: list[mx.array], parameters: dict[str, Any]) -> list[mx.array]:
        block.update(parameters)
        return list(step(block, *states))

    return forward


def _both(block: nn.Module, step: Step):
    """Forward and backward: the outputs for which there are slopes, gradients for inputs and trained parameters."""
    names = [name for name, _ in tree_flatten(block.trainable_parameters())]

    def both(states: list[mx.array], slopes: list[mx.array], parameters: dict[str, Any]) -> list[mx.array]:
        flat = dict(tree_flatten(parameters))

        def forward(*values: mx.array) -> list[mx.array]:
            given = {**flat, **dict(zip(names, values[len(states) :], strict=True))}
            outputs = _forward(block, step)(list(values[: len(states)]), tree_unflatten(list(given.items())))
            return outputs[-len(slopes) :]

        outputs, found = mx.vjp(forward, [*states, *(flat[name] for name in names)], slopes)
        return [*outputs, *found]

    return both
