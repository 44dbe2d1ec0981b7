"""The sentence encoder against a plain twin, what is done about files that are not there, and the model itself."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from fixtures_encoder import make_encoder

from callwright.models import sentence_encoder
from callwright.models.cpu_math import gelu, softmax
from callwright.models.sentence_encoder import FILES, TOKENIZER, fetched, open_encoder
from callwright.runtime.errors import CallwrightError


def normalized(x, layer):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return x * np.array(layer.weight) + np.array(layer.bias)


def linear(x, layer):
    return x @ np.array(layer.weight).T + np.array(layer.bias)


def twin(encoder, ids):
    """One text, head by head, in float64: BERT as its paper has it, GELU with erf."""
    x = np.array(encoder.word.weight)[ids] + np.array(encoder.position.weight)[: len(ids)]
    x = normalized((x + np.array(encoder.token_type.weight)[0]).astype(np.float64), encoder.norm)
    for block in encoder.layers:
        q, k, v = (linear(x, part) for part in (block.query, block.key, block.value))
        heads = []
        for one in np.split(np.arange(q.shape[1]), block.heads):
            scores = q[:, one] @ k[:, one].T / math.sqrt(len(one))
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, one])
        x = normalized(x + linear(np.concatenate(heads, axis=1), block.out), block.out_norm)
        inner = linear(x, block.up)
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        x = normalized(x + linear(inner, block.down), block.down_norm)
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_texts_get_the_vectors_of_the_plain_twin_whatever_stands_beside_them(monkeypatch):
    encoder = make_encoder()
    texts = [[4, 9, 2], [7], [5, 6, 40, 7, 8, 1, 2, 3, 9], [99, 98]]
    expected = np.stack([twin(encoder, ids) for ids in texts])
    assert np.array(encoder.encode(texts)) == pytest.approx(expected, abs=5e-3)  # the GELUs differ
    exact = np.array(encoder.encode(texts))
    monkeypatch.setattr(sentence_encoder, "TOGETHER", 1)  # one by one
    assert np.array(encoder.encode(texts)) == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize(("ours", "plain"), [(gelu, nn.gelu_approx), (softmax, lambda x: mx.softmax(x, axis=-1))])
def test_fast_functions_and_their_gradients_are_those_of_mlx(ours, plain):
    x = 3 * mx.random.normal((5, 7, 11), key=mx.random.key(3))
    wanted = mx.random.normal(x.shape, key=mx.random.key(4))
    for function in (ours, plain):
        value, gradient = mx.value_and_grad(lambda x: (function(x) * wanted).sum())(x)  # noqa: B023
        if function is ours:
            found = function(x), value.item(), gradient
    assert np.array(found[0]) == pytest.approx(np.array(plain(x)), abs=1e-6)
    assert found[1] == pytest.approx(value.item(), abs=1e-4)
    assert np.array(found[2]) == pytest.approx(np.array(gradient), abs=1e-5)


def test_what_cannot_be_fetched_or_read_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def nowhere(source, folder, kept):
        raise CallwrightError("no place has it")

    monkeypatch.setattr(sentence_encoder, "fetch_file", nowhere)
    with pytest.raises(CallwrightError, match="could not be fetched: no place has it. Connect to the network, or do "):
        fetched()
    assert not list((tmp_path / "callwright").iterdir())
    folder = tmp_path / "callwright" / sentence_encoder.NAME
    folder.mkdir()
    for name, (_, size) in FILES.items():
        (folder / name).write_bytes(b" " * size)
    with pytest.raises(CallwrightError, match="does not hold all-MiniLM-L6-v2 .*remove it, to fetch it anew"):
        open_encoder()


def test_the_real_one_puts_what_means_the_same_together():
    encoder, tokenizer = open_encoder()
    texts = ["My heating is broken.", "The radiator stays cold.", "I would like to pay my bill."]
    vectors = np.array(encoder.encode([found.ids for found in tokenizer.encode_batch(texts)]))
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.15
    assert (fetched() / TOKENIZER).is_file()
    assert len(tokenizer.encode("word " * 500).ids) == sentence_encoder.LONGEST
