"""The fused model for other programs: transformers' layout."""

import json
import shutil

import mlx.core as mx
import pytest
from fixtures_package import make_model
from mlx.utils import tree_flatten

from callwright.models.load import load
from callwright.package.export import to_huggingface
from callwright.runtime.errors import CallwrightError

TOKENS = mx.array([[2, 270, 300, 42, 9, 77, 123]])


@pytest.mark.parametrize(("kind", "own"), [("llama", "float16"), ("gemma", "bfloat16")])
def test_the_export_is_the_model_unpacked_under_transformers_names(tmp_path, kind, own):
    source = make_model(kind, tmp_path)
    to_huggingface(source, tmp_path / "auto")
    to_huggingface(source, tmp_path / "wide", "float32")
    model, tokenizer = load(source, dequantize=True)
    expected = dict(tree_flatten(model.parameters()))
    expected.pop("lm_head.weight", None)  # tied to the embedding
    for folder, dtype in (("auto", own), ("wide", "float32")):
        found = mx.load(str(tmp_path / folder / "model.safetensors"))
        assert found.keys() == expected.keys()
        for name, array in found.items():
            assert array.dtype == getattr(mx, dtype)
            assert mx.array_equal(array, expected[name].astype(array.dtype)), name
        config = json.loads((tmp_path / folder / "config.json").read_text())
        assert config["dtype"] == dtype
        assert config["tie_word_embeddings"] is True
        assert config["architectures"]
        assert not {"quantization", "quantization_config"} & config.keys()
    opened, same = load(tmp_path / "wide")  # mlx-lm reads this layout too
    assert mx.allclose(opened(TOKENS), model(TOKENS), rtol=1e-5, atol=1e-5)
    assert same.chat_template == tokenizer.chat_template
    assert (source / "config.json").read_text().count("quantization") == 1  # the model's own folder is as it was


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_transformers_computes_the_same_logits(tmp_path, kind):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    to_huggingface(make_model(kind, tmp_path), tmp_path / "wide", "float32")
    model, _ = load(tmp_path / "mlx", dequantize=True)
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "wide", dtype=torch.float32)
    logits = other(torch.tensor(TOKENS.tolist())).logits.detach().numpy()
    assert mx.allclose(mx.array(logits), model(TOKENS), rtol=1e-3, atol=1e-3)


def test_an_architecture_of_other_names_is_refused(tmp_path):
    source = make_model("llama", tmp_path)
    config = json.loads((source / "config.json").read_text())
    shutil.copytree(source, tmp_path / "other")
    (tmp_path / "other/config.json").write_text(json.dumps({**config, "model_type": "mixtral"}))
    with pytest.raises(CallwrightError, match="'mixtral' cannot be exported"):
        to_huggingface(tmp_path / "other", tmp_path / "out")
    assert not (tmp_path / "out").exists()
