"""The chunked loss and its gradient against cross-entropy over all logits at once."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from fixtures_lora import llama_config, one_batch, training_settings, with_adapter, worst_error
from mlx.utils import tree_unflatten
from mlx_lm.models import llama

from callwright.lora.autograd import AutogradBackend
from callwright.lora.batches import to_records
from callwright.lora.blocks import Blocks
from callwright.lora.loss import adapted_loss, completion_loss, logsumexp, loss_and_gradient, loss_sum
from callwright.lora.lowrank import wrap

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


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("place", ["linear", "embedding"])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapted_head_gets_the_gradients_of_full_logits(kind, place, quantized, dropout):
    """With dropout in one chunk, where the masks drawn are those of the plain head; the frozen weight gets nothing."""
    mx.random.seed(0)
    frozen = nn.Linear(WIDTH, VOCABULARY, bias=False) if place == "linear" else nn.Embedding(VOCABULARY, WIDTH)
    layer = wrap(frozen.to_quantized(group_size=32, bits=4) if quantized else frozen, kind, 4, 2.0, dropout)
    layer.lora_b = 0.1 * mx.random.normal(layer.lora_b.shape)
    parameters = {name: layer[name] for name in ("lora_a", "lora_b", "m") if name in layer}

    def head(hidden, parameters):
        layer.update(parameters)
        return layer(hidden) if place == "linear" else layer.as_linear(hidden)

    hidden, targets = drawn()
    found = []
    for chunk in (37,) if dropout else (1, 16, 37):
        mx.random.seed(5)
        loss = mx.value_and_grad(lambda h, p, c=chunk: 0.5 * adapted_loss(head, h, p, targets, c), argnums=(0, 1))
        found.append(loss(hidden, parameters))
    mx.random.seed(5)
    plain = mx.value_and_grad(lambda h, p: 0.5 * plain_loss(lambda h: head(h, p), h, targets), argnums=(0, 1))
    expected, (slope, slopes) = plain(hidden, parameters)
    for loss, (dh, dp) in found:
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert worst_error({"h": dh, **dp}, {"h": slope, **slopes}) < 1e-5


# -- memory ----------------------------------------------------------------------------------------

BIG, NARROW, CHUNK, ALL = 40_000, 128, 4, 32  # a head of 20 MB; the logits of a chunk take 0.64 MB


def above(function) -> float:
    """By how many bytes the peak of MLX's arrays rises while `function`'s result is computed."""
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(function())
    return mx.get_peak_memory() - before


def big_head(tied: bool, quantized: bool):
    config = llama_config(tie_word_embeddings=tied, vocab_size=BIG, hidden_size=NARROW, num_hidden_layers=1)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    if quantized:
        nn.quantize(model, group_size=32, bits=4)
    mx.eval(model.parameters())
    return Blocks(model).head


@pytest.mark.slow
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_nothing_of_vocabulary_size_but_a_chunks_logits_is_held(tied, quantized):
    """No gradient of the frozen head (20 MB), no weight dequantized, no logits of all chunks: a few times 0.64 MB."""
    head = big_head(tied, quantized)
    hidden, targets = mx.random.normal((ALL, NARROW)), mx.random.randint(0, BIG, (ALL,))
    mx.eval(hidden, targets)
    logits = CHUNK * BIG * 4
    peaks = [above(lambda c=c: mx.grad(lambda h: completion_loss(head, h, targets, c))(hidden)) for c in (CHUNK, ALL)]
    assert peaks[0] < 6 * logits < 0.2 * BIG * NARROW * 4
    assert peaks[1] > 3 * peaks[0]  # it is the chunk that counts
    assert above(lambda: mx.grad(lambda h: plain_loss(head, h, targets))(hidden)) > 4 * peaks[0]
    assert above(lambda: loss_sum(head, hidden, targets, CHUNK)) < 6 * logits


def test_an_adapted_heads_gradients_are_of_its_rank_not_of_its_width():
    layer = wrap(nn.Embedding(BIG, NARROW), "dora", rank=2, scale=2.0)
    layer.freeze()
    mx.eval(layer.parameters(), layer._squares)
    parameters = {name: layer[name] for name in ("lora_a", "lora_b", "m")}
    hidden, targets = mx.random.normal((ALL, NARROW)), mx.random.randint(0, BIG, (ALL,))
    mx.eval(hidden, targets)

    def head(hidden, parameters):
        layer.update(parameters)
        return layer.as_linear(hidden)

    gradients = mx.grad(lambda h, p: adapted_loss(head, h, p, targets, CHUNK), argnums=(0, 1))
    assert above(lambda: gradients(hidden, parameters)) < 0.5 * BIG * NARROW * 4


def test_the_peak_stays_flat_as_prompts_grow_at_a_fixed_answer_length():
    """One trained block of width 32 under a head of 40,000 words: logits of all positions take 8 times as much."""
    config = llama_config(
        vocab_size=BIG, hidden_size=32, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
    )
    peaks, plain = [], []
    for prompt in (32, 96, 160):
        model = llama.Model(llama.ModelArgs.from_dict(config))
        settings = training_settings({"layers": 1}, loss_chunk=32)
        adapter = with_adapter(model, settings)
        row = {"id": "a", "input_ids": list(range(1, prompt + 33)), "spans": [[prompt, prompt + 32]]}
        batch = one_batch(to_records([row], "training"))
        computed = AutogradBackend(model, settings, 0)
        peaks.append(above(lambda c=computed, a=adapter, b=batch: c.loss_and_gradients(a, [b], None)[1]))
        tokens = batch.tokens

        def whole(adapter, model=model, tokens=tokens):
            model.update(tree_unflatten(list(adapter.items())))
            return nn.losses.cross_entropy(model(tokens)[0, -33:-1], tokens[0, -32:], reduction="sum")

        plain.append(above(lambda f=whole, a=adapter: mx.grad(f)(a)))
    assert max(peaks) < 2.5 * 32 * BIG * 4  # the logits of the answer, and their gradient
    assert plain[2] > 2 * plain[0]
    assert plain[2] > 5 * max(peaks)


# -- precision -------------------------------------------------------------------------------------


def test_in_bfloat16_the_loss_keeps_float32_sums_and_the_gradient_is_right_to_two_percent():
    """mlx-lm rounds the loss itself to bfloat16. Here logits and slopes are (8 bits, 0.4 % each), but not the sums."""
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


@pytest.mark.parametrize("vocabulary", [3, 511, 512, 513, 2027, 50000])
def test_logsumexp_keeps_its_digits_over_large_vocabularies(vocabulary):
    logits = np.random.default_rng(0).normal(0, 3, (4, vocabulary)).astype(np.float32) + 50
    wide = logits.astype(np.float64)
    expected = np.log(np.exp(wide - 50).sum(axis=-1)) + 50
    assert np.array(logsumexp(mx.array(logits))) == pytest.approx(expected, rel=1e-6)
