"""Loss and gradients by autograd, with chunks, trunk cache and recomputation, against the model called as a whole."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from test_lora_blocks import (
    one_batch,
    tiny_llama,
    tiny_model,
    token_rows,
    training_settings,
    with_adapter,
    worst_error,
)

from callsmith.lora import random_state, recompute
from callsmith.lora.autograd import Autograd, frozen_blocks
from callsmith.lora.batches import Batch, to_records
from callsmith.lora.trunk import Trunk
from callsmith.runtime.errors import CallsmithError

# Ragged, and longer than the window of the tiny Gemma.
ROWS = token_rows([9, 40, 150])
RECORDS = to_records(ROWS, "training")


def plain_loss_and_gradients(model: nn.Module, adapter: dict[str, mx.array], batch: Batch):
    """The model's own logits of all positions; the mask comes from the rows' spans, not from the batch."""
    mask = np.zeros((len(batch.records), batch.width), np.float32)
    for row, index in zip(mask, batch.indices, strict=True):
        for begin, end in ROWS[index]["spans"]:
            row[begin:end] = 1

    def loss(adapter):
        model.update(tree_unflatten(list(adapter.items())))
        logits = model(batch.tokens)[:, :-1].astype(mx.float32)
        return mx.sum(nn.losses.cross_entropy(logits, batch.tokens[:, 1:]) * mx.array(mask[:, 1:]))

    total, gradients = mx.value_and_grad(loss)(adapter)
    model.update(tree_unflatten(list(adapter.items())))
    return total.item(), gradients


@pytest.mark.parametrize(
    ("kind", "count"), [("llama", 2), ("llama", -1), ("llama quantized", 2), ("gemma", 2), ("gemma quantized", -1)]
)
def test_loss_and_gradients_are_those_of_the_whole_model(kind, count, tmp_path):
    settings = training_settings({"layers": count})
    model = tiny_model(kind, tmp_path)
    adapter = with_adapter(model, settings)
    batch = one_batch(RECORDS)
    expected, expected_gradients = plain_loss_and_gradients(model, adapter, batch)
    cut = frozen_blocks(model)
    assert cut == (0 if count == -1 else 2)
    frozen = {name: a for name, a in tree_flatten(model.parameters()) if name not in adapter}
    before = {name: np.array(a) for name, a in frozen.items()}

    computed = Autograd(model, settings, cut)
    cache = Trunk(computed.trunk, RECORDS, computed.width, computed.dtype) if cut else None
    for trunk in (None, cache, cache):  # the cache is empty, then full
        loss, gradients = computed.loss_and_gradients(adapter, [batch], trunk)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert worst_error(gradients, expected_gradients) < 1e-4
        assert computed.loss(adapter, [batch], trunk) == pytest.approx(expected, rel=1e-5)

    after = dict(tree_flatten(model.parameters()))
    assert after.keys() == before.keys() | adapter.keys()
    assert all(np.array_equal(np.array(after[name]), value) for name, value in before.items())


def test_batches_add_up_whatever_their_composition(tmp_path):
    settings = training_settings()
    model = tiny_model("gemma", tmp_path)
    adapter = with_adapter(model, settings)
    computed = Autograd(model, settings, frozen_blocks(model))
    loss, gradients = computed.loss_and_gradients(adapter, [one_batch(RECORDS)], None)
    alone = [Batch([i], [record], record.length + 5) for i, record in enumerate(RECORDS)]
    total, summed = computed.loss_and_gradients(adapter, alone, None)
    assert total == pytest.approx(loss, rel=1e-5)
    assert worst_error(summed, gradients) < 1e-4


@pytest.mark.parametrize(
    ("kind", "policy", "dropout"),
    [("llama", "all", 0.0), ("llama", "all", 0.4), ("llama", 2, 0.4), ("gemma quantized", 2, 0.0)],
)
def test_recomputed_blocks_give_the_same_gradients(kind, policy, dropout, tmp_path):
    """With dropout the second forward pass must draw the masks of the first, and leave later draws as they are."""
    batch, found = one_batch(RECORDS), []
    for recomputed in ("off", policy):
        settings = training_settings({"layers": 3, "dropout": dropout}, recompute=recomputed)
        model = tiny_model(kind, tmp_path)
        adapter = with_adapter(model, settings)
        computed = Autograd(model, settings, frozen_blocks(model))
        mx.random.seed(11)
        loss, gradients = computed.loss_and_gradients(adapter, [batch], None)
        found.append((loss, gradients, random_state.get()))
    (loss, gradients, state), (loss2, gradients2, state2) = found
    assert loss2 == pytest.approx(loss, rel=1e-6)
    assert worst_error(gradients2, gradients) < 1e-5
    assert state2 == state


def test_dropout_is_off_for_validation():
    settings = training_settings({"dropout": 0.5})
    model = tiny_llama()
    adapter = with_adapter(model, settings)
    computed = Autograd(model, settings, frozen_blocks(model))
    batch = one_batch(RECORDS)
    expected, _ = plain_loss_and_gradients(model.eval(), adapter, batch)
    assert computed.loss_and_gradients(adapter, [batch], None)[0] != pytest.approx(expected, rel=1e-4)
    assert computed.loss(adapter, [batch], None) == pytest.approx(expected, rel=1e-5)


def test_recompute_policies_choose_blocks_from_the_lowest():
    assert recompute.chosen("off", 4) == recompute.chosen(False, 4) == [False] * 4
    assert recompute.chosen("all", 3) == recompute.chosen(True, 3) == recompute.chosen(1, 3) == [True] * 3
    assert recompute.chosen(2, 5) == [True, False, True, False, True]
    assert recompute.chosen(9, 3) == [True, False, False]


@pytest.mark.parametrize("policy", ["some", -1, "2"])
def test_an_unknown_recompute_policy_is_refused(policy):
    with pytest.raises(CallsmithError, match=r"training\.recompute is"):
        recompute.chosen(policy, 4)


def test_the_random_state_can_be_kept_and_put_back():
    mx.random.seed(2**63 + 12345)
    mx.random.normal((3,))
    kept = random_state.get()
    first = mx.random.normal((5,)).tolist()
    mx.random.seed(0)
    random_state.put(kept)
    assert random_state.get() == kept
    assert mx.random.normal((5,)).tolist() == first
