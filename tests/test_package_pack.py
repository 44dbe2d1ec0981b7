"""The package: everything in one folder that stock mlx-lm opens, whole or not at all."""

import mlx.core as mx
import mlx_lm
import pytest
from fixtures_package import make_adapter, make_examples, make_model

from callwright.models.cact import read_cact
from callwright.package.fuse import Fusion
from callwright.package.pack import pack
from callwright.runtime.errors import CallwrightError

SETTINGS = {"exports": [], "dtype": "auto", "gguf_type": "F16"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with `mlx`, `adapter` and `fused` (8 bits)."""
    folder = tmp_path_factory.mktemp("made")
    make_adapter(make_model("llama", folder), folder / "adapter")
    (folder / "adapter/.snakemake_timestamp").touch()
    fusion = Fusion(folder / "mlx", folder / "adapter", make_examples()[:1], "hermes")
    bits = dict.fromkeys(fusion.touched, 8)
    fusion.install_all(bits)
    fusion.write(bits, folder / "fused")
    return folder


def test_stock_mlx_lm_opens_the_fused_model_and_the_adapter_on_its_base(made, tmp_path):
    pack(made / "adapter", made / "fused", "# Card\n", SETTINGS, tmp_path / "package", "run")
    names = {path.relative_to(tmp_path / "package").as_posix() for path in (tmp_path / "package").rglob("*.*")}
    assert {"README.md", "adapter/adapters.safetensors", "model/model.safetensors", "model/tokenizer.json"} <= names
    assert not any("snakemake" in name for name in names)
    fused, tokenizer = mlx_lm.load(str(tmp_path / "package/model"))
    adapted, _ = mlx_lm.load(str(made / "mlx"), adapter_path=str(tmp_path / "package/adapter"))
    base, _ = mlx_lm.load(str(made / "mlx"))
    tokens = mx.array([[2, 270, 300, 42, 9, 77, 123]])
    with_adapter, without = adapted(tokens), base(tokens)
    effect = mx.abs(with_adapter - without).max().item()
    assert mx.abs(fused(tokens) - with_adapter).max().item() < 0.1 * effect
    prompt = tokenizer.encode("Weather", add_special_tokens=False)
    first = mlx_lm.generate(fused, tokenizer, prompt, max_tokens=1)
    assert first == tokenizer.decode([mx.argmax(fused(mx.array([prompt]))[0, -1]).item()])


def test_exports_lie_beside_them_and_a_failed_one_leaves_the_old_package(made, tmp_path):
    settings = {**SETTINGS, "exports": ["safetensors"]}
    pack(made / "adapter", made / "fused", "first", settings, tmp_path / "package", "run")
    assert (tmp_path / "package/safetensors/model.safetensors").is_file()
    bad = {**settings, "exports": ["gguf"], "gguf_type": "NONE"}
    with pytest.raises(KeyError):
        pack(made / "adapter", made / "fused", "second", bad, tmp_path / "package", "run")
    assert (tmp_path / "package/README.md").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_a_file_for_needles_engine_needs_needle_and_its_source(made, tmp_path):
    base = make_model("needle", tmp_path)
    make_adapter(base, tmp_path / "adapter")
    where = (tmp_path / "adapter", base, "card", {**SETTINGS, "exports": ["cact"]}, tmp_path / "package", "run")
    pack(*where, source=tmp_path / "source")
    assert read_cact(tmp_path / "package/run.cact").sizes["layers"] == 3
    assert (tmp_path / "package/model/needle.py").is_file()
    for exports, words in (
        (["gguf"], "'needle3' cannot be exported as GGUF"),
        (["safetensors"], "'needle3' cannot"),
    ):
        with pytest.raises(CallwrightError, match=words):
            pack(*where[:3], {**SETTINGS, "exports": exports}, *where[4:])
    with pytest.raises(CallwrightError, match="'llama' cannot be exported as a .cact"):
        pack(made / "adapter", made / "fused", *where[2:], source=tmp_path / "source")
    assert (tmp_path / "package/run.cact").is_file()


def test_a_gguf_comes_with_a_modelfile(made, tmp_path):
    pack(made / "adapter", made / "fused", "card", {**SETTINGS, "exports": ["gguf"]}, tmp_path / "package", "run")
    assert (tmp_path / "package/run.gguf").read_bytes()[:4] == b"GGUF"
    text = (tmp_path / "package/Modelfile").read_text()
    assert text.startswith("FROM ./run.gguf\n")
    assert ".ToolCalls" in text
