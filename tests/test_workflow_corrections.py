"""Corrections through the whole workflow, on a tiny model: what a new line reruns, and what the report says of it."""

import re

import pytest
from fixtures_gemma import make_gemma
from fixtures_workflow import checkout, snakemake  # noqa: F401 (a fixture)

from callwright.data.corrections import CorrectionStore
from callwright.runtime.files import read_json, read_jsonl

CAFE = """
domains:
  cafe:
    order:
      description: Order something to drink at the counter.
      parameters: {drink: {type: string}, size: {type: string, enum: [small, large]}}
      values: {drink: [tea, coffee, cocoa, chai, water, juice, milk, lemonade]}
      phrasings: ["A {size} {drink}, please.", "One {size} {drink} for me", "Could I get a {drink}, {size}?",
                  "{size} {drink}"]
      ask: {drink: I need one more detail. Which drink?}
      missing: ["Something {size} to drink", "I'd like a drink, {size}", "Bring me something {size}"]
    hours:
      description: Get the opening hours.
      parameters: {weekday: {type: string}}
      phrasings: ["When are you open on {weekday}?", "Open on {weekday}?", "What are your hours on {weekday}?"]
"""
RUN = """
runs: [cafe]
model: {name: tiny, license: "", source: {kind: folder, path: source}}
toolset: cafe.yaml
corrections: corrections.jsonl
data: {examples: 40, variety: null}
split: {unseen_tools: 0}
training: {iterations: 4, validate_every: 2, validation_batches: 1, from: previous, from_iterations: 3,
           lora: {layers: 2, rank: 2}}
evaluation: {suites: [test_seen], items: 3, batch_size: 3, max_output_tokens: 16, max_length_stops: 1.0}
"""
ASKS = ["A small tea for Ann", "One large coffee to go", "Could Bob have a small cocoa", "chai, small, thanks a lot",
        "My usual large juice", "I am thirsty, a small milk", "Some large lemonade here",
        "water in a large cup"]  # fmt: skip
CONFIG = ["--configfile", "run.yaml"]


@pytest.fixture(scope="module")
def cafe(checkout):  # noqa: F811
    """The checkout after a run without corrections, and the arguments of its tools."""
    make_gemma(checkout / "source", layers=2, width=32)
    (checkout / "cafe.yaml").write_text(CAFE)
    (checkout / "run.yaml").write_text(RUN)
    snakemake(checkout, *CONFIG)
    return checkout


def correct(folder, asks):
    rows = read_jsonl(folder / "results/cafe/data/train.jsonl")
    tools = next(row["tools"] for row in rows if len(row["tools"]) == 2)
    store = CorrectionStore(folder / "corrections.jsonl")
    for ask in asks:
        call = {"name": "order", "arguments": {"drink": "tea", "size": "large" if "large" in ask else "small"}}
        store.add({"kind": "call", "messages": [{"role": "user", "content": ask}], "tools": tools, "calls": [call]})


def test_a_correction_reruns_what_depends_on_it_and_training_goes_on(cafe):
    assert read_json(cafe / "results/cafe/training/training.json")["went_on"] is False
    assert not (cafe / "results/cafe/taught.json").exists()
    correct(cafe, ASKS)
    planned = snakemake(cafe, "-n", *CONFIG).stdout
    rules = set(re.findall(r"^(?:local)?rule (\w+):$", planned, flags=re.MULTILINE))
    assert {"corrections", "tokenize_examples", "train", "taught"} <= rules
    assert not {"curate", "split", "convert_model"} & rules
    answered = set(re.findall(r"output: results/cafe/evaluation/(\w+)/(\w+)/generations.jsonl", planned))
    assert ("test_seen", "base") not in answered
    assert ("test_seen", "tuned") in answered
    before = (cafe / "results/cafe/adapter/adapters.safetensors").read_bytes()
    console = snakemake(cafe, *CONFIG).stdout
    ledger, training = (
        read_json(cafe / f"results/cafe/{name}.json") for name in ("data/corrections", "training/training")
    )
    assert ledger["trained"] + ledger["kept_back"] == len(ASKS)
    assert "going on from the last adapter" in console
    assert (training["went_on"], training["iterations"]) == (True, 3)
    assert (cafe / "results/cafe/adapter/adapters.safetensors").read_bytes() != before
    tokens = [row["id"] for row in read_jsonl(cafe / "results/cafe/tokens/train.jsonl")]
    assert sum(name.startswith("correction:") for name in tokens) == 3 * ledger["trained"]
    taught = read_json(cafe / "results/cafe/taught.json")
    assert [row["suite"] for row in taught["others"]] == ["test_seen"]
    assert taught["kept_back"]["n"] == min(ledger["kept_back"], 3)  # evaluation.items
    assert '<h2 id="taught">Corrections</h2>' in (cafe / "results/cafe/report.html").read_text()
    assert "Nothing to be done" in snakemake(cafe, "-n", *CONFIG).stdout


def test_a_correction_that_is_taken_back_is_unlearned_from_the_start(cafe):
    store = CorrectionStore(cafe / "corrections.jsonl")
    taken = next(
        row for row in read_json(cafe / "results/cafe/data/corrections.json")["corrections"] if row["used"] == "trained"
    )
    store.undo(taken["id"])
    console = snakemake(cafe, *CONFIG, "--until", "train").stdout
    assert "1 corrections are gone that it learned" in console
    assert read_json(cafe / "results/cafe/training/training.json")["went_on"] is False
