"""Cross-entropy on the trained positions, without the logits of the whole batch.

Logits cost vocabulary x 4 bytes a token: 1 MiB for Gemma 3, several times over when kept for
the backward pass. Here the hidden states at the trained positions alone are projected, a
chunk of tokens at a time, and each chunk's gradient with respect to its hidden states (width
numbers a token) is formed at once, while its logits are at hand. Nothing of vocabulary size
outlives its chunk, and the frozen head gets no gradient at all. Where an adapter rides on the
head (`lm_head`, or the embedding that it is tied to), the adapter's arrays get theirs, added up in
float32 over the chunks.
"""

from collections.abc import Callable

import mlx.core as mx

# Logits [n, vocabulary] from hidden states [n, width]; differentiable in the hidden states.
Head = Callable[[mx.array], mx.array]
Arrays = dict[str, mx.array]
# The same, from hidden states and the arrays of the head's own adapter; differentiable in both.
AdaptedHead = Callable[[mx.array, Arrays], mx.array]

LOGITS_BYTES = 64 * 10**6  # a chunk's logits in float32, which are there several times over
FEWEST = 16  # tokens in a chunk: below, the head's weights are read for too few products


def chunk_tokens(setting: str | int, vocabulary: int) -> int:
    """The config key `training.loss_chunk` as a number; `auto`: at most 64 MB of logits, 16 to 512 by 16."""
    if setting != "auto":
        return setting
    return max(FEWEST, min(512, LOGITS_BYTES // (4 * vocabulary) // FEWEST * FEWEST))


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
        return _scaled(cotangents[0], outputs[1])

    return total(hidden)[0]


def adapted_loss(head: AdaptedHead, hidden: mx.array, parameters: Arrays, targets: mx.array, chunk: int) -> mx.array:
    """As `completion_loss`, for a head with an adapter; differentiable in `hidden` and `parameters`."""

    @mx.custom_function
    def total(hidden: mx.array, parameters: Arrays) -> tuple[mx.array, mx.array, Arrays]:
        return adapted_loss_and_gradients(head, hidden, parameters, targets, chunk)

    @total.vjp
    def total_vjp(_: tuple, cotangents: tuple, outputs: tuple) -> tuple[mx.array, Arrays]:
        _, slope, slopes = outputs
        return _scaled(cotangents[0], slope), {name: _scaled(cotangents[0], value) for name, value in slopes.items()}

    return total(hidden, parameters)[0]


def _scaled(factor: mx.array, gradient: mx.array) -> mx.array:
    return (factor * gradient.astype(mx.float32)).astype(gradient.dtype)


def loss_and_gradient(head: Head, hidden: mx.array, targets: mx.array, chunk: int) -> tuple[mx.array, mx.array]:
    """(summed cross-entropy, its gradient with respect to `hidden` [n, width])."""
    losses, gradients = [], []
    for begin in range(0, targets.size, chunk):
        h, t = hidden[begin : begin + chunk], targets[begin : begin + chunk]
        if gradients:  # one chunk after the other, or the scheduler may hold the logits of several
            h = mx.depends([h], [gradients[-1], losses[-1]])[0]
        logits, pull = _vjp(head, h)
        loss, slope = _loss_and_slope(logits, t)
        losses.append(loss)
        gradients.append(pull(slope))
    return sum(losses), mx.concatenate(gradients)


def _loss_and_slope(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """(summed cross-entropy of `targets` [n] float32, its gradient for `logits` [n, vocabulary] in their dtype).

    Softmax minus one-hot, in the one buffer beside the logits: the loss is computed before, so that nothing else
    needs the logits then, and the targets' entries are changed in place.
    """
    wide = logits.astype(mx.float32)
    lse = logsumexp(wide)
    loss = mx.sum(lse - mx.take_along_axis(wide, targets[:, None], axis=-1)[:, 0])
    slope = mx.exp(wide - mx.depends([lse], [loss])[0][:, None])
    return loss, slope.at[mx.arange(targets.size), targets].add(-1.0).astype(logits.dtype)


def adapted_loss_and_gradients(
    head: AdaptedHead, hidden: mx.array, parameters: Arrays, targets: mx.array, chunk: int
) -> tuple[mx.array, mx.array, Arrays]:
    """(summed cross-entropy, its gradient for `hidden` [n, width], its gradients for `parameters`)."""

    def linearized(h: mx.array, parameters: Arrays, t: mx.array) -> tuple[mx.array, mx.array]:
        """(a sum with the loss's derivative, which is never computed itself; the loss). One call, for one dropout."""
        logits = head(h, parameters)
        loss, slope = _loss_and_slope(mx.stop_gradient(logits), t)
        return mx.sum(slope * logits), loss

    pull = mx.value_and_grad(linearized, argnums=(0, 1))
    losses, gradients, sums = [], [], None
    for begin in range(0, targets.size, chunk):
        h, t = hidden[begin : begin + chunk], targets[begin : begin + chunk]
        if gradients:  # one chunk after the other, as above
            h, *values = mx.depends([h, *parameters.values()], [gradients[-1], losses[-1], *sums.values()])
            parameters = dict(zip(parameters, values, strict=True))
        (_, loss), (slope, slopes) = pull(h, parameters, t)
        losses.append(loss)
        gradients.append(slope)
        slopes = {name: value.astype(mx.float32) for name, value in slopes.items()}
        sums = slopes if sums is None else {name: sums[name] + value for name, value in slopes.items()}
    sums = {name: value.astype(parameters[name].dtype) for name, value in sums.items()}
    return sum(losses), mx.concatenate(gradients), sums


def loss_sum(head: Head, hidden: mx.array, targets: mx.array, chunk: int) -> mx.array:
    """The summed cross-entropy alone, for validation; arguments as in `completion_loss`."""
    total = mx.array(0.0)
    for begin in range(0, targets.size, chunk):
        h = mx.depends([hidden[begin : begin + chunk]], [total])[0]
        logits = head(h).astype(mx.float32)
        picked = mx.take_along_axis(logits, targets[begin : begin + chunk, None], axis=-1)[:, 0]
        total = total + mx.sum(logsumexp(logits) - picked)
    return total


def logsumexp(logits: mx.array) -> mx.array:
    """log(sum(exp)) of `logits` [n, vocabulary] float32 over the vocabulary, in blocks.

    MLX's CPU backend adds one term after the other in float32: over 50,000 terms that loses half
    the digits (1e-4 of the loss). A sum of sums does not.
    """
    n, vocabulary = logits.shape
    # A block that divides the vocabulary, where there is one, spares a copy of the logits.
    block = next((size for size in (512, *range(1024, 63, -1)) if vocabulary % size == 0), 512)
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
