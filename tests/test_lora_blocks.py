"""A model taken apart gives what the whole model gives. The tiny models of the other tests of this room stand here."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from fixtures_lora import VOCABULARY, tiny_llama, tiny_model
from mlx_lm.models import llama

from callwright.lora.blocks import Blocks
from callwright.runtime.errors import CallwrightError


@pytest.fixture(params=["llama", "llama quantized", "gemma", "gemma quantized"])
def model(request, tmp_path) -> nn.Module:
    return tiny_model(request.param, tmp_path)


def test_blocks_run_one_by_one_give_the_models_logits(model):
    tokens = mx.array(np.random.default_rng(0).integers(1, VOCABULARY, (2, 100)))
    blocks = Blocks(model)
    h, calls = blocks.enter(tokens)
    h = blocks.run(h, calls, 0, 3)
    h = blocks.run(h, calls, 3, len(blocks))
    logits = blocks.head(h.reshape(200, -1)).reshape(2, 100, -1)
    assert mx.abs(logits - model(tokens)).max().item() < 1e-5 * mx.abs(logits).max().item()


def test_the_model_is_whole_again_after_it_was_entered_or_its_head_failed(model):
    tokens = mx.arange(1, 20)[None]
    before = model(tokens)
    blocks = Blocks(model)
    blocks.enter(tokens)
    with pytest.raises((ValueError, RuntimeError)):
        blocks.head(mx.zeros((2, 3)))
    assert mx.array_equal(model(tokens), before)


def test_a_model_without_a_list_of_blocks_is_refused():
    model = tiny_llama()

    class Wrapped(nn.Module):
        model_type = "wrapped"

        @property
        def layers(self):
            return [nn.Linear(4, 4)]

    assert len(Blocks(model)) == 4
    with pytest.raises(CallwrightError, match="'wrapped': no list of blocks found"):
        Blocks(Wrapped())


def test_a_model_whose_blocks_see_more_than_their_arguments_is_refused():
    class Echo(llama.LlamaModel):
        """Adds the embedding once more between the blocks, which no block is told."""

        def __call__(self, inputs, *args, **kwargs):
            h = self.embed_tokens(inputs)
            for layer in self.layers:
                h = layer(h, "causal") + self.embed_tokens(inputs)
            return self.norm(h)

    model = tiny_llama()
    model.model.__class__ = Echo
    with pytest.raises(CallwrightError, match="give other logits"):
        Blocks(model)
