"""The chunked loss and its gradient against cross-entropy over all logits at once."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models import llama
from test_lora_blocks import llama_config, worst_error

from callsmith.lora.blocks import Blocks
from callsmith.lora.loss import completion_loss, logsumexp, loss_and_gradient, loss_sum

N, WIDTH, VOCABULARY = 37, 64, 1100  # no multiple of a block or a chunk


def head_of(tied: bool, quantized: bool, dtype: mx.Dtype = mx.float32):
    """The final norm and head of a Llama, in training's own form."""
    mx.random.seed(0)
    config = llama_config(tie_word_embeddings=tied, vocab_size=VOCABULARY, num_hidden_layers=1)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    model.model.norm.weight = mx.random.normal((WIDTH,))
    model.set_dtype(dtype)
    if quantized:
        nn.quantize(model, group_size=32, bits=4)
    mx.eval(model.parameters())
    return Blocks(model).head


def drawn(dtype: mx.Dtype = mx.float32) -> tuple[mx.array, mx.array]:
    mx.random.seed(1)
    hidden, targets = 3 * mx.random.normal((N, WIDTH)), mx.random.randint(0, VOCABULARY, (N,))
    mx.eval(hidden, targets)
    return hidden.astype(dtype), targets


def plain_loss(head, hidden: mx.array, targets: mx.array) -> mx.array:
    return nn.losses.cross_entropy(head(hidden).astype(mx.float32), targets, reduction="sum")


@pytest.mark.parametrize("chunk", [1, 16, 36, 37, 512])
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_loss_and_gradient_are_those_of_full_logits(tied, quantized, chunk):
    head = head_of(tied, quantized)
    hidden, targets = drawn()
    loss, slope = mx.value_and_grad(lambda h: completion_loss(head, h, targets, chunk))(hidden)
    expected, expected_slope = mx.value_and_grad(lambda h: plain_loss(head, h, targets))(hidden)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert worst_error({"h": slope}, {"h": expected_slope}) < 1e-5
    assert loss_sum(head, hidden, targets, chunk).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_gradient_is_scaled_by_what_is_computed_from_the_loss():
    head = head_of(tied=True, quantized=False)
    hidden, targets = drawn()
    slope = mx.grad(lambda h: mx.square(0.01 * completion_loss(head, 2 * h, targets, 8)))(hidden)
    expected = mx.grad(lambda h: mx.square(0.01 * plain_loss(head, 2 * h, targets)))(hidden)
    assert worst_error({"h": slope}, {"h": expected}) < 1e-5


def test_in_bfloat16_the_loss_keeps_float32_sums_and_the_gradient_is_right_to_two_percent():
    """Logits and slopes are bfloat16 there (8 bits, 0.4 % each), as the model computes them; the sums are not."""
    head = head_of(tied=True, quantized=False, dtype=mx.bfloat16)
    hidden, targets = drawn(mx.bfloat16)
    loss, slope = loss_and_gradient(head, hidden, targets, 16)
    assert loss.dtype == mx.float32
    assert slope.dtype == mx.bfloat16
    assert loss.item() == pytest.approx(plain_loss(head, hidden, targets).item(), rel=1e-5)  # of the same logits
    exact = head_of(tied=True, quantized=False)
    h32, t = drawn()
    expected, expected_slope = mx.value_and_grad(lambda h: plain_loss(exact, h, t))(h32)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    assert worst_error({"h": slope}, {"h": expected_slope}) < 0.02


@pytest.mark.parametrize("vocabulary", [3, 511, 512, 513, 50000])
def test_logsumexp_keeps_its_digits_over_large_vocabularies(vocabulary):
    logits = np.random.default_rng(0).normal(0, 3, (4, vocabulary)).astype(np.float32) + 50
    wide = logits.astype(np.float64)
    expected = np.log(np.exp(wide - 50).sum(axis=-1)) + 50
    assert np.array(logsumexp(mx.array(logits))) == pytest.approx(expected, rel=1e-6)
