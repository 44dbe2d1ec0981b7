"""The state of `mx.random` as one integer, to be kept and put back.

MLX lets its state be read but not written. A state is a pair of 32-bit words, though, and
`mx.random.seed` makes the pair out of its seed's upper and lower half.
"""

import mlx.core as mx


def get() -> int:
    """The state now (64 bits); equal states draw equal numbers."""
    upper, lower = mx.random.state[0].tolist()
    return upper << 32 | lower


def put(state: int) -> None:
    """Go on from a state that `get` returned."""
    mx.random.seed(state)
