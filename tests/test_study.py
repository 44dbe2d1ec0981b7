"""The two configurations of the study: what they say, and a run of both on a tiny model of Gemma's architecture."""

import math

import mlx.core as mx
import orjson
import pytest
import yaml
from fixtures_gemma import make_gemma
from fixtures_lora import one_batch, token_rows, training_settings
from fixtures_workflow import checkout, snakemake, xlam_rows  # noqa: F401  (a fixture)
from mlx_lm.models.cache import RotatingKVCache, make_prompt_cache

from callwright.chat.formats import encode_calls
from callwright.chat.parse import parse_lenient, parse_native
from callwright.data.formats.xlam import to_example
from callwright.evals.scoring.score import score_all
from callwright.lora import layers
from callwright.lora.autograd import AutogradBackend, frozen_blocks
from callwright.lora.batches import to_records
from callwright.lora.blocks import Blocks
from callwright.lora.memory import forecast
from callwright.models.load import load, load_tokenizer
from callwright.report.summary import first_items
from callwright.runtime.config import merge, resolve
from callwright.runtime.files import read_json, read_jsonl

STUDY, ASIS = "gemma3-1b-xlam", "gemma3-1b-xlam-asis"
# The shape of gemma-3-1b-it-4bit, from its config.json.
GEMMA_1B = {
    "model_type": "gemma3_text", "hidden_size": 1152, "num_hidden_layers": 26, "intermediate_size": 6912,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6, "vocab_size": 262_144, "sliding_window": 512, "sliding_window_pattern": 6,
    "quantization": {"group_size": 64, "bits": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def configs(root):
    """Both, laid over config/config.yaml as Snakemake does and completed."""
    below = yaml.safe_load((root / "config" / "config.yaml").read_text())
    found = {}
    for name in (STUDY, ASIS):
        given = merge(below, yaml.safe_load((root / "config" / f"{name}.yaml").read_text()))
        found |= resolve(given, root / "workflow" / "schemas" / "config.schema.yaml")
    return found


def test_the_published_settings(configs):
    run = configs[STUDY]
    assert run["model"]["source"]["id"] == "mlx-community/gemma-3-1b-it-4bit"
    assert (run["data"]["source"], run["data"]["path"], run["data"]["examples"]) == ("xlam", None, 1000)
    assert (run["split"]["valid"], run["split"]["test"]) == (0.1, 0.1)
    assert {part: run[part]["seed"] for part in ("data", "split", "training")} == dict.fromkeys(
        ("data", "split", "training"), 42
    )
    training, lora = run["training"], run["training"]["lora"]
    assert (training["iterations"], training["batch_size"], training["learning_rate"]) == (500, 2, 1e-4)
    assert (training["schedule"], training["warmup"], training["accumulation"]) == ("constant", 0, 1)
    assert (lora["rank"], lora["scale"], lora["layers"], lora["projections"]) == (8, 20.0, 8, ["q_proj", "v_proj"])
    assert (run["evaluation"]["also_first"], run["evaluation"]["items"]) == (50, 100)


def test_the_other_configuration_differs_by_the_format_alone(configs):
    study, asis = configs[STUDY], configs[ASIS]
    assert (study["data"]["format"], asis["data"]["format"]) == ("hermes", "fenced_ids")
    asis["data"]["format"], asis["runs"] = study["data"]["format"], study["runs"]
    assert study == asis


def test_the_first_items_are_those_of_the_suites_order():
    examples = [to_example(str(number), row) for number, row in enumerate(xlam_rows(10))]
    answers = [
        {"id": e.id, "suite": "s", "condition": "base", "finish_reason": "stop", "text": text}
        for e in examples
        for text in [encode_calls(e.calls) if int(e.id) < 3 else "No."]
    ]
    rows = {"test_seen": {"base": score_all(examples, answers)}}
    assert first_items(None, rows) == {}
    found = first_items(5, rows)["first_items"]["test_seen"]["base"]
    assert (found["n"], found["counts"]["ast"], found["ast"]) == (5, 3, 0.6)
    assert first_items(50, rows)["first_items"]["test_seen"]["base"]["n"] == 10


# -- the full shape, without weights ----------------------------------------------------------------


def test_the_full_shape_fits_a_mac_of_16_gb(configs):
    """The forecast of a step of two records of 540 tokens, 130 of them trained, as xLAM's are on average."""
    training = configs[STUDY]["training"]
    found = {
        checkpointing: forecast.forecast(GEMMA_1B, {**training, "gradient_checkpointing": checkpointing}, 2, 540, 130)
        for checkpointing in ("off", "all")
    }
    assert found["off"]["weights"] == pytest.approx(0.56e9, rel=0.02)
    assert found["all"]["together"] < found["off"]["together"] < 2e9  # the manual gives them
    longest = configs[STUDY]["data"]["max_tokens"]
    assert forecast.forecast(GEMMA_1B, {**training, "gradient_checkpointing": "off"}, 2, longest, 256)["together"] < 6e9


# -- bfloat16 ---------------------------------------------------------------------------------------


def test_bfloat16_holds_activations_that_float16_does_not(tmp_path):
    """Gemma 3's residual stream outgrows float16; loss and gradients must stay finite and near those of float32."""
    found = {}
    for dtype in (mx.bfloat16, mx.float32):
        model, _ = load(make_gemma(tmp_path / str(dtype), dtype=dtype), dequantize=False)
        for block in model.layers:
            block.post_feedforward_layernorm.weight = mx.full((64,), 3e5, dtype)
        settings = training_settings({"projections": ["q_proj", "v_proj"]})
        layers.attach(model, settings["lora"])
        batch = one_batch(to_records(token_rows([90, 70]), "training"))
        blocks = Blocks(model)
        hidden, calls = blocks.enter(batch.tokens)
        assert mx.abs(blocks.run(hidden, calls, 0, len(blocks))).max().item() > 65504
        step = AutogradBackend(model, settings, frozen_blocks(model))
        found[dtype] = step.loss_and_gradients(layers.adapter_parameters(model), [batch], None)
        assert all(mx.isfinite(gradient).all().item() for gradient in found[dtype][1].values())
    assert found[mx.bfloat16][0] == pytest.approx(found[mx.float32][0], rel=0.02)


# -- both, through the workflow's own rules ---------------------------------------------------------


@pytest.fixture(scope="module")
def finished(checkout, tmp_path_factory):  # noqa: F811
    """A checkout after both runs: the real configuration files, but for a tiny model, other records, and less to do."""
    folder = tmp_path_factory.mktemp("study")
    make_gemma(folder / "gemma", quantize=True, layers=9)
    rows = [orjson.dumps(row) for row in xlam_rows(40)]
    (folder / "rows.jsonl").write_bytes(b"\n".join([*rows[:20], b'{"query": "cut', *rows[20:]]))
    less = {
        "model": {"source": {"kind": "folder", "path": str(folder / "gemma")}},
        "data": {"path": str(folder / "rows.jsonl"), "examples": 30},
        "training": {"iterations": 4, "validate_every": 2, "snapshot_every": 2},
        "evaluation": {"suites": ["test_seen"], "max_output_tokens": 200, "also_first": 2, "max_length_stops": 1.0},
    }
    asis = merge(yaml.safe_load((checkout / "config" / f"{ASIS}.yaml").read_text()), less)
    del asis["runs"]
    (folder / "less.yaml").write_text(yaml.safe_dump({**less, "runs": [STUDY, {ASIS: asis}]}))
    snakemake(checkout, "--configfile", f"config/{STUDY}.yaml", str(folder / "less.yaml"))
    return checkout / "results"


@pytest.mark.parametrize("run", [STUDY, ASIS])
def test_both_run_to_the_end(finished, run):
    summary = read_json(finished / run / "summary.json")
    assert summary["training"]["iterations"] == 4
    assert summary["data"]["ledger"]["rejected"]["invalid_json"] == 1
    assert math.isfinite(summary["training"]["final_validation_loss"])
    adapter = read_json(finished / run / "adapter" / "adapter_config.json")
    assert adapter["num_layers"] == 8
    assert adapter["lora_parameters"]["keys"] == ["self_attn.q_proj", "self_attn.v_proj"]
    assert "the same, the first 2 items" in (finished / run / "report.html").read_text()
    for condition in ("base", "tuned"):
        assert summary["evaluation"]["test_seen"][condition]["n"] == summary["data"]["sizes"]["test_seen"] == 3
        assert summary["first_items"]["test_seen"][condition]["n"] == 2


@pytest.mark.parametrize("run", [STUDY, ASIS])
def test_rows_are_gemmas_turns_with_one_bos_and_a_trained_end(finished, run):
    tokenizer = load_tokenizer(finished / "models" / "gemma-3-1b-it-4bit" / "mlx")
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert end in tokenizer.eos_token_ids
    calls = {row["id"]: row["calls"] for row in read_jsonl(finished / run / "data" / "train.jsonl")}
    rows = list(read_jsonl(finished / run / "tokens" / "train.jsonl"))
    assert len(rows) == len(calls) > 20
    for row in rows:
        ids, [[start, stop]] = row["input_ids"], row["spans"]
        prompt, answer = tokenizer.decode(ids[:start]), tokenizer.decode(ids[start : stop - 1])
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        assert prompt.startswith("<bos><start_of_turn>user\n")
        assert prompt.endswith("<end_of_turn>\n<start_of_turn>model\n")
        assert all(call["name"] in prompt for call in calls[row["id"]])
        assert (stop, ids[-1]) == (len(ids), end)
        assert parse_lenient(answer) == calls[row["id"]]
        if run == STUDY:
            assert parse_native(answer).calls == calls[row["id"]]
        else:
            assert answer.startswith('```json\n[{"id": "call_0", "type": "function", "function": {"name": ')


def test_the_model_has_layers_of_both_kinds(finished):
    model, _ = load(finished / "models" / "gemma-3-1b-it-4bit" / "mlx")
    windows = [cache.max_size if isinstance(cache, RotatingKVCache) else None for cache in make_prompt_cache(model)]
    assert windows == [64, None] * 4 + [64]
    longest = max(len(row["input_ids"]) for row in read_jsonl(finished / STUDY / "tokens" / "train.jsonl"))
    assert longest > 2 * 64, "the window must matter"
