"""The model card: its numbers are the summary's, and what is not known is not claimed."""

import copy
import re

import pytest
import yaml

from callwright.report.card import card


def rates(n, ast, **errors):
    kinds = {"one": {"n": n, "counts": {"ast": ast}}, "none": {"n": 0, "counts": {"ast": 0}}}
    shares = {"ast": ast / n, "ast_ci95": [0.1, 0.6], "native_parse": 0.9, "schema_valid": 0.8, "length_stops": 2}
    return {"n": n, "counts": {"ast": ast}, "errors": errors, "kinds": kinds, **shares}


@pytest.fixture
def summary():
    lora = {"kind": "dora", "rank": 8, "scale": 2.0, "rslora": False, "dropout": 0.0, "layers": -1}
    training = {
        "batch_size": 2, "accumulation": 3, "learning_rate": 0.001, "schedule": "cosine", "warmup": 5,
        "weight_decay": 0.0, "clip_norm": 1.0, "select": "last", "seed": 7,
        "lora": {**lora, "projections": ["q_proj", "v_proj"]},
    }  # fmt: skip
    source = {"kind": "hub", "id": "owner/model", "revision": "main", "commit": "c0ffee"}
    return {
        "run": "mine",
        "model": {"name": "owner/model", "license": "gemma", "parameters": 1234567, "layers": 4, "source": source},
        "config": {
            "model": {"name": "base", "license": "", "source": source}, "toolset": "mine.yaml", "training": training,
            "data": {"source": "xlam", "seed": 1, "max_tokens": 512, "format": "hermes"}, "split": {"seed": 2},
            "evaluation": {"max_output_tokens": 99},
        },
        "data": {
            "sizes": {"train": 80, "valid": 10}, "kinds": {"train": {"none": 8, "one": 60, "several": 12}},
            "held_out_tools": ["a", "b"],
        },
        "training": {
            "iterations": 40, "initial_validation_loss": 1.5, "kept": {"step": 30, "validation_loss": 0.25},
        },
        "device": {"device": "cpu", "machine": "x86_64", "system": "Linux"},
        "versions": {"mlx": "1.2.3", "mlx-lm": "4.5.6", "callwright": "0.1.0"},
        "evaluation": {
            "test_seen": {"base": rates(20, 1), "tuned": rates(20, 8, wrong_value=9, missing_call=3)},
            "bfcl_multiple": {"tuned": rates(10, 4, extra_call=6)},
        },
        "primary": {"suite": "test_seen", "metric": "ast", "from": "base", "to": "tuned"},
        "comparisons": [],
    }  # fmt: skip


FUSED = {
    "items": 50, "accuracy": {"adapter": 0.44, "fused": 0.42, "margin": 0.02}, "agreement": {"calls": 0.96},
    "kl": {"adapter_to_fused": 0.0123, "adapter_to_base": 0.7}, "bits": {"a": 4, "b": 8, "c": 8},
    "size_bytes": {"base": 98_000_000, "fused": 111_000_000},
}  # fmt: skip


