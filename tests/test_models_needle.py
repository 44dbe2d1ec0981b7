"""Needle in MLX: against plain NumPy on a small model, with caches, in batches, taken apart for training."""

import json
import logging
import shutil
from pathlib import Path

import mlx.core as mx
import mlx_lm.utils
import numpy as np
import pytest
from fixtures_lists import rows_of
from fixtures_lora import Interrupted, interrupt, training_settings
from fixtures_needle import SIZES, NumpyNeedle, write_cact
from mlx_lm.models.cache import make_prompt_cache
from transformers import AutoTokenizer

from callwright.chat.call_format import form_of
from callwright.chat.tokens import texts_of
from callwright.decoding.decode import greedy
from callwright.decoding.engine import Request
from callwright.decoding.engines import MlxLmEngine
from callwright.lora import layers, loop
from callwright.lora.autograd import AutogradBackend
from callwright.lora.batches import Batch, Record
from callwright.lora.blocks import Blocks
from callwright.lora.frozen_prefix import FrozenPrefix
from callwright.lora.sharing import with_beginnings
from callwright.models import needle
from callwright.models.convert import convert, open_tokenizer
from callwright.models.cpu_math import fast_inference
from callwright.models.fetch import fetch
from callwright.models.load import load, load_tokenizer, open_model, own_types_are_no_surprise
from callwright.models.needle import sinkhorn
from callwright.models.needle_folder import convert_cact

TOOL = {
    "type": "function",
    "function": {
        "name": "find", "description": "Finds things",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
    },
}  # fmt: skip
TOKENS = np.random.default_rng(3).integers(4, SIZES["vocab"], 23).tolist()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(converted folder, the model in it, the same in NumPy)."""
    folder = tmp_path_factory.mktemp("needle")
    twin = NumpyNeedle(write_cact(folder / "small.cact"))
    convert_cact(folder / "small.cact", folder)
    model, _ = load(folder)
    return folder, model, twin


def close(found: mx.array, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    """Assert that the logits agree within `tolerance` of their largest."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.array(found) / scale, expected / scale, atol=tolerance, rtol=0)


def test_logits_are_those_of_plain_numpy(small):
    _, model, twin = small
    expected = twin.logits(TOKENS)
    assert np.abs(expected).max() > 1
    close(model(mx.array([TOKENS]))[0], expected)


def test_each_part_of_the_architecture_matters(small):
    """A twin that leaves a part out differs, so that the comparison above sees each of them."""
    _, model, twin = small
    expected = twin.logits(TOKENS)
    for change in (
        {"window": 50}, {"theta": 1000.0}, {"dilation": 2}, {"memory_layers": ()}, {"taps": 2}, {"memory_taps": 3},
        {"orders": (2, 2)},
    ):  # fmt: skip
        other = NumpyNeedle(twin.w, {**SIZES, **change}).logits(TOKENS)
        assert np.abs(other - expected).max() > 1e-3 * np.abs(expected).max(), change


@pytest.mark.parametrize("parts", [[23], [1] * 23, [10, 1, 1, 8, 3], [2, 21]])
def test_with_a_cache_the_logits_are_the_same(small, parts):
    _, model, _ = small
    cache, found, at = make_prompt_cache(model), [], 0
    for size in parts:
        found.append(model(mx.array([TOKENS[at : at + size]]), cache=cache))
        at += size
    close(mx.concatenate(found, axis=1)[0], np.array(model(mx.array([TOKENS]))[0]))


def test_padding_on_the_right_changes_nothing_before_it(small):
    _, model, _ = small
    padded = model(mx.array([TOKENS[:9] + [0] * 14, TOKENS]))
    close(padded[0, :9], np.array(model(mx.array([TOKENS[:9]]))[0]))


