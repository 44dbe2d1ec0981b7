"""The low-rank layers: LoRA and DoRA, each on a linear layer or an embedding.

LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) adds an update to a frozen weight:
W' = W + scale * (A B)^T with A [in, rank] drawn from U(-1/sqrt(in), 1/sqrt(in)) and B [rank, out]
zero, so that training starts at the base model. DoRA (Liu et al. 2024, section 4,
https://arxiv.org/abs/2402.09353) also learns the length `m` of each row: m * W' / ||W'||, where
||W'|| counts as a constant in the backward pass, which its section 4.3 proposes. For an
embedding, A is [vocabulary, rank], B [rank, width] and W' = W + scale * A B.

Names and shapes of the parameters are mlx-lm's, and so is what they mean. The rows' lengths are
computed without the adapted weight, which mlx-lm forms in each forward pass:
||w + s u||^2 = ||w||^2 + 2 s w.u + s^2 ||u||^2, where w.u takes `rank` products with the frozen layer.
"""

import math

import mlx.core as mx
import mlx.nn as nn

Quantized = nn.QuantizedLinear | nn.QuantizedEmbedding
Embedding = nn.Embedding | nn.QuantizedEmbedding
Adaptable = nn.Linear | nn.QuantizedLinear | nn.Embedding | nn.QuantizedEmbedding

TINY = 1e-30  # of a squared length; a row of zeros stays one


class LowRank(nn.Module):
    """What the four layers share: `lora_a`, `lora_b`, `scale`, dropout, and a frozen layer in the attribute `HELD`."""

    HELD = "linear"
    KIND = "lora"

    def __init__(self, base: Adaptable, rank: int, scale: float, dropout: float = 0.0):
        super().__init__()
        rows, columns = shape(base)
        inputs, outputs = (rows, columns) if self.HELD == "embedding" else (columns, rows)
        bound = 1 / math.sqrt(inputs)
        self[self.HELD] = base
        self.dropout = nn.Dropout(p=dropout)
        self.scale = scale
        self.lora_a = mx.random.uniform(low=-bound, high=bound, shape=(inputs, rank))
        self.lora_b = mx.zeros((rank, outputs))
        if self.KIND == "dora":
            self._squares = row_squares(base)  # [rows] float32; no parameter, since its name begins with _
            self.m = mx.sqrt(self._squares)
        base.freeze()

    @property
    def base(self) -> Adaptable:
        """The frozen layer."""
        return self[self.HELD]

    def merged(self) -> nn.Linear | nn.Embedding:
        """The frozen plain layer with the update in its weight; the same function to rounding."""
        base = self.base
        update = self.scale * (self.lora_a @ self.lora_b)
        weight = base.weight.astype(mx.float32) + (update if self.HELD == "embedding" else update.T)
        if self.KIND == "dora":
            weight = weight * (self.m / self.lengths())[:, None]
        base.weight = weight.astype(base.weight.dtype)
        return base

    def lengths(self) -> mx.array:
        """The length of each row of the adapted weight [rows] float32, constant for the backward pass (DoRA)."""
        a, b = (mx.stop_gradient(array.astype(mx.float32)) for array in (self.lora_a, self.lora_b))
        left, right = (b, a.T) if self.HELD == "embedding" else (a.T, b)  # [rank, columns], [rank, rows]
        cross = product(self.base, left)  # [rank, rows]
        squares = self._squares + mx.sum(
            right * (2 * self.scale * cross + self.scale**2 * ((left @ left.T) @ right)), 0
        )
        return mx.stop_gradient(mx.sqrt(mx.maximum(squares, TINY)))


class LoRALinear(LowRank):
    """y = W x + scale * (dropout(x) A) B. Input [..., in], output [..., out] in the frozen layer's dtype."""

    def __call__(self, x: mx.array) -> mx.array:
        y = self.linear(x)
        update = (self.dropout(x) @ self.lora_a) @ self.lora_b
        return y + (self.scale * update).astype(y.dtype)


