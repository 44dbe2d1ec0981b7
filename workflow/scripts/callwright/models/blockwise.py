"""A model that is asked once, a block at a time: each is read, unpacked to float32, computed and let go.

Its weights are never in memory together, neither as the files hold them nor in float32. mlx-lm's own code runs, with
stand-ins in place of the blocks, the embedding and the head.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from callwright.models.load import float_rows, open_model, to_float32

PIECE = 2**23  # weights of an embedding or a head that are unpacked at once


class StandIn:
    """Called in place of a module; its attributes are the module's, since models look at them to choose a mask."""

    def __init__(self, module: nn.Module, function: Callable[..., mx.array]):
        self._module, self._function = module, function

    def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def logits(folder: str | Path, tokens: Sequence[list[int]], places: Sequence[tuple[int, int]]) -> mx.array:
    """What the model in `folder` computes after `tokens`, at `places` (row, position) alone: [places, vocabulary].

    In float32. The rows are asked together, the shorter ones filled up behind, which a causal model does not see.
    """
    model = open_model(folder)
    model.eval()
    length = max(map(len, tokens))
    put_stand_ins(model, mx.array([row * length + position for row, position in places]))
    found = model(mx.array([[*row, *[0] * (length - len(row))] for row in tokens]))[0]
    mx.eval(found)
    return found


def put_stand_ins(model: nn.Module, at: mx.array) -> None:
    """Make `model`, not yet read, one that can be called once; its head computes the positions `at` alone."""
    modules = dict(model.named_modules())
    for path in matrices(model):
        parent, _, name = path.rpartition(".")
        setattr(modules[parent], name, Matrix(modules[path], at))
    home = owner(model)
    if home is None:
        to_float32(model)
        return
    blocks, home.layers = home.layers, []
    to_float32(model)  # what is left: norms
    home.layers = [StandIn(block, once(block)) for block in blocks]


def once(block: nn.Module) -> Callable[..., Any]:
    """`block` in float32, whose weights are gone after the call."""

    def run(*args: Any, **kwargs: Any) -> Any:
        to_float32(block)
        found = block(*args, **kwargs)
        mx.eval(found)
        block.clear()
        mx.clear_cache()
        return found

    return run


class Matrix(StandIn):
    """In place of an embedding or a head, of which only the rows that are needed now stand in float32.

    As a head it computes the positions `at` (of all rows, one after the other) alone: logits [1, at, vocabulary].
    """

    def __init__(self, module: nn.Module, at: mx.array):
        embeds = isinstance(module, nn.Embedding | nn.QuantizedEmbedding)
        super().__init__(module, self.embed if embeds else self.as_linear)
        self.at = at

    def embed(self, tokens: mx.array) -> mx.array:
        """The rows of `tokens` [batch, length]."""
        return float_rows(self._module, tokens.reshape(-1)).reshape(*tokens.shape, -1)

    def as_linear(self, x: mx.array) -> mx.array:
        """Logits of the hidden states `x` [batch, length, width]."""
        x = x.reshape(-1, x.shape[-1])[self.at][None]
        parts = []
        for rows in pieces(self._module):
            parts.append(x @ float_rows(self._module, rows).T)
            mx.eval(parts[-1])
        found = mx.concatenate(parts, axis=-1)
        return found + self._module.bias if "bias" in self._module else found


def row_norms(module: nn.Module) -> mx.array:
    """The length of each row of an embedding or a head [vocabulary], float32."""
    found = []
    for rows in pieces(module):
        found.append(mx.linalg.norm(float_rows(module, rows), axis=1))
        mx.eval(found[-1])
    return mx.concatenate(found)


def pieces(module: nn.Module) -> Iterator[slice]:
    """The rows of a matrix in parts of about PIECE weights."""
    width = float_rows(module, slice(1)).shape[1]
    for begin in range(0, len(module.weight), step := max(1, PIECE // width)):
        yield slice(begin, begin + step)


def matrices(model: nn.Module) -> list[str]:
    """The paths of the embedding and, where it is another matrix, the head."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Embedding | nn.QuantizedEmbedding)]
    heads = [name for name, _ in model.named_modules() if name.split(".")[-1] == "lm_head"]
    tied = heads and (getattr(model, "tie_word_embeddings", False) or not any(heads))
    return [*(name for name in names if name.endswith("embed_tokens")), *([] if tied else heads)]


def owner(model: nn.Module) -> nn.Module | None:
    """The module in `model` whose attribute `layers` is the list of its blocks; None if there is none."""
    first = model.layers[0]
    for _, module in model.named_modules():
        layers = module.get("layers")
        if isinstance(layers, list) and layers and layers[0] is first:
            return module
    return None
