"""A GGUF export is read back and asked what the adapter was asked, and refused where it answers worse."""

import logging
import runpy
from types import SimpleNamespace

import pytest
from fixtures_package import SETTINGS, make_adapter, make_examples, make_model

from callwright.models.load import load
from callwright.package.compare import answer
from callwright.package.fuse import fuse
from callwright.package.gguf_check import check_gguf
from callwright.package.gguf_file import write_gguf
from callwright.package.pack import pack
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import write_json, write_jsonl

EXAMPLES = make_examples()
PACKAGE = SETTINGS | {"items": 4, "gguf_type": "F32", "exports": ["gguf"], "dtype": "auto"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with `mlx`, `adapter` and `fused`, and the report on the fused model."""
    folder = tmp_path_factory.mktemp("made")
    make_adapter(make_model("llama", folder), folder / "adapter")
    return folder, fuse(folder / "mlx", folder / "adapter", EXAMPLES, PACKAGE, "hermes", folder / "fused")


def test_the_file_answers_as_the_fused_model_does(made, tmp_path, caplog):
    folder, report = made
    write_gguf(folder / "fused", tmp_path / "m.gguf", "F32")
    with caplog.at_level(logging.INFO):
        found = check_gguf(tmp_path / "m.gguf", report, EXAMPLES, PACKAGE, "hermes")
    model, tokenizer = load(folder / "fused", dequantize=True)
    assert found.texts == answer(model, tokenizer, EXAMPLES, "hermes").texts
    assert any(found.texts)
    assert "% of 4 items right (adapter: " in caplog.text
    assert "the same calls for 100.0 %" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_a_file_that_answers_worse_is_refused_and_no_package_is_left(made, tmp_path):
    folder, report = made
    better = report | {"accuracy": report["accuracy"] | {"adapter": 1.0}}

    def check(path):
        check_gguf(path, better, EXAMPLES, PACKAGE, "hermes")

    with pytest.raises(CallwrightError, match="run.gguf loses too much: 100.0 % of 4 .* package.margin allows 0.02"):
        pack(folder / "adapter", folder / "fused", "card", PACKAGE, tmp_path / "package", "run", check=check)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_other_weights_gives_other_answers(made, tmp_path):
    """What is asked is the file, not the folder that it was made of."""
    folder, report = made
    write_gguf(folder / "fused", tmp_path / "m.gguf", "F32")
    good = check_gguf(tmp_path / "m.gguf", report, EXAMPLES, PACKAGE, "hermes")
    write_gguf(make_model("llama", tmp_path / "other", quantize=False), tmp_path / "n.gguf", "Q4_0")
    other = check_gguf(tmp_path / "n.gguf", report, EXAMPLES, PACKAGE, "hermes")
    assert other.texts != good.texts


class Given(dict):
    """A rule's inputs: by attribute, or by name with `get`."""

    __getattr__ = dict.get


def test_the_rule_checks_the_file_that_it_packs(made, tmp_path, root, monkeypatch, capsys):
    folder, report = made
    monkeypatch.setattr("callwright.report.card.card", lambda *_: "card")
    monkeypatch.setattr("callwright.runtime.device.configure", lambda **_: None)
    write_json(tmp_path / "fused.json", report)
    write_json(tmp_path / "summary.json", {})
    write_jsonl(tmp_path / "valid.jsonl", (example.to_row() for example in EXAMPLES))
    given = Given(
        adapter=folder / "adapter", fused=folder / "fused", report=tmp_path / "fused.json",
        summary=tmp_path / "summary.json", examples=[tmp_path / "valid.jsonl"],
    )  # fmt: skip
    rule = SimpleNamespace(
        rule="pack", log=[], config={}, input=given, output=[tmp_path / "package"],
        params=[{"package": PACKAGE, "style": "hermes"}], wildcards=SimpleNamespace(run="mine"),
    )  # fmt: skip
    runpy.run_path(str(root / "workflow/scripts/pack.py"), {"snakemake": rule})
    assert (tmp_path / "package/mine.gguf").is_file()
    assert "mine.gguf: " in capsys.readouterr().err
