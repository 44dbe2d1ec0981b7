"""Linear layers of the same input, with the low-rank updates that ride on them."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.lora.cpu import fast_math
from callwright.lora.cpu.sgemm import product
from callwright.lora.cpu.storage import Scratch, zeros
from callwright.lora.layers import LoRALinear


@dataclass
class Projection:
    """One linear layer of a `Group`."""

    path: str  # in the block, as self_attn.q_proj
    module: nn.Module  # an nn.Linear, or a LoRALinear around one
    order: np.ndarray | None = None  # output i of the group is output order[i] of the layer
    factor: float = 1.0  # by which the group's outputs are larger


@dataclass
class Member:
    """An adapter in a `Group`: where its outputs and its ranks lie."""

    name: str  # as in the adapter: model.layers.29.self_attn.q_proj
    columns: slice
    ranks: slice
    order: np.ndarray | None
    scale: float  # of its B: the update's scale, times the projection's factor


class Gradients:
    """What a worker adds up for one group: for A [in, ranks], and for each member's B [rank, out]."""

    def __init__(self, group: "Group"):
        self.a = zeros((group.width, group.rank))
        self.b = [zeros((m.ranks.stop - m.ranks.start, m.columns.stop - m.columns.start)) for m in group.members]


class Group:
    """Projections side by side in one weight: y = x W + (x A) B as *one* product, and y + b where layers have biases.

    The weight is kept as [in + ranks, out], the adapters' B below the frozen W, and the input as
    [n, in + ranks], with x A beside x: so y = [x, x A] [W; B]. Compared with a product of width
    `rank` added to y, this saves a pass over y; compared with merging W + A B, it needs no second
    copy of W. The norm before the projections has its weight folded into W and A.
    """

    def __init__(self, name: str, projections: list[Projection], gain: mx.array | None = None):
        """`gain` [in] is the norm's weight. Takes the weights out of the modules, one after the other."""
        self.members: list[Member] = []
        columns = ranks = 0
        for projection in projections:
            weight = frozen(projection.module).weight  # [out, in]
            span = slice(columns, columns + weight.shape[0])
            columns = span.stop
            if isinstance(projection.module, LoRALinear):
                module = projection.module
                rank = slice(ranks, ranks + module.lora_a.shape[1])
                ranks = rank.stop
                self.members.append(
                    Member(f"{name}.{projection.path}", span, rank, projection.order, module.scale * projection.factor)
                )
        self.width, self.rank, self.columns = weight.shape[1], ranks, columns
        self.extended = self.width + self.rank
        self.gain = None if gain is None else np.array(gain)[:, None]
        self.weight = zeros((self.extended, columns))
        self.a = zeros((self.width, ranks)) if ranks else None
        biased = any("bias" in frozen(projection.module) for projection in projections)
        self.bias = zeros((columns,)) if biased else None  # frozen, and behind the norm: no gradient, no `gain`
        begin = 0
        for projection in projections:
            linear = frozen(projection.module)
            weight = np.asarray(linear.weight)
            weight = weight if projection.order is None else weight[projection.order]
            into = self.weight[: self.width, begin : begin + weight.shape[0]]
            np.multiply(weight.T, np.float32(projection.factor) * (1 if gain is None else self.gain), out=into)
            if "bias" in linear:
                bias = np.asarray(linear.bias.astype(mx.float32))
                bias = bias if projection.order is None else bias[projection.order]
                np.multiply(bias, np.float32(projection.factor), out=self.bias[begin : begin + weight.shape[0]])
            begin += weight.shape[0]
            linear.weight = mx.zeros((1, 1))  # the model's own copy is not needed any more

    def set(self, adapter: dict[str, mx.array]) -> None:
        """Put the adapter's arrays beside the weight."""
        for member in self.members:
            a, b = np.asarray(adapter[f"{member.name}.lora_a"]), np.asarray(adapter[f"{member.name}.lora_b"])
            np.multiply(a, 1 if self.gain is None else self.gain, out=self.a[:, member.ranks])
            b = b if member.order is None else b[:, member.order]
            np.multiply(b, np.float32(member.scale), out=self.weight[self.width :][member.ranks, member.columns])

    def extend(self, x: np.ndarray) -> None:
        """Fill the last columns of `x` [n, in + ranks] with x A."""
        if self.rank:
            product(x[:, : self.width], self.a, x[:, self.width :])

    def forward(self, x: np.ndarray, out: np.ndarray, add: bool = False) -> None:
        """out [n, out] = [x, x A] [W; B] + b, or added to it, for `x` [n, in + ranks], of which the caller fills x."""
        self.extend(x)
        product(x, self.weight, out, add)
        if self.bias is not None:
            out += self.bias

    def inputs_backward(self, dy: np.ndarray, dx: np.ndarray, wanted: bool = True) -> None:
        """Fill dx [n, in + ranks] with the gradients for x and for x A, from that of the outputs, dy [n, out].

        Unless `wanted`, that for x A alone.
        """
        if not wanted:
            if self.rank:
                product(dy, self.weight[self.width :].T, dx[:, self.width :])
            return
        product(dy, self.weight.T, dx)
        if self.rank:
            product(dx[:, self.width :], self.a.T, dx[:, : self.width], add=True)

    def adapters_backward(self, x: np.ndarray, dy: np.ndarray, dx: np.ndarray, found: Gradients | None) -> None:
        """Add to `found`, from x and x A in `x` as `forward` left them, and `dx` as `inputs_backward` left it."""
        if not self.rank:
            return
        product(x[:, : self.width].T, dx[:, self.width :], found.a, add=True)
        for member, b in zip(self.members, found.b, strict=True):
            product(x[:, self.width :][:, member.ranks].T, dy[:, member.columns], b, add=True)

    def unfold(self, found: list[Gradients]) -> dict[str, mx.array]:
        """The workers' sums together, as gradients for the adapter's arrays, by name."""
        if not self.members:
            return {}
        a = sum(part.a for part in found[1:]) + found[0].a if len(found) > 1 else found[0].a
        named = {}
        for index, member in enumerate(self.members):
            b = found[0].b[index] * np.float32(member.scale)
            for part in found[1:]:
                b += part.b[index] * np.float32(member.scale)
            if member.order is not None:
                b = b[:, np.argsort(member.order)]
            named[f"{member.name}.lora_a"] = mx.array(a[:, member.ranks] * (1 if self.gain is None else self.gain))
            named[f"{member.name}.lora_b"] = mx.array(b)
        return named


