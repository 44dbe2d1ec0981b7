"""A sentence encoder small enough for tests, and what tokenizes for it: words by their letters' sum."""

import re
from types import SimpleNamespace

import mlx.core as mx

from callwright.models.encoder_heads import EncoderHeads
from callwright.models.sentence_encoder import SentenceEncoder


class Words:
    """Stands for a `tokenizers.Tokenizer`: one id a word, the same for the same one; 99 closes a text alone."""

    def encode_batch(self, texts):
        return [SimpleNamespace(ids=[1 + sum(map(ord, word)) % 97 for word in text.split()]) for text in texts]

    def encode(self, text):
        (found,), places = self.encode_batch([text]), [match.span() for match in re.finditer(r"\S+", text)]
        return SimpleNamespace(ids=[*found.ids, 99], offsets=[*places, (0, 0)])


def make_encoder(seed=0):
    mx.random.seed(seed)
    encoder = SentenceEncoder(width=16, heads=2, blocks=2, inner=24, vocabulary=100, positions=32)
    mx.eval(encoder.parameters())
    return encoder


def make_heads(seed=0):
    mx.random.seed(seed)
    heads = EncoderHeads(16)
    mx.eval(heads.parameters())
    return heads
