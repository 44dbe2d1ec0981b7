"""The memory of a training step by autograd, from its graph alone: nothing is computed, no weight is read."""

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from callwright.lora import layers, random_state
from callwright.lora.batches import Batch
from callwright.lora.blocks import Call
from callwright.lora.loss import adapted_loss_and_gradients, loss_and_gradient
from callwright.lora.memory.graph_trace import GraphTrace, Handle

if TYPE_CHECKING:
    from callwright.lora.autograd import AutogradBackend

Arrays = dict[str, mx.array]


def step_bytes(step: "AutogradBackend", batch: Batch) -> dict[str, int]:
    """The most bytes during `forward` and `backward` of `batch`, and those `kept` in between.

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
    _, calls = step.blocks.enter(batch.tokens)
    mx.eval([call for call in calls if call is not None])
    inside = {id(a) for block in blocks for _, a in tree_flatten(block.parameters())}
    outside = {name: a for name, a in tree_flatten(model.parameters()) if id(a) not in inside}
    outer = trace.held(list(outside.values()))

    def around(arrays: list[mx.array]) -> None:
        model.update(tree_unflatten(list(zip(outside, arrays, strict=True))))

    def enter(arrays: list[mx.array]) -> mx.array:
        around(arrays)
        return step.blocks.enter(batch.tokens)[0]

    names = {id(a): name for name, a in layers.adapter_parameters(model).items()}
    gradients: dict[str, Handle] = {}

    def entry_backward(arrays: list[mx.array], slope: mx.array) -> list[mx.array]:
        def adapted(*values: mx.array) -> mx.array:
            given = {**dict(zip(outside, arrays, strict=True)), **dict(zip(step.head_names, values, strict=True))}
            return enter(list(given.values()))

        names = dict(zip(outside, arrays, strict=True))
        return mx.vjp(adapted, [names[name] for name in step.head_names], [slope])[1]

    [h] = trace.add(lambda arrays: [enter(arrays)], outer)
    for block, call in zip(blocks[: step.first_trained_block], calls[: step.first_trained_block], strict=True):
        [h] = trace.add(_forward(block, call), h, trace.held(block.parameters()))
    trained = list(
        zip(blocks[step.first_trained_block :], calls[step.first_trained_block :], step.checkpointing, strict=True)
    )
    keys = [_trained(block, names) for block, _, _ in trained]
    slopes = []  # a promise of the gradient for each trained block's output, and of the lowest one's input
    later = []  # the blocks that are recomputed
    for number, (block, call, again) in enumerate(trained):
        parameters = trace.held(block.parameters())
        slope = trace.promise(h)
        if again:
            later.append((number, h, slope, parameters))
            [h] = trace.add(_forward(block, call), h, parameters)
            slopes.append((slope, None))
        else:
            h, dx, *found = trace.add(_both(block, call), h, slope, parameters)
            slopes.append((slope, dx))
            gradients |= zip(keys[number], found, strict=True)
    for number, x, slope, parameters in reversed(later):
        block, call, _ = trained[number]
        _, dx, *found = trace.add(_both(block, call), trace.after(x, slope), slope, parameters)
        slopes[number] = (slope, dx)
        gradients |= zip(keys[number], found, strict=True)

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

    loss, chunks, dh, *found = trace.add(head, h, outer)
    above = dh
    for slope, dx in reversed(slopes):
        trace.keep(slope, above)
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


def _forward(block: nn.Module, call: Call):
    def forward(h: mx.array, parameters: dict[str, Any]) -> list[mx.array]:
        block.update(parameters)
        return [block(h, *call[0], **call[1])]

    return forward


def _both(block: nn.Module, call: Call):
    """Forward and backward: output, gradient for the input, gradients for the trained parameters."""
    names = [name for name, _ in tree_flatten(block.trainable_parameters())]

    def both(h: mx.array, slope: mx.array, parameters: dict[str, Any]) -> list[mx.array]:
        flat = dict(tree_flatten(parameters))

        def forward(h: mx.array, *values: mx.array) -> mx.array:
            given = {**flat, **dict(zip(names, values, strict=True))}
            return _forward(block, call)(h, tree_unflatten(list(given.items())))[0]

        outputs, slopes = mx.vjp(forward, [h, *(flat[name] for name in names)], [slope])
        return [*outputs, *slopes]

    return both