def split(text):
    """(front matter, the rest)."""
    _, front, body = re.split(r"^---\n", text, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(front), body


def test_the_front_matter_is_the_hubs(summary):
    front, body = split(card(summary))
    assert front["license"] == "gemma"
    assert front["base_model"] == "owner/model"
    assert front["base_model_relation"] == "adapter"
    assert front["library_name"] == "mlx"
    assert {"tool-calling", "dora"} <= set(front["tags"])
    assert body.lstrip().startswith("# owner/model, fine-tuned to call tools: adapter (run `mine`)")


def test_the_card_gives_revision_data_settings_results_limits_and_use(summary):
    body = split(card(summary))[1]
    for expected in (
        "| revision | `c0ffee` |",
        "CC BY 4.0",
        "80 examples for training, 10 for validation",
        "| method | dora, rank 8, scale 2.0, dropout 0.0 |",
        "all blocks: q_proj, v_proj",
        "| steps | 40 of 6 examples; adapter of step 30 kept, by last |",
        "1.5000 before, 0.2500 kept",
        "| test_seen | tuned | 20 | 40.0 % | 10.0 % to 60.0 % | 90.0 % | 80.0 % | 2 |",
        "- `test_seen`: 12 of 20 answers are wrong: wrong_value 9, missing_call 3. Correct by kind: one 8 of 20.",
        "bfcl-eval",
        'load("results/models/base/mlx", adapter_path="results/mine/adapter")',
        "mlx_lm.server --model results/models/base/mlx --adapter-path results/mine/adapter",
        "<tool_call>",
    ):
        assert expected in body
    assert "model/" not in body


def test_the_packages_card_tells_of_the_fused_model(summary):
    front, body = split(card(summary, FUSED))
    assert front["base_model_relation"] == "finetune"
    body = " ".join(body.split())
    assert "44.0 % correct with the adapter, 42.0 % fused" in body
    assert "1 at 4 bits, 2 at 8 bits" in body
    assert "111.0 MB, of the base model 98.0 MB" in body
    assert 'load("model")' in body


def test_the_card_of_a_packed_needle_tells_what_is_missing_and_how_it_is_opened(summary):
    plain = card(summary, FUSED)
    assert "trust" not in plain
    assert "Left out" not in plain
    needle = {**FUSED, "left_out": ["heads.safetensors"], "model_file": "needle.py"}
    body = " ".join(card(summary, needle, ["cact"]).split())
    assert "own weights: `heads.safetensors` (the confidence beside an answer)." in body
    assert 'load("model", trust_remote_code=True)' in body
    assert "mlx_lm.server --model model --trust-remote-code" in body
    assert '`needle.Needle(weights="mine.cact")`' in body
    assert ".cact" not in card(summary, needle)


def test_the_card_of_a_needles_adapter_says_that_the_base_needs_code_of_its_own(summary):
    assert "architecture" not in card(summary) + card(summary, FUSED)
    summary["model"]["model_file"] = "needle.py"
    adapter, package = (" ".join(card(summary, fused).split()) for fused in (None, FUSED))
    said = "loading the base model elsewhere needs its own code, `needle.py` in the base model's folder"
    assert f"{said}, which this project put there. mlx-lm runs it only with `trust_remote_code`" in adapter
    assert f"{said} and in `model/`, which" in package
    base = "results/models/base/mlx"
    assert f'load("{base}", adapter_path="results/mine/adapter", trust_remote_code=True)' in adapter
    assert f"--model {base} --adapter-path results/mine/adapter --trust-remote-code" in adapter
    assert f'load("{base}", adapter_path="adapter", trust_remote_code=True)' in package


def test_what_is_not_known_is_not_claimed(summary):
    bare = copy.deepcopy(summary)
    bare["model"] |= {"license": None, "source": {"kind": "folder", "path": "/home/me/secret", "files": {}}}
    bare["config"]["model"]["source"] = {"kind": "folder", "path": "/home/me/secret"}
    bare["config"]["data"] |= {"source": "openai", "format": "fenced"}
    bare["evaluation"] = {"test_seen": {"base": rates(20, 1)}}
    front, body = split(card(bare))
    assert front["license"] == "other"
    assert "base_model" not in front
    assert "| license | not known |" in body
    assert "license is the user's to state" in body
    assert "was not evaluated in this run" in body
    assert "no stock server reads" in " ".join(body.split())
    assert "secret" not in body


def test_the_card_of_a_model_with_a_form_of_its_own_names_its_parser(summary):
    assert "`json_tools`" in card(summary)
    assert "<tool_call>" in card(summary)
    summary["model"] |= {"call_format": "qwen3_coder+think", "chat_template": "own"}
    text = card(summary)
    assert "(`tool_parser_type` is `qwen3_coder`)" in text
    assert "the form that the base model was taught" in text
    assert "<tool_call>" not in text


def test_a_peer_is_named_and_compared(summary):
    beside = copy.deepcopy(summary)
    beside["config"]["evaluation"]["peers"] = {"needle": {"engine": "needle"}}
    beside["evaluation"]["test_seen"]["peer_needle"] = rates(20, 6)
    entry = {
        "suite": "test_seen", "from": "peer_needle", "to": "tuned", "metric": "ast", "planned": False, "n": 20,
        "before": 0.3, "after": 0.4, "difference": 0.1, "ci95": [-0.1, 0.3], "p_value": 0.5, "p_holm": None,
        "clean": None,
    }  # fmt: skip
    beside["comparisons"] = [entry]
    body = split(card(beside))[1]
    for text in ("| test_seen | peer_needle | 20 | 30.0 % |", "- `peer_needle`: a peer", "instead of peer_needle"):
        assert text in body, text
        assert text not in split(card(summary))[1]
