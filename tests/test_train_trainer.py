"""Rule `train`'s one library call: files in, files out, and the score that adapters may be chosen by."""

import sys
from types import SimpleNamespace

import mlx.core as mx
import pytest
from fixtures_gemma import make_gemma
from fixtures_lora import training_settings

from callwright.chat.formats import answer_text
from callwright.chat.tokens import encode, tokenize_example
from callwright.data.records import Example
from callwright.decoding.decode import Answer
from callwright.evals import selection_score
from callwright.evals.generate import generate
from callwright.evals.scoring.score import score_all
from callwright.evals.selection_score import HeldOut
from callwright.lora import distributed, layers
from callwright.lora.distributed import LostPeer, ProcessGroup
from callwright.models.convert import convert
from callwright.models.load import load, load_tokenizer
from callwright.runtime import device, logs, processes
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_jsonl, write_json, write_jsonl
from callwright.train import trainer, worker

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Weather today.", "parameters": CITY}}
EXAMPLES = [
    Example(
        id=f"item-{number}",
        messages=[{"role": "user", "content": f"What is the weather in {city}?" if city else "Hi"}],
        tools=[TOOL],
        calls=[{"name": "weather", "arguments": {"city": city}}] if city else [],
        source="test",
        answer=None if city else "No tool fits.",
    )
    for number, city in enumerate(["Paris", "", "London", "Zurich", "", "Rome"])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with a chat template, examples, and their tokens."""
    folder = tmp_path_factory.mktemp("work")
    convert(make_gemma(folder / "source", dtype=mx.float32), {}, folder / "model")
    tokenizer = load_tokenizer(folder / "model")
    write_jsonl(folder / "valid.jsonl", [example.to_row() for example in EXAMPLES])
    write_jsonl(folder / "tokens.jsonl", [tokenize_example(tokenizer, example) for example in EXAMPLES])
    return folder


def job(folder, run, **changes):
    """What the rule passes, for a run in the folder `run`."""
    run.mkdir(exist_ok=True)
    settings = training_settings(
        **{
            "select": "tool_calls", "selection_items": 5, "iterations": 24, "validate_every": 12, "batch_size": 3,
            "lora": {"layers": -1, "rank": 8}, **changes,
        }
    )  # fmt: skip
    return {
        "model_folder": str(folder / "model"), "train": str(folder / "tokens.jsonl"),
        "valid": str(folder / "tokens.jsonl"), "examples": str(folder / "valid.jsonl"), "prefix_index": None,
        "settings": settings, "state_folder": str(run / "state"), "out_folder": str(run / "adapter"),
        "history_path": str(run / "history.jsonl"), "fingerprint": "a",
        "device": {"kind": "cpu", "cpu_threads": 2}, "log": str(run / "train.log"),
    }  # fmt: skip


def requests(folder, items=6, share=(0, 1), examples=EXAMPLES):
    rows = list(read_jsonl(folder / "tokens.jsonl"))
    return HeldOut(load_tokenizer(folder / "model"), examples, rows, items, share)


def checks(folder):
    return [row for row in read_jsonl(folder / "history.jsonl") if row["event"] == "validation"]


# -- the score -------------------------------------------------------------------------------------


def answering(monkeypatch, folder, wrong=(), cut=()):
    """Let every request be answered as expected, but for the items `wrong`, and those `cut` at the limit."""
    tokenizer = load_tokenizer(folder / "model")

    def answer_all(model, prompts, limit, stop_ids, running):
        for item, example in enumerate(requests_of[id(prompts)].examples):
            text = "<tool_call>" if example.id in wrong else answer_text(example, "hermes")
            yield item, Answer(encode(tokenizer, text), "length" if example.id in cut else "stop")

    requests_of = {}
    monkeypatch.setattr(selection_score, "answer_all", answer_all)

    def score(**kwargs):
        found = requests(folder, **kwargs)
        requests_of[id(found.prompts)] = found
        return found.score(None)

    return score


def test_correct_answers_are_counted(monkeypatch, folder):
    assert answering(monkeypatch, folder)() == 6
    assert answering(monkeypatch, folder, wrong={"item-0", "item-1"}, cut={"item-3"})() == 3
    assert answering(monkeypatch, folder, wrong={"item-0"})(items=2) == 1


def test_workers_share_the_requests(monkeypatch, folder):
    score = answering(monkeypatch, folder, wrong={"item-1", "item-4"})
    assert [score(share=(rank, 4)) for rank in range(4)] == [1, 1, 1, 1]
    assert [score(items=1, share=(rank, 2)) for rank in range(2)] == [1, 0]


def test_the_requests_are_the_first_ones_that_have_tokens_and_no_answer_is_cut_short(folder):
    found = requests(folder, items=3)
    assert [example.id for example in found.examples] == ["item-0", "item-1", "item-2"]
    lengths = [row["spans"][0][1] - row["spans"][0][0] for row in read_jsonl(folder / "tokens.jsonl")]
    assert found.limit >= 1.5 * max(lengths[:3])
    assert requests(folder, items=3, share=(1, 3)).limit == found.limit
    with pytest.raises(CallwrightError, match="the validation set has no example"):
        requests(folder, examples=[])


# -- from files to files ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(folder):
    """(folder, summary) of a run in which the six examples are learned by heart."""
    run = folder / "alone"
    return run, trainer.run(job(folder, run))


def test_the_kept_adapter_answers_most_requests_as_generating_and_scoring_by_the_rules_say(folder, alone, tmp_path):
    run, summary = alone
    assert [(row["step"], row["asked"]) for row in checks(run)] == [(0, 5), (12, 5), (24, 5)]
    best = max(checks(run), key=lambda row: (row["correct"], -row["loss"]))
    kept = summary["kept"]
    assert kept == {
        "step": best["step"], "by": "tool_calls", "validation_loss": best["loss"], "correct": best["correct"],
        "asked": 5,
    }  # fmt: skip
    assert kept["correct"] > checks(run)[0]["correct"] == 0

    model, tokenizer = load(folder / "model")
    layers.load_adapter(model, run / "adapter")
    layers.merge(model)
    limit = {"items": 5, "max_output_tokens": requests(folder, 5).limit, "batch_size": selection_score.BATCH_SIZE}
    answers = generate(model, tokenizer, EXAMPLES, "valid", "tuned", limit, tmp_path / "generations.jsonl")
    assert sum(row["ast"] for row in score_all(EXAMPLES, answers)) == kept["correct"]


def test_a_score_leaves_no_trace_on_the_next(folder, alone):
    rows = list(read_jsonl(folder / "tokens.jsonl"))
    settings = job(folder, folder)["settings"]
    score = trainer.ToolCallScore(folder / "model", folder / "valid.jsonl", rows, settings, ProcessGroup())
    arrays = mx.load(str(alone[0] / "adapter" / layers.WEIGHTS))
    found = score(arrays)
    assert found == (alone[1]["kept"]["correct"], 5)
    assert score({name: mx.zeros_like(array) for name, array in arrays.items()}) == (0, 5)
    assert score(arrays) == found


def test_two_workers_together_count_what_one_counts(folder, alone):
    rows = list(read_jsonl(folder / "tokens.jsonl"))
    settings = job(folder, folder)["settings"]
    arrays = mx.load(str(alone[0] / "adapter" / layers.WEIGHTS))
    found = []
    for rank in range(2):
        workers = ProcessGroup(SimpleNamespace(rank=lambda rank=rank: rank, size=lambda: 2))
        found.append(trainer.ToolCallScore(folder / "model", folder / "valid.jsonl", rows, settings, workers)(arrays))
    assert tuple(map(sum, zip(*found, strict=True))) == (alone[1]["kept"]["correct"], 5)
    assert [asked for _, asked in found] == [3, 2]


# -- one worker, in this process -------------------------------------------------------------------


def fails(error):
    def function(*_):
        raise error

    return function


@pytest.mark.parametrize(
    ("join", "work", "status", "left"),
    [
        (lambda _: ProcessGroup(), lambda *_: {"iterations": 3}, 0, {"result-0.json": '"iterations": 3'}),
        (fails(LostPeer("nobody there")), None, processes.NOT_CONNECTED, {}),
        (lambda _: ProcessGroup(), fails(LostPeer("gone")), processes.LOST, {"error-0.txt": "gone"}),
        (lambda _: ProcessGroup(), fails(CallwrightError("lower the rate")), 1, {"error-0.txt": "lower the rate"}),
        (lambda _: ProcessGroup(), fails(ZeroDivisionError()), 1, {}),
    ],
    ids=["done", "not connected", "lost", "refused", "broken"],
)
def test_a_workers_end_is_told_by_its_status_and_a_file(monkeypatch, tmp_path, join, work, status, left):
    monkeypatch.setattr(processes, "follow_parent", lambda: None)
    monkeypatch.setattr(distributed, "join", join)
    monkeypatch.setattr(trainer, "work", work)
    given = {}
    monkeypatch.setattr(device, "configure", lambda **settings: given.update(settings))
    write_json(tmp_path / "workers" / "job.json", {**job(tmp_path, tmp_path, workers=2), "token": 5})
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path / "workers" / "job.json")])
    monkeypatch.setenv("MLX_RANK", "0")
    try:
        assert worker.main() == status
    finally:
        logs.setup()  # it has been told to log to a file
    assert given == {"kind": "cpu", "cpu_threads": 1}
    found = {path.name: path.read_text() for path in (tmp_path / "workers").iterdir() if path.name != "job.json"}
    assert found.keys() == left.keys()
    assert all(left[name] in found[name] for name in left)
    assert ("ZeroDivisionError" in (tmp_path / "train.log").read_text()) == (status == 1 and not left)
