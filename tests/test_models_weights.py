"""Weights that are not whole are named in one line, before anything is read."""

import json

import mlx.core as mx
import pytest

from callwright.lora.layers import adapted_paths, load_adapter
from callwright.models.convert import check_complete
from callwright.models.weights import check_file, check_folder
from callwright.runtime.errors import CallwrightError

ARRAYS = {"model.layers.0.mlp.up_proj.weight": mx.ones((4, 8)), "lm_head.weight": mx.zeros((2, 8), mx.float16)}


@pytest.fixture
def folder(tmp_path):
    mx.save_safetensors(str(tmp_path / "model.safetensors"), ARRAYS, {"format": "mlx"})
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def refused(check, *arguments):
    with pytest.raises(CallwrightError) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_whole_files_pass(folder):
    check_folder(folder)
    check_complete(folder, folder)
    assert {name: entry["shape"] for name, entry in check_file(folder / "model.safetensors").items()} == {
        name: list(array.shape) for name, array in ARRAYS.items()
    }


def test_a_cut_file_at_every_length(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert str(path) in refused(check_folder, folder)
    path.write_bytes(whole[:-1])
    assert f"it has {len(whole) - 1} of {len(whole)} bytes" in refused(check_complete, folder, folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 269060552\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>Not found</html>", "is no safetensors file"),
        (b"\x08\0\0\0\0\0\0\0{nojson}", "its head cannot be read"),
        (b"\x02\0\0\0\0\0\0\0[]", "is no safetensors file"),
        (b"", "is no safetensors file"),
    ],
)
def test_files_of_something_else(folder, content, said):
    (folder / "model.safetensors").write_bytes(content)
    assert said in refused(check_folder, folder)


@pytest.mark.parametrize("index", [True, False])
def test_a_missing_shard(folder, index):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    names = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    for name in names[:2]:
        (folder / name).write_bytes(whole)
    if index:
        weight_map = dict(zip("abc", names, strict=True))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for check in ((check_folder, folder), (check_complete, folder, folder)):
        assert f"{names[2]} is missing: the model's weights are 3 files" in refused(*check)
    (folder / names[2]).write_bytes(whole)
    check_folder(folder)


def test_an_index_that_is_none(folder):
    (folder / "model.safetensors.index.json").write_text("[]")
    assert "no index of weights" in refused(check_folder, folder)


def test_adapters_that_cannot_be_used(folder, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    assert "one of PEFT's" in refused(load_adapter, None, adapter)
    whole = (folder / "model.safetensors").read_bytes()
    (adapter / "adapters.safetensors").write_bytes(whole[:-5])
    assert "is cut" in refused(load_adapter, None, adapter)
    (adapter / "adapters.safetensors").write_bytes(whole)
    for config, said in (
        ("[]", "is no object"),
        ("{", "not valid JSON"),
        ('{"lora_parameters": 5, "num_layers": 1}', "lora_parameters"),
        ('{"lora_parameters": {"rank": 8}, "num_layers": 1}', "'scale'"),
        ('{"lora_parameters": {"rank": "8", "scale": 1}, "num_layers": 1}', "expected numbers"),
    ):
        (adapter / "adapter_config.json").write_text(config)
        assert said in refused(load_adapter, None, adapter)


def test_without_keys_the_weights_say_which_layers_are_adapted():
    names = ["model.layers.3.self_attn.q_proj.lora_a", "model.layers.3.self_attn.q_proj.lora_b", "lm_head.lora_a",
             "language_model.model.layers.10.mlp.up_proj.lora_b", "model.layers.3.input_layernorm.weight"]  # fmt: skip
    assert adapted_paths(names) == {"self_attn.q_proj", "lm_head", "mlp.up_proj"}
