"""A text as one vector: the mean of its tokens' hidden states after some of a model's blocks.

What a language model keeps of a text half-way through its blocks says more of what the text is about than its last
block does, which is about to name the next token (Skean et al., "Layer by Layer: Uncovering Hidden Representations in
Language Models", ICML 2025, https://arxiv.org/abs/2502.02013).
"""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.lora.blocks import Blocks

TOKENS = 1024  # that are computed together
PADDING = 0


def pooled(model: nn.Module, texts: Sequence[Sequence[int]], after: Sequence[int]) -> np.ndarray:
    """Mean hidden states [texts, len(after) * width] in float32, of texts as token ids, none of them empty.

    after: numbers of blocks, ascending: 12 means the states that the twelfth block returns. The blocks behind the last
    of them are not computed. Not for a model that another thread uses at the same time.
    """
    blocks, order = Blocks(model, verify=False), sorted(range(len(texts)), key=lambda text: len(texts[text]))
    found: list[np.ndarray | None] = [None] * len(texts)
    while order:
        together = _as_many_as_fit(order, texts)
        for text, states in zip(together, _pooled(blocks, [texts[text] for text in together], after), strict=True):
            found[text] = states
    return np.stack(found)


def _as_many_as_fit(order: list[int], texts: Sequence[Sequence[int]]) -> list[int]:
    """The next texts, the shortest first, taken from `order`."""
    count = 1
    while count < len(order) and (count + 1) * len(texts[order[count]]) <= TOKENS:
        count += 1
    together = order[:count]
    del order[:count]
    return together


def _pooled(blocks: Blocks, texts: list[Sequence[int]], after: Sequence[int]) -> np.ndarray:
    longest = max(map(len, texts))
    padded = mx.array([[*ids, *[PADDING] * (longest - len(ids))] for ids in texts])  # behind: no token sees it
    counted = mx.array([[index < len(ids) for index in range(longest)] for ids in texts])[..., None]
    lengths = mx.array([[len(ids)] for ids in texts])
    states, calls = blocks.enter(padded)
    means = []
    for first, last in zip([0, *after], after, strict=False):
        states = blocks.run(states, calls, first, last)
        means.append(mx.where(counted, states, 0).astype(mx.float32).sum(axis=1) / lengths)
    return np.array(mx.concatenate(means, axis=-1))
