"""benchmarks/markers.py: the head's rows of marker tokens are trained as autograd would, and all of it runs."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from fixtures_lora import one_batch, records_of, training_settings, with_adapter, worst_error
from fixtures_markers import convert_borrowing, make_base
from fixtures_records import example
from fixtures_shapes import MAKE

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import markers
from marker_head import ROWS, MarkerBackend, put_head_rows

from callwright.chat.call_format import form_of
from callwright.chat.formats import encode_calls
from callwright.lora import layers
from callwright.lora.autograd import AutogradBackend, frozen_blocks
from callwright.lora.batches import to_records
from callwright.lora.cpu.path import CpuBackend
from callwright.models.load import load_tokenizer
from callwright.runtime import device
from callwright.runtime.files import read_json, read_jsonl

pytestmark = pytest.mark.skipif(not device.on_cpu(), reason="this path is for the CPU alone")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    base = make_base(tmp_path_factory.mktemp("base") / "source", quantize=False)
    return convert_borrowing(base, tmp_path_factory.mktemp("model") / "mlx")


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """Twenty requests with a call and ten without."""
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    examples = [example(number, city=city) for number, city in enumerate(["Rome", "Lima"] * 10)]
    examples += [dataclasses.replace(example(number), calls=[], tags=("abstain:no_tool",)) for number in range(20, 30)]
    path.write_text("".join(json.dumps(one.to_row()) + "\n" for one in examples))
    return path


@pytest.mark.parametrize("kind", MAKE)
def test_the_gradient_of_marker_rows_is_autograds(kind):
    """Where the head is tied, its rows differ from the embedding's; a chunk is smaller than a group of records."""
    settings = training_settings(loss_chunk=4)
    batch = one_batch(records_of([17, 40, 2, 30]))
    ids = mx.array(sorted(set(batch.targets.tolist()))[3:6:2] + [1])  # the last is no target
    assert 1 not in batch.targets.tolist()
    plain = MAKE[kind]()
    adapter = with_adapter(plain, settings)
    rows = 0.3 * mx.random.normal((3, plain.model.embed_tokens.weight.shape[1]), key=mx.random.key(5))
    put_head_rows(plain, ids, rows)
    name = f"{markers.blockwise.matrices(plain)[-1]}.rows"
    assert layers.adapter_parameters(plain).keys() == {*adapter, name}
    expected, gradients = AutogradBackend(plain, settings, frozen_blocks(plain)).loss_and_gradients(
        {**adapter, name: rows}, [batch], None
    )
    gradients[ROWS] = gradients.pop(name)

    written_out = MAKE[kind]()
    with_adapter(written_out, settings)
    path = MarkerBackend(CpuBackend(written_out, settings, frozen_blocks(written_out)), ids)
    embedding = path.backend.embedding.copy()
    for _ in range(2):  # nothing is left behind
        loss, found = path.loss_and_gradients({**adapter, ROWS: rows}, [batch], None)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert worst_error(found, gradients) < 1e-5
    assert np.array_equal(path.backend.embedding, embedding)
    path.close()


@pytest.mark.slow
def test_all_of_it_runs(model, records, tmp_path, capsys):
    out = tmp_path / "bench.json"
    sizes = {"seconds": 1, "items": 6, "validation": 3, "limit": 40, "batch-size": 4, "layers": 2, "rows-rate": 20}
    options = {"model": model, "records": records, "out": out, "learning-rate": 0.01, **sizes}
    markers.main([text for key, value in options.items() for text in (f"--{key}", str(value))])
    found = read_json(out)["ways"]
    assert list(found) == list(markers.WAYS)
    for way, result in found.items():
        assert result["steps"] == len(result["losses"]) >= 1
        assert result["seconds"] >= 1
        assert result["after"]["loss"] < result["before"]["loss"]
        assert ("markers" in result["before"]["kinds"]) == (way != "fenced")
        assert [result["after"]["right"][name]["n"] for name in ("calls", "none")] == [4, 2]
    assert found["borrowed"]["before"]["kinds"]["markers"] != found["trained"]["before"]["kinds"]["markers"]
    said = {way: list(read_jsonl(tmp_path / "bench" / way / "before.jsonl")) for way in found}
    assert [row["text"] for row in said["fenced"]] == [row["text"] for row in said["trained"]]
    trained = mx.load(str(tmp_path / "bench" / "trained" / f"{ROWS}.safetensors"))
    own = mx.load(str(model / "marker_rows.safetensors"))
    assert mx.array_equal(trained["ids"], own["ids"])
    assert trained["rows"].shape == own["model.embed_tokens.original"].shape
    assert not mx.allclose(trained["rows"], own["model.embed_tokens.original"], atol=0.01)
    last = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert len(last) == 1 + 2 * len(found)
    assert last[0].split()[-2:] == ["lenient", "none"]

    # What answers is what was trained: the training path has the loss of the model that was opened again.
    given = argparse.Namespace(records=records, max_tokens=1024, validation=3, items=6)
    _, rows = markers.read_data(given, load_tokenizer(model))
    settings = training_settings({"rank": 16, "layers": 2})
    opened, _ = markers.opened(model, markers.WAYS["trained"])
    layers.attach(opened, settings["lora"])
    path = MarkerBackend(CpuBackend(opened, settings, frozen_blocks(opened)), own["ids"])
    adapter = mx.load(str(tmp_path / "bench" / "trained" / layers.WEIGHTS)) | {ROWS: trained["rows"]}
    batch = one_batch(to_records(rows["valid"]["hermes"], "validation"))
    loss, _ = path.loss_and_gradients(adapter, [batch], None)
    assert loss / batch.trained == pytest.approx(found["trained"]["after"]["loss"], rel=1e-4)
    path.close()


def test_fences_are_read_as_strictly_as_blocks(model):
    form = form_of(load_tokenizer(model), "fenced")
    calls = [{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {}}]
    fenced = encode_calls(calls, "fenced")
    assert markers.as_served(fenced, [], form) == encode_calls(calls)
    for text in (fenced.removesuffix("]\n```"), fenced.replace("1", "NaN"), "I cannot.", json.dumps(calls)):
        assert markers.as_served(text, [], form) == text
