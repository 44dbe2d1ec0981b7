"""Cross-entropy on the trained positions, without the logits of the whole batch.

Logits cost vocabulary x 4 bytes a token: 1 MiB for Gemma 3, several times over when kept for
the backward pass. Here the hidden states at the trained positions alone are projected, a
chunk of tokens at a time, and each chunk's gradient with respect to its hidden states (width
numbers a token) is formed at once, while its logits are at hand. Nothing of vocabulary size
outlives its chunk, and the frozen head gets no gradient at all.
"""

from collections.abc import Callable

import mlx.core as mx

# Logits [n, vocabulary] from hidden states [n, width]; differentiable in the hidden states.
Head = Callable[[mx.array], mx.array]


def completion_loss(head: Head, hidden: mx.array, targets: mx.array, chunk: int) -> mx.array:
    """The summed cross-entropy (float32 scalar) of `targets` [n] given `hidden` [n, width]; differentiable in `hidden`.

    `hidden` are the last block's outputs at the positions that predict `targets`; `chunk` is how
    many tokens' logits are held at once. Sums and softmax are float32 whatever the model's dtype.
    """

    @mx.custom_function
    def total(hidden: mx.array) -> tuple[mx.array, mx.array]:
        return loss_and_gradient(head, hidden, targets, chunk)

    @total.vjp
    def total_vjp(_: mx.array, cotangents: list[mx.array], outputs: list[mx.array]) -> mx.array:
        return (cotangents[0] * outputs[1].astype(mx.float32)).astype(outputs[1].dtype)

    return total(hidden)[0]


def loss_and_gradient(head: Head, hidden: mx.array, targets: mx.array, chunk: int) -> tuple[mx.array, mx.array]:
    """(summed cross-entropy, its gradient with respect to `hidden` [n, width])."""
    losses, gradients = [], []
    for begin in range(0, targets.size, chunk):
        h, t = hidden[begin : begin + chunk], targets[begin : begin + chunk]
        if gradients:  # one chunk after the other, or the scheduler may hold the logits of several
            h = mx.depends([h], [gradients[-1]])[0]
        logits, pull = _vjp(head, h)
        wide = logits.astype(mx.float32)
        lse = logsumexp(wide)
        losses.append(mx.sum(lse - mx.take_along_axis(wide, t[:, None], axis=-1)[:, 0]))
        one_hot = mx.arange(wide.shape[-1]) == t[:, None]
        slope = mx.exp(wide - lse[:, None]) - one_hot
        gradients.append(pull(slope.astype(logits.dtype)))
    return sum(losses), mx.concatenate(gradients)


def loss_sum(head: Head, hidden: mx.array, targets: mx.array, chunk: int) -> mx.array:
    """The summed cross-entropy alone, for validation; arguments as in `completion_loss`."""
    total = mx.array(0.0)
    for begin in range(0, targets.size, chunk):
        h = mx.depends([hidden[begin : begin + chunk]], [total])[0]
        logits = head(h).astype(mx.float32)
        picked = mx.take_along_axis(logits, targets[begin : begin + chunk, None], axis=-1)[:, 0]
        total = total + mx.sum(logsumexp(logits) - picked)
    return total


def logsumexp(logits: mx.array, block: int = 512) -> mx.array:
    """log(sum(exp)) of `logits` [n, vocabulary] float32 over the vocabulary, in blocks.

    MLX's CPU backend adds one term after the other in float32: over 50,000 terms that loses half
    the digits (1e-4 of the loss). A sum of sums does not.
    """
    n, vocabulary = logits.shape
    whole = vocabulary - vocabulary % block
    parts = [mx.logsumexp(logits[:, :whole].reshape(n, -1, block), axis=-1)] if whole else []
    if whole < vocabulary:
        parts.append(mx.logsumexp(logits[:, whole:], axis=-1, keepdims=True))
    return mx.logsumexp(mx.concatenate(parts, axis=-1), axis=-1)


def _vjp(head: Head, hidden: mx.array) -> tuple[mx.array, Callable[[mx.array], mx.array]]:
    """(logits, a function that pulls a gradient of the logits back to `hidden`).

    `mx.vjp` runs the head a second time, but only what its derivative needs of that is computed:
    for a plain linear head after a norm, the norm.
    """
    return head(hidden), lambda slope: mx.vjp(head, [hidden], [slope])[1][0]