class DoRALinear(LowRank):
    """y = m / ||W'|| * (W x + scale * (dropout(x) A) B) + bias. Shapes and dtype as in `LoRALinear`."""

    KIND = "dora"

    def __call__(self, x: mx.array) -> mx.array:
        y = product(self.linear, x)
        update = (self.dropout(x) @ self.lora_a) @ self.lora_b
        y = (self.m / self.lengths()).astype(y.dtype) * (y + (self.scale * update).astype(y.dtype))
        return y + self.linear.bias if "bias" in self.linear else y


class LoRAEmbedding(LowRank):
    """Row t of W + scale * A B for each token t: input [...] of tokens, output [..., width]."""

    HELD = "embedding"

    def __call__(self, x: mx.array) -> mx.array:
        y = self.embedding(x)
        update = self.dropout(self.lora_a[x] @ self.lora_b)
        return y + (self.scale * update).astype(y.dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        """Logits [..., vocabulary] of `x` [..., width]: the tied head, adapted too."""
        y = self.embedding.as_linear(x)
        update = (self.dropout(x) @ self.lora_b.T) @ self.lora_a.T
        return y + (self.scale * update).astype(y.dtype)


class DoRAEmbedding(LowRank):
    """Row t of m * W' / ||W'|| for each token t, W' = W + scale * A B. Shapes as in `LoRAEmbedding`.

    mlx-lm returns float32 here whatever the model's dtype is; this keeps the embedding's dtype.
    """

    HELD = "embedding"
    KIND = "dora"

    def __call__(self, x: mx.array) -> mx.array:
        y = self.embedding(x)
        update = self.scale * (self.lora_a[x] @ self.lora_b)
        adapted = mx.stop_gradient(y.astype(mx.float32) + update.astype(mx.float32))
        length = mx.sqrt(mx.maximum(mx.sum(mx.square(adapted), axis=-1), TINY))
        out = y + self.dropout(update).astype(y.dtype)
        return ((self.m[x] / length)[..., None] * out).astype(y.dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        """Logits [..., vocabulary] of `x` [..., width]: the tied head, adapted too."""
        y = self.embedding.as_linear(x)
        update = (self.dropout(x) @ self.lora_b.T) @ self.lora_a.T
        return (self.m / self.lengths()).astype(y.dtype) * (y + (self.scale * update).astype(y.dtype))


def wrap(base: Adaptable, kind: str, rank: int, scale: float, dropout: float = 0.0) -> LowRank:
    """`base`, frozen, with an update of `kind` (`lora` or `dora`)."""
    linear, embedding = {"lora": (LoRALinear, LoRAEmbedding), "dora": (DoRALinear, DoRAEmbedding)}[kind]
    return (embedding if isinstance(base, Embedding) else linear)(base, rank, scale, dropout)


def shape(base: Adaptable) -> tuple[int, int]:
    """(rows, columns) of the weight: (out, in) of a linear layer, (vocabulary, width) of an embedding."""
    rows, columns = base.weight.shape
    if isinstance(base, Quantized):
        columns = columns * 32 // base.bits  # packed in 32-bit words
    return rows, columns


def product(base: Adaptable, x: mx.array) -> mx.array:
    """x W^T without bias, [..., columns] to [..., rows]."""
    if isinstance(base, Embedding):
        return base.as_linear(x)
    if isinstance(base, nn.Linear):
        return x @ base.weight.T
    return mx.quantized_matmul(
        x, base.weight, scales=base.scales, biases=base.get("biases"), transpose=True,
        group_size=base.group_size, bits=base.bits, mode=base.mode,
    )  # fmt: skip


def row_squares(base: Adaptable, rows: int = 4096) -> mx.array:
    """The squared length of each row of the weight [rows] float32, evaluated; so many rows at a time."""
    found = []
    for begin in range(0, base.weight.shape[0], rows):
        part = slice(begin, begin + rows)
        weight = base.weight[part]
        if isinstance(base, Quantized):
            biases = base.get("biases")
            weight = mx.dequantize(
                weight, base.scales[part], None if biases is None else biases[part],
                group_size=base.group_size, bits=base.bits, mode=base.mode,
            )  # fmt: skip
        found.append(mx.sum(mx.square(weight.astype(mx.float32)), axis=1))
        mx.eval(found[-1])
    return mx.concatenate(found)