def alone(model, prompt: list[int], count: int) -> list[int]:
    """The likeliest continuation, computed anew from all tokens each time."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(mx.argmax(model(mx.array([tokens]))[0, -1]).item()))
    return tokens[len(prompt) :]


def test_a_batch_by_mlx_lm_continues_each_prompt_as_if_alone(small):
    _, model, _ = small
    prompts = [TOKENS, TOKENS[:1], TOKENS[5:17], TOKENS[2:4]]
    engine = MlxLmEngine(model, set(), len(prompts))
    requests = [Request(prompt, 8) for prompt in prompts]
    for request in requests:
        engine.submit(request)
    while engine.busy:
        engine.advance()
    engine.close()
    assert [request.ids for request in requests] == [alone(model, prompt, 8) for prompt in prompts]


def test_answers_of_ours_are_those_too_and_end_where_they_should(small):
    _, model, _ = small
    prompts = [TOKENS, TOKENS[:1], TOKENS[5:17], TOKENS[2:4]]
    expected = [alone(model, prompt, 8) for prompt in prompts]
    stop = expected[0][3]
    for answer, ids in zip(greedy(model, prompts, 8, {stop}), expected, strict=True):
        assert answer.ids == (ids[: ids.index(stop)] if stop in ids else ids)


def test_the_fast_functions_for_the_cpu_compute_the_same(small):
    _, model, twin = small
    with fast_inference(model):
        close(model(mx.array([TOKENS]))[0], twin.logits(TOKENS))


def test_sinkhorn_survives_logits_beyond_the_exponents_of_float32(small):
    _, model, _ = small
    logits = mx.array(np.random.default_rng(0).normal(0, 80, (7, 4, 4)), mx.float32)
    exact = np.array(logits, np.float64)
    for _ in range(20):
        for axis in (-1, -2):
            exact -= exact.max(axis, keepdims=True)
            exact -= np.log(np.exp(exact).sum(axis, keepdims=True))
    np.testing.assert_allclose(np.array(sinkhorn(logits)), np.exp(exact), atol=1e-5)
    with fast_inference(model):
        np.testing.assert_allclose(np.array(needle.sinkhorn(logits, 20)), np.exp(exact), atol=1e-5)


def test_blocks_run_one_by_one_give_the_models_logits(small):
    _, model, _ = small
    blocks = Blocks(model)  # it raises where they differ
    entry, _ = blocks.enter(mx.array([TOKENS]))
    assert entry.shape == (1, 23, SIZES["width"] * SIZES["lanes"])


def test_gradients_of_an_adapter_are_what_differences_say(small, tmp_path):
    """In float32, of a loss in which all projections of the upper two blocks have an adapter."""
    folder, _, _ = small
    model, _ = load(folder)
    projections = ["q_proj", "k_proj", "v_proj", "gate_proj", "out_proj"]
    settings = {"rank": 2, "scale": 1.0, "dropout": 0.0, "layers": 2, "projections": projections}
    mx.random.seed(0)
    assert layers.attach(model, settings) == sorted(f"self_attn.{name}" for name in projections)
    adapter = {name: mx.random.normal(a.shape) * 0.05 for name, a in layers.adapter_parameters(model).items()}
    assert len(adapter) == 2 * 2 * 5
    for checkpointing in ("off", "all"):
        backend = AutogradBackend(model, {"loss_chunk": 64, "gradient_checkpointing": checkpointing}, 1)
        batch = Batch([0], [Record("a", np.array(TOKENS, np.int32), np.arange(8, 22, dtype=np.int32))], 32)
        loss, gradients = backend.loss_and_gradients(adapter, [batch], None)
        assert loss == pytest.approx(backend.loss(adapter, [batch], None), rel=1e-5)
        for name, gradient in gradients.items():
            step = 2e-2 * gradient / mx.sqrt(mx.sum(gradient**2))
            up = backend.loss({**adapter, name: adapter[name] + step}, [batch], None)
            down = backend.loss({**adapter, name: adapter[name] - step}, [batch], None)
            assert (up - down) / 2 == pytest.approx(mx.sum(step * gradient).item(), rel=0.03), name


def test_the_frozen_prefix_gives_the_same_loss(small):
    folder, _, _ = small
    model, _ = load(folder)
    layers.attach(model, {"rank": 2, "scale": 1.0, "dropout": 0.0, "layers": 1, "projections": ["q_proj", "out_proj"]})
    backend = AutogradBackend(model, {"loss_chunk": 64, "gradient_checkpointing": "off"}, 2)
    record = Record("a", np.array(TOKENS, np.int32), np.arange(8, 22, dtype=np.int32))
    batch, adapter = Batch([0], [record], 32), layers.adapter_parameters(model)
    prefix = FrozenPrefix(backend, [record])
    assert backend.loss(adapter, [batch], prefix) == pytest.approx(backend.loss(adapter, [batch], None), rel=1e-5)


@pytest.mark.parametrize("trained", [1, 2])
@pytest.mark.parametrize("cached", [False, True], ids=["", "cached"])
def test_records_of_one_beginning_give_the_loss_and_gradients_that_they_give_alone(small, trained, cached):
    """Convolutions, memories and the window of five tokens reach from a record back into the beginning."""
    folder, _, _ = small
    model, _ = load(folder)
    lora = {"rank": 2, "scale": 1.0, "dropout": 0.0, "layers": trained, "projections": ["q_proj", "v_proj", "out_proj"]}
    layers.attach(model, lora)
    mx.random.seed(1)
    adapter = {name: mx.random.normal(a.shape) * 0.05 for name, a in layers.adapter_parameters(model).items()}
    backend = AutogradBackend(model, {"loss_chunk": 64, "gradient_checkpointing": "off"}, 3 - trained)
    assert backend.shares
    ends = ([5, 6, 7, 8, 9, 10], [5, 6, 11], [12])
    whole = [[*TOKENS, *end, 4, 3] for end in ends]
    records = [
        Record(str(n), np.array(t, np.int32), np.arange(24, len(t) - 1, dtype=np.int32)) for n, t in enumerate(whole)
    ]
    (begun,) = with_beginnings([records], 3)
    assert {record.beginning.length for record in begun} == {23}
    prefix = FrozenPrefix(backend, begun) if cached else None
    expected, gradients = backend.loss_and_gradients(adapter, [Batch([0, 1, 2], records, 32)], None)
    loss, found = backend.loss_and_gradients(adapter, [Batch([0, 1, 2], begun, 32)], prefix)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        assert mx.abs(found[name] - gradient).max().item() < 1e-5 * mx.abs(gradient).max().item() + 1e-7, name


def test_a_training_that_is_cut_off_twice_ends_with_the_same_bytes(small, tmp_path: Path, monkeypatch, caplog):
    """Requests under one list, with dropout, from snapshots of steps 1 and 2 of 4."""
    lists = [(12, [6, 4, 5, 7])]
    rows = {name: rows_of(lists, seed, SIZES["vocab"]) for seed, name in enumerate(("train_rows", "valid_rows"))}
    lora = {"layers": 1, "dropout": 0.2, "projections": ["q_proj", "out_proj"]}
    settings = training_settings(lora, iterations=4, snapshot_every=1, validate_every=2)

    def train(name: str) -> bytes:
        out = tmp_path / name / "adapter"
        loop.train(small[0], **rows, settings=settings, state_folder=out.parent, out_folder=out, fingerprint="a")
        return (out / layers.WEIGHTS).read_bytes()

    expected = train("whole")
    monkeypatch.setattr(logging.getLogger("callwright"), "propagate", True)
    interrupt(monkeypatch, 2, 4)  # after step 2, and after step 3 once it went on from 1
    for _ in range(2):
        with pytest.raises(Interrupted):
            train("cut")
    assert train("cut") == expected
    for step in (1, 2):
        assert f"continuing from the snapshot of step {step}" in caplog.text


def test_mlx_lm_opens_the_folder_with_the_module_in_it_and_only_when_trusted(small):
    folder, model, _ = small
    with pytest.raises(ValueError, match="trust_remote_code"):
        mlx_lm.utils.load_model(folder)
    theirs, _ = mlx_lm.utils.load_model(folder, trust_remote_code=True)
    close(theirs(mx.array([TOKENS]))[0], np.array(model(mx.array([TOKENS]))[0]))


def test_transformers_says_nothing_of_a_type_that_is_ours_and_all_of_others(small, tmp_path: Path, caplog):
    folder, _, _ = small
    logger = logging.getLogger("transformers.configuration_utils")
    logger.addHandler(caplog.handler)  # transformers' loggers do not hand records on
    try:
        AutoTokenizer.from_pretrained(folder)
        assert "model of type `needle3`" in caplog.text, "there is nothing to be silent about"
        caplog.clear()
        assert load_tokenizer(folder).get_vocab() == open_tokenizer(folder).get_vocab()
        assert caplog.text == ""
        with own_types_are_no_surprise():
            logger.warning("something about `needle3`")
        for path in folder.glob("*.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        config = json.loads((folder / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "needle4"}))
        load_tokenizer(tmp_path)
        assert "something about `needle3`" in caplog.text
        assert "model of type `needle4`" in caplog.text
        caplog.clear()
        AutoTokenizer.from_pretrained(folder)
        assert "model of type `needle3`" in caplog.text, "others' loading is not touched"
    finally:
        logger.removeHandler(caplog.handler)


def test_a_folder_of_it_is_a_source_too_and_gets_our_module(small, tmp_path: Path):
    folder, _, _ = small
    (tmp_path / "source").mkdir()
    for path in folder.iterdir():
        if path.suffix != ".cact":
            (tmp_path / "source" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "source/needle.py").write_text("raise RuntimeError('run')")
    fetch({"kind": "folder", "path": str(tmp_path / "source")}, tmp_path / "fetched")
    convert(tmp_path / "fetched", {"kind": "folder"}, tmp_path / "mlx")
    assert (tmp_path / "mlx/needle.py").read_text() == (folder / "needle.py").read_text()
    mlx_lm.utils.load_model(tmp_path / "mlx", trust_remote_code=True)


@pytest.mark.parametrize(("reasons", "form"), [(True, "json_tools+reasons"), (False, "json_tools")])
def test_a_folder_says_whether_reasons_are_written_before_calls(small, tmp_path: Path, reasons, form):
    folder, _, _ = small
    shutil.copytree(folder, tmp_path / "source")
    (tmp_path / "source/small.cact").unlink()
    path = tmp_path / "source/tokenizer_config.json"
    path.write_text(path.read_text().replace('"call_reasons": true', f'"call_reasons": {json.dumps(reasons)}'))
    assert convert(tmp_path / "source", {"kind": "folder"}, tmp_path / "mlx")["call_format"] == form
    tokenizer = load_tokenizer(tmp_path / "mlx")
    asked = {"messages": [{"role": "user", "content": "a tower"}], "tools": [TOOL]}
    call = {"name": "find", "arguments": {"what": "tower"}}
    written = [texts_of(tokenizer, {**asked, **more})[1] for more in ({"calls": [call]}, {"answer": "None here."})]
    calls = '<tool_call>[{"name":"find","arguments":{"what":"tower"}}]</tool_call>'
    if reasons:
        before = ["<think>\nfind with what 'tower' from query.\n</think>\n", "<think>\nNone here.\n</think>\n"]
    else:
        before = ["", "None here."]
    assert written == [before[0] + calls, before[1] + "<tool_call>[]</tool_call>"]
    read = [form_of(tokenizer).read(text, [TOOL]) for text in written]
    assert [(found.calls, found.content.strip()) for found in read] == [([call], ""), ([], "None here.")]


def test_no_code_of_a_folder_is_run(small, tmp_path: Path):
    folder, _, _ = small
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "needle.py").write_text("raise RuntimeError('run')")
    open_model(tmp_path)
