"""Keys and values of recent prompts' beginnings: who comes with the same tools pays for its own words alone.

They are kept in blocks of tokens, each under what stands before it, so that prompts share what they begin with and
part where they differ. A beginning is found by its tokens; no flag, and no cut at the end of a tool list, is needed.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import mlx.core as mx

from callwright.decoding.places import Prompt

BLOCK = 16  # tokens
# What is kept at most unless somebody says otherwise: 11,000 tokens of SmolLM2 in float32.
LIMIT = 512 << 20

Arrays = list[tuple[mx.array, mx.array]]  # keys and values [1, heads, tokens, width], layer by layer


class PrefixBlock:
    """Some tokens after those of `before`; `arrays` is None for the root alone."""

    def __init__(self, tokens: tuple[int, ...], before: "PrefixBlock | None", arrays: Arrays | None):
        self.tokens, self.before, self.arrays = tokens, before, arrays
        self.after: dict[tuple[int, ...], PrefixBlock] = {}
        self.nbytes = sum(keys.nbytes + values.nbytes for keys, values in arrays or [])


class Beginnings:
    """The blocks, at most `limit` bytes of them: those that were not used for the longest time go first.

    Any number of threads may use one.
    """

    def __init__(self, limit: int = LIMIT):
        self.limit = limit
        self.nbytes = 0
        self._root = PrefixBlock((), None, None)
        self._used: OrderedDict[PrefixBlock, None] = (
            OrderedDict()
        )  # the longest unused first, and no block before its last
        self._lock = threading.Lock()

    def find(self, tokens: Sequence[int], prompt: Sequence[Prompt]) -> int:
        """Fill an empty `prompt` with what is known of the beginning of `tokens`; returns for how many of them."""
        with self._lock:
            chain, length = self._chain(tokens)
            arrays = [block.arrays for block in chain]
        if not length:
            return 0
        for layer, one in enumerate(prompt):
            keys, values = (
                mx.concatenate([block[layer][part] for block in arrays], axis=2)[:, :, :length] for part in (0, 1)
            )
            one.state = (keys, values, length)
        return length

    def keep(self, tokens: Sequence[int], prompt: Sequence[Prompt]) -> None:
        """Keep what `prompt` holds of these `tokens`, its first ones; the last block may be a short one."""
        with self._lock:
            block, chain = self._root, []
            for start in range(0, len(tokens), BLOCK):
                piece = tuple(tokens[start : start + BLOCK])
                following = block.after.get(piece)
                if following is None:
                    arrays = [
                        tuple(mx.contiguous(part[:, :, start : start + len(piece)]) for part in (one.keys, one.values))
                        for one in prompt
                    ]
                    mx.eval(arrays)
                    following = block.after[piece] = PrefixBlock(piece, block, arrays)
                    self.nbytes += following.nbytes
                block = following
                chain.append(block)
            self._use(chain)
            while self.nbytes > self.limit:
                self._forget(next(iter(self._used)))

    def _chain(self, tokens: Sequence[int]) -> tuple[list[PrefixBlock], int]:
        """The blocks that `tokens` begin with, the last perhaps in part, and how many tokens these are."""
        block, chain, length = self._root, [], 0
        while True:
            rest = tuple(tokens[length : length + BLOCK])
            following = block.after.get(rest)
            if following is None:
                break
            block = following
            chain.append(block)
            length += len(rest)
        best, more = None, 0
        for following in block.after.values():
            if (same := common(following.tokens, rest)) > more:
                best, more = following, same
        if best is not None:
            chain.append(best)
        self._use(chain)
        return chain, length + more

    def _use(self, chain: list[PrefixBlock]) -> None:
        for block in reversed(chain):
            self._used[block] = None
            self._used.move_to_end(block)

    def _forget(self, block: PrefixBlock) -> None:
        """Drop a block that has none after it: it is the one that was not used for the longest time."""
        del self._used[block]
        del block.before.after[block.tokens]
        self.nbytes -= block.nbytes


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def shared_lengths(prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each prompt how many tokens it has in common with the beginning of some other one."""
    order = sorted(range(len(prompts)), key=lambda item: list(prompts[item]))
    lengths = [0] * len(prompts)
    for one, other in zip(order, order[1:], strict=False):
        same = common(prompts[one], prompts[other])
        lengths[one], lengths[other] = max(lengths[one], same), max(lengths[other], same)
    return lengths