class Output:
    """The projection that ends attention or MLP, a norm of its output if there is one, and the residual sum."""

    def __init__(self, group: Group, gain: mx.array | None, eps: float):
        self.group, self.eps = group, eps
        self.gain = None if gain is None else np.array(gain)

    def forward(
        self, x: np.ndarray, residual: np.ndarray, out: np.ndarray, raw: np.ndarray | None, scratch: Scratch
    ) -> None:
        """out = residual + (x W, normed), [n, D]; `raw` [n, D] receives x W if there is a norm."""
        if self.gain is None:
            np.copyto(out, residual)
            self.group.forward(x, out, add=True)
        else:
            self.group.forward(x, raw)
            self.add(residual, raw, out, scratch)

    def add(self, residual: np.ndarray, raw: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        """out = residual + raw normed."""
        normalized = scratch.get("raw", *raw.shape)
        fast_math.rms_normalize(raw, normalized, self.eps)
        normalized *= self.gain
        np.add(residual, normalized, out=out)

    def backward(self, gradient: np.ndarray, raw: np.ndarray | None, scratch: Scratch) -> np.ndarray:
        """The gradient of x W [n, D] from that of the sum."""
        if self.gain is None:
            return gradient
        normalized, slope = scratch.get("raw", *raw.shape), scratch.get("slope", *raw.shape)
        inverse = fast_math.rms_normalize(raw, normalized, self.eps)
        np.multiply(gradient, self.gain, out=slope)
        fast_math.rms_normalize_backward_(slope, normalized, inverse)
        return slope


def frozen(module: nn.Module) -> nn.Module:
    """The linear layer under an adapter, or the module itself."""
    return module.linear if isinstance(module, LoRALinear) else module
