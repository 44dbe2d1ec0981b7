"""Stored answers: what a row holds, and that an interrupted run ends with the same file as one that was not."""

import hashlib
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import mlx.core as mx
import orjson
import pytest
from fixtures_gemma import make_gemma
from mlx_lm.models import gemma3_text

from callwright.chat.call_format import answer_text, read_answer
from callwright.chat.formats import encode_calls
from callwright.chat.template import render_prompt
from callwright.chat.tokens import prompt_ids
from callwright.data.records import Example
from callwright.decoding import engine as engine_module
from callwright.decoding import workers as working
from callwright.decoding.constrain import Constraint, grammar, vocabulary
from callwright.decoding.decode import greedy
from callwright.decoding.engine import Engine
from callwright.decoding.limits import check_room, longest_prompt, needed_room
from callwright.decoding.workers import answer_all
from callwright.evals import generate as module
from callwright.evals import partial
from callwright.evals.generate import generate, weights_hash
from callwright.evals.scoring.score import score_item
from callwright.lora.layers import adapter_config, adapter_parameters, attach, load_adapter, save_adapter
from callwright.models.convert import convert
from callwright.models.load import load
from callwright.runtime import blas, threads
from callwright.runtime.errors import CallwrightError

KEYS = ["id", "suite", "condition", "prompt_sha256", "prompt_tokens", "output_tokens"]
KEYS += ["max_output_tokens", "finish_reason", "text", "seconds"]
SETTINGS = {"items": 100, "max_output_tokens": 6, "batch_size": 2}
TOOL = {
    "type": "function",
    "function": {"name": "now", "description": "Time.", "parameters": {"type": "object", "properties": {}}},
}
QUESTIONS = [
    "What time is it?",
    "Hi",
    "What is the weather in Paris and in London today, and will it rain?",
    "Why?",
    "And",
]
EXAMPLES = [
    SimpleNamespace(id=f"item-{n}", messages=[{"role": "user", "content": text}], tools=[TOOL], calls=[], answer="No.")
    for n, text in enumerate(QUESTIONS)
]


def load_with(folder, adapter, **options):
    """The model in `folder` with an adapter on it, unfused, and its tokenizer."""
    model, tokenizer = load(folder, **options)
    load_adapter(model, adapter)
    return model, tokenizer


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrices are small here, and the threads of several processes would wait for one another."""
    with threads.blas_threads(1):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma")
    convert(make_gemma(folder / "source"), {}, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    """A random adapter on all layers, strong enough to change what is said."""
    model, _ = load(folder)
    lora = {"rank": 4, "scale": 20.0, "dropout": 0.0, "layers": -1, "projections": ["q_proj", "v_proj", "down_proj"]}
    mx.random.seed(1)
    keys = attach(model, lora)
    weights = {name: mx.random.normal(value.shape) for name, value in adapter_parameters(model).items()}
    path = tmp_path_factory.mktemp("adapter")
    save_adapter(path, weights, adapter_config(model, lora, keys))
    return path


@pytest.fixture(scope="module")
def base(folder):
    return load(folder)


@pytest.fixture(scope="module")
def tuned(folder, adapter):
    return load_with(folder, adapter)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "suite" / "generations.jsonl"


def answer(pair, out, examples=EXAMPLES, condition="base", settings=SETTINGS, **more):
    model, tokenizer = pair
    return generate(model, tokenizer, examples, "test_seen", condition, settings, out, **more)


def timeless(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def stored(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def partial_of(out):
    return out.with_name(".generations.jsonl.partial")


@pytest.fixture(scope="module")
def rows(base, tmp_path_factory):
    """An uninterrupted run."""
    return answer(base, tmp_path_factory.mktemp("whole") / "generations.jsonl")


class Killed(Exception):
    """Stands for whatever ends a run between two batches."""


@pytest.fixture
def interrupted(monkeypatch):
    """`interrupted(batches, …)` runs until so many batches are stored, as `answer` would."""

    def run(batches, *arguments, **more):
        append, left = module.Partial.append, [batches]

        def counted(self, rows):
            append(self, rows)
            left[0] -= 1
            if not left[0]:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(module.Partial, "append", counted)
            with pytest.raises(Killed):
                answer(*arguments, **more)

    return run


@pytest.fixture
def asked(monkeypatch):
    """The prompts that the model is given."""
    done = []
    real = Engine.submit

    def counted(self, request):
        done.append(request.prompt)
        real(self, request)

    monkeypatch.setattr(Engine, "submit", counted)
    return done


# -- rows ------------------------------------------------------------------------------------------


def test_rows_have_the_documented_keys_and_say_what_was_asked_and_answered(base, rows, out):
    model, tokenizer = base
    assert [row["id"] for row in rows] == [example.id for example in EXAMPLES]
    listed = inspect.getdoc(generate).split("A row is `{", 1)[1].split("}`", 1)[0]
    assert [key.strip(' "\n') for key in listed.split(",")] == KEYS
    for row, example in zip(rows, EXAMPLES, strict=True):
        assert 0 <= row["call_probability"] <= 1
        assert [key for key in row if key != "call_probability"] == KEYS
        assert (row["suite"], row["condition"]) == ("test_seen", "base")
        prompt = render_prompt(tokenizer, example.messages, example.tools)
        assert row["prompt_sha256"] == hashlib.sha256(prompt.encode()).hexdigest()
        ids = prompt_ids(tokenizer, example.messages, example.tools)
        assert row["prompt_tokens"] == len(ids)
        [alone] = greedy(model, [ids], 6, set(tokenizer.eos_token_ids))
        assert row["text"] == tokenizer.decode(alone.ids)
        assert (row["output_tokens"], row["finish_reason"]) == (len(alone.ids), alone.finish_reason)
        assert row["seconds"] >= 0


def test_the_file_holds_the_rows_and_nothing_lies_beside_it(base, rows, out):
    assert timeless(answer(base, out)) == timeless(rows)
    assert timeless(stored(out)) == timeless(rows)
    assert os.listdir(out.parent) == [out.name]


def test_only_the_first_items_are_answered(base, rows, out):
    few = answer(base, out, settings={**SETTINGS, "items": 2})
    assert timeless(few) == timeless(rows)[:2]


def test_base_and_adapter_are_asked_the_same_and_answer_differently(rows, tuned, out):
    other = answer(tuned, out, condition="tuned")
    for key in ("id", "suite", "prompt_sha256", "prompt_tokens"):
        assert [row[key] for row in other] == [row[key] for row in rows]
    assert [row["condition"] for row in other] == ["tuned"] * len(rows)
    assert [row["text"] for row in other] != [row["text"] for row in rows]


def test_an_adapter_of_zeros_says_what_the_base_model_says(folder, rows, out):
    pair = load(folder)
    lora = {"rank": 4, "scale": 20.0, "dropout": 0.0, "layers": -1, "projections": ["q_proj"]}
    attach(pair[0], lora)
    assert [row["text"] for row in answer(pair, out)] == [row["text"] for row in rows]


def test_a_stop_token_ends_an_answer_and_is_no_part_of_it(folder, base, rows, out):
    model, tokenizer = load(folder)
    [said] = greedy(model, [prompt_ids(tokenizer, EXAMPLES[0].messages, EXAMPLES[0].tools)], 6, set())
    place = next(n for n in range(1, 6) if said.ids[n] not in said.ids[:n])
    tokenizer.eos_token_ids = {said.ids[place]}
    row = answer((model, tokenizer), out, EXAMPLES[:1])[0]
    assert (row["finish_reason"], row["output_tokens"]) == ("stop", place)
    assert row["text"] == tokenizer.decode(said.ids[:place])


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_batches_of_any_size_give_the_same_text(base, rows, out, batch_size):
    assert timeless(answer(base, out, batch_size=batch_size)) == timeless(rows)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_text(base, rows, out, workers):
    assert timeless(answer(base, out, workers=workers)) == timeless(rows)


def test_the_longest_prompts_come_first(base, out, rows, asked):
    answer(base, out, workers=1)
    assert [len(prompt) for prompt in asked] == sorted((row["prompt_tokens"] for row in rows), reverse=True)


@pytest.mark.parametrize(("tokens", "most"), [(1, 1), (240, 2), (100_000, 3)])
def test_few_long_prompts_or_many_short_ones_are_answered_at_once(base, out, rows, monkeypatch, tokens, most):
    """What bounds the memory; the three longest prompts have about 100 tokens each."""
    assert all(80 < length < 125 for length in sorted(row["prompt_tokens"] for row in rows)[-3:])
    seen = []
    real = Engine.advance
    monkeypatch.setattr(engine_module, "PLACE_TOKENS", tokens)
    monkeypatch.setattr(Engine, "advance", lambda self: seen.append(len(self.rows)) or real(self))
    assert timeless(answer(base, out, batch_size=3, workers=1)) == timeless(rows)
    assert max(seen) == most


def test_a_finished_answers_place_is_taken_at_once(base, monkeypatch):
    model, tokenizer = base
    prompts = [prompt_ids(tokenizer, example.messages, example.tools) for example in EXAMPLES]
    make, real, seen = working.Request, Engine.advance, []
    limits = iter([6, 5, 4, 3, 2])
    monkeypatch.setattr(working, "Request", lambda prompt, limit, **more: make(prompt, next(limits), **more))
    monkeypatch.setattr(Engine, "advance", lambda self: seen.append(len(self.rows)) or real(self))
    found = dict(answer_all(model, prompts, 0, set(), running=2, workers=1))
    assert sorted(len(answer.ids) for answer in found.values()) == [2, 3, 4, 5, 6]
    # 20 tokens in pairs: none waits for the longest of a batch.
    assert seen == [2] * 9 + [1] * 2


def test_what_prompts_begin_with_is_read_once_by_all_workers(base, monkeypatch):
    model, tokenizer = base
    prompts = [prompt_ids(tokenizer, example.messages, example.tools) for example in EXAMPLES] * 3
    alone = [found.ids for found in greedy(model, prompts[: len(EXAMPLES)], 6, set())] * 3
    real, read = Engine.read, []
    monkeypatch.setattr(Engine, "read", lambda self: read.append(real(self)) or read[-1])
    found = dict(answer_all(model, prompts, 6, set(), running=2, workers=1))
    assert [found[number].ids for number in range(len(prompts))] == alone
    once = sum(n for n in read if n)
    assert once < sum(map(len, prompts)) / 3


# -- conditions ------------------------------------------------------------------------------------


def test_an_unknown_condition_is_refused(base, out):
    with pytest.raises(CallwrightError, match="no condition 'tunde'; expected one of base, base_"):
        answer(base, out, condition="tunde")


def test_a_grammar_keeps_answers_to_words_and_calls_and_the_prompts_as_they_are(base, rows, out):
    found = answer(base, out, condition="base_grammar", settings={**SETTINGS, "max_output_tokens": 30})
    assert [row["prompt_sha256"] for row in found] == [row["prompt_sha256"] for row in rows]
    words = vocabulary(base[1])
    for row in found:
        constraint = Constraint(words, grammar([TOOL]))
        assert all(map(constraint.accept, base[1].encode(row["text"], add_special_tokens=False)))
    free = answer(base, out, settings={**SETTINGS, "max_output_tokens": 30})
    assert [row["text"] for row in free] != [row["text"] for row in found]
    for workers in (1, 3):
        again = answer(
            base, out, condition="base_grammar", settings={**SETTINGS, "max_output_tokens": 30}, workers=workers
        )
        assert timeless(again) == timeless(found)


def test_free_answers_that_stand_are_taken_over_and_all_is_as_if_asked(tuned, out, asked):
    settings, about = {**SETTINGS, "max_output_tokens": 30}, out.with_name("about.json")
    free = answer(tuned, out, condition="tuned", settings=settings)
    for condition, threshold in (("tuned_grammar", None), *(("tuned_threshold", t) for t in (0.0, 1e-9, 1.0))):
        more = {"condition": condition, "settings": settings, "threshold": threshold}
        plain = answer(tuned, out, **more)
        asked.clear()
        # Some that would be said under the grammar stand in for what a trained model says freely.
        found = answer(tuned, out, **more, free=[*plain[:2], *free[2:]], about_path=about)
        taken = [row["id"] for row in found if row.get("free")]
        assert {"item-0", "item-1"} <= set(taken) != {row["id"] for row in found}
        assert len(asked) == len(EXAMPLES) - len(taken)
        assert orjson.loads(about.read_bytes())["free"] == len(taken)
        assert [row["seconds"] for row in found[:2]] == [row["seconds"] for row in plain[:2]]
        assert [{k: v for k, v in row.items() if k != "free"} for row in timeless(found)] == timeless(plain)


def test_free_answers_to_another_prompt_or_under_another_limit_are_not_taken_over(base, out, asked):
    settings = {**SETTINGS, "max_output_tokens": 30}
    free = [
        row | {"text": "Yes.", "output_tokens": 2, "finish_reason": "stop"}
        for row in answer(base, out, settings=settings)
    ]
    for changes in (
        {"prompt_sha256": "0"},
        {"max_output_tokens": 31},
        {"finish_reason": "too_long"},
        {"output_tokens": 99},
    ):
        asked.clear()
        found = answer(base, out, condition="base_grammar", settings=settings, free=[row | changes for row in free])
        assert len(asked) == len(EXAMPLES)
        assert not any("free" in row for row in found)


def test_the_control_is_not_shown_the_tools(base, rows, out):
    model, tokenizer = base
    for row, example in zip(answer(base, out, condition="no_tools"), EXAMPLES, strict=True):
        prompt = render_prompt(tokenizer, example.messages, None)
        assert row["prompt_sha256"] == hashlib.sha256(prompt.encode()).hexdigest()


def test_a_prompt_with_examples_is_stored(base, out):
    tool = {**TOOL, "function": {**TOOL["function"], "name": "at"}}
    train = [Example("t", [{"role": "user", "content": "When?"}], [tool], [{"name": "at", "arguments": {}}], "")]
    items = [Example(e.id, e.messages, e.tools, e.calls, "", answer=e.answer) for e in EXAMPLES[:2]]
    for row in answer(base, out, items, condition="base_fewshot", train=train):
        assert row["prompt_sha256"] == hashlib.sha256(row["prompt"].encode()).hexdigest()
        assert encode_calls(train[0].calls) in row["prompt"]
    with pytest.raises(CallwrightError, match="needs training examples"):
        answer(base, out, items, condition="base_fewshot")


def test_what_the_answers_cost_is_written_beside_them_and_adds_up_over_interruptions(base, out, interrupted):
    about = out.with_name("generate.json")
    interrupted(1, base, out, workers=1)
    lines = partial_of(out).read_bytes().splitlines()
    changed = [lines[0], *(orjson.dumps({**orjson.loads(line), "spent": 1000.0}) for line in lines[1:])]
    partial_of(out).write_bytes(b"".join(line + b"\n" for line in changed))
    found = answer(base, out, about_path=about)
    cost = orjson.loads(about.read_bytes())
    assert cost["seconds"] > 1000
    assert cost["items"] == len(found)
    assert cost["output_tokens"] == sum(row["output_tokens"] for row in found)
    assert cost["output_tokens_per_second"] == pytest.approx(cost["output_tokens"] / cost["seconds"], rel=1e-3)
    assert cost["peak_memory_gb"] > 0
    assert cost["batch_size"] == SETTINGS["batch_size"]
    assert {"device", "cores", "workers", "versions", "prompt_tokens", "length_stops"} <= set(cost)
    assert "llguidance" in cost["versions"]
    assert not any("spent" in row for row in stored(out))


# -- what is too long ------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_is_not_answered_and_the_others_are_as_ever(base, out, rows, tmp_path):
    length = sorted(row["prompt_tokens"] for row in rows)[-2]
    found = answer(base, out, settings={**SETTINGS, "max_prompt_tokens": length})
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert stored(out) == found
    for row, usual in zip(timeless(found), timeless(rows), strict=True):
        if usual["prompt_tokens"] > length:
            del usual["call_probability"]  # nothing was said
            assert row == {**usual, "finish_reason": "too_long", "text": "", "output_tokens": 0}
            scored = score_item(EXAMPLES[[example.id for example in EXAMPLES].index(row["id"])], row)
            assert (scored["stage"], scored["error"]) == ("started", "prompt_too_long")
        else:
            assert row == usual
    assert {row["finish_reason"] for row in answer(base, out, settings={**SETTINGS, "max_prompt_tokens": 1})} == {
        "too_long"
    }


def test_a_prompt_and_its_answer_fit_the_models_context():
    model = SimpleNamespace(args=SimpleNamespace(max_position_embeddings=100))
    assert longest_prompt(model, 30, None) == 70
    assert longest_prompt(model, 30, 50) == 50
    assert longest_prompt(SimpleNamespace(args=SimpleNamespace()), 30, None) == float("inf")


def test_the_limit_of_a_suite_from_elsewhere_follows_its_expected_answers(base, out, rows):
    long = SimpleNamespace(**{**vars(EXAMPLES[0]), "calls": [{"name": "now", "arguments": {}}]})
    needed, _ = needed_room(base[1], [long], "hermes")
    assert needed > SETTINGS["max_output_tokens"]
    [row] = answer(base, out, [long], fit_limit=True)
    assert row["output_tokens"] > SETTINGS["max_output_tokens"] or row["finish_reason"] == "stop"
    assert row["output_tokens"] <= needed


# -- what is refused -------------------------------------------------------------------------------


def test_room_for_the_longest_expected_answer_is_asked_for(base, out):
    model, tokenizer = base
    calls = [{"name": "now", "arguments": {}}]
    long = SimpleNamespace(**{**vars(EXAMPLES[0]), "id": "long", "calls": calls})
    length = len(tokenizer.encode(encode_calls(calls), add_special_tokens=False))
    needed = -(-3 * length // 2)
    check_room(tokenizer, [*EXAMPLES, long], needed, "hermes")
    with pytest.raises(CallwrightError) as caught:
        answer(base, out, [*EXAMPLES, long], settings={**SETTINGS, "max_output_tokens": needed - 1})
    for part in ("evaluation.max_output_tokens", str(needed - 1), "'long'", f"{length} tokens", f"at least {needed}"):
        assert part in str(caught.value)
    assert not out.exists()


def test_a_suite_without_items_is_refused(base, out):
    with pytest.raises(CallwrightError, match="'test_seen' has no items"):
        answer(base, out, [])


# -- interruptions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_continues_and_ends_with_the_same_file(base, rows, out, interrupted, asked, workers):
    interrupted(1, base, out, workers=workers)
    assert not out.exists()
    kept = len(stored(partial_of(out))) - 1
    assert kept == 1
    asked.clear()
    assert timeless(answer(base, out, workers=workers)) == timeless(rows)
    assert len(asked) == len(EXAMPLES) - kept
    assert timeless(stored(out)) == timeless(rows)
    assert not partial_of(out).exists()


def test_a_line_that_was_cut_off_is_answered_again(base, rows, out, interrupted, asked):
    interrupted(2, base, out, workers=1)
    lines = partial_of(out).read_bytes()
    partial_of(out).write_bytes(lines[:-20])
    asked.clear()
    assert timeless(answer(base, out)) == timeless(rows)
    assert len(asked) == len(EXAMPLES) - 1


def test_a_line_that_is_damaged_is_answered_again_with_all_after_it(base, rows, out, interrupted):
    """What a power cut may leave: the file has its length, but not its bytes."""
    interrupted(3, base, out, workers=1)
    lines = partial_of(out).read_bytes().splitlines(keepends=True)
    partial_of(out).write_bytes(b"".join([*lines[:2], b"\x00" * 100 + b"\n", *lines[3:]]))
    assert timeless(answer(base, out)) == timeless(rows)


CHANGES = {
    "another length limit": {"settings": {**SETTINGS, "max_output_tokens": 5}},
    "another batch size": {"batch_size": 1},
    "other examples": {"examples": EXAMPLES[:-1]},
    "another condition": {"condition": "tuned"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_setting_starts_afresh(base, out, interrupted, asked, name):
    interrupted(1, base, out, workers=1)
    asked.clear()
    answer(base, out, **CHANGES[name])
    assert len(asked) == len(CHANGES[name].get("examples", EXAMPLES))


def test_another_model_starts_afresh_and_says_so(base, tuned, out, interrupted, asked, tmp_path, monkeypatch):
    whole = timeless(answer(tuned, tmp_path / "other.jsonl"))
    interrupted(1, base, out, workers=1)
    asked.clear()
    said = []
    monkeypatch.setattr(partial.log, "info", lambda message, *_: said.append(message))
    assert timeless(answer(tuned, out)) == whole
    assert len(asked) == len(EXAMPLES)
    assert any("answering from the start" in message for message in said)


def test_an_adapter_of_another_scale_is_another_model(folder, adapter, tmp_path):
    """The scale is no weight, but it decides what is said."""
    config = orjson.loads((adapter / "adapter_config.json").read_bytes())
    config["lora_parameters"]["scale"] = 1.0
    other = tmp_path / "adapter"
    other.mkdir()
    (other / "adapter_config.json").write_bytes(orjson.dumps(config))
    (other / "adapters.safetensors").write_bytes((adapter / "adapters.safetensors").read_bytes())
    same, changed = (weights_hash(load_with(folder, path)[0]) for path in (adapter, other))
    assert same == weights_hash(load_with(folder, adapter)[0])
    assert same != changed


def test_a_failure_leaves_no_thread_and_no_replaced_function(base, out, monkeypatch):
    before = gemma3_text.scaled_dot_product_attention, set(threading.enumerate()), threads.cores()

    def broken(self):
        raise Killed

    monkeypatch.setattr(Engine, "advance", broken)
    for workers in (1, 2):
        with pytest.raises(Killed):
            answer(base, out, workers=workers)
        assert (
            gemma3_text.scaled_dot_product_attention,
            set(threading.enumerate()),
            threads.cores(),
        ) == before


def test_a_caller_that_stops_listening_ends_the_threads(base, monkeypatch):
    model, tokenizer = base
    prompts = [prompt_ids(tokenizer, example.messages, example.tools) for example in EXAMPLES]
    before = set(threading.enumerate())
    limits, make = iter([1, *[100_000] * len(prompts)]), working.Request
    monkeypatch.setattr(working, "Request", lambda prompt, limit, **more: make(prompt, next(limits), **more))
    answers = answer_all(model, prompts, 1, set(), running=1, workers=2)
    next(found for found in answers if found)  # the first answer is there, the others would take minutes
    assert set(threading.enumerate()) > before
    start = time.monotonic()
    answers.close()
    assert time.monotonic() - start < 10
    assert set(threading.enumerate()) == before


PROCESS = """
import sys
from types import SimpleNamespace
sys.path[:0] = {paths!r}
from callwright.runtime import device
device.configure(1)
import test_evals_generate as tests
from callwright.evals import generate as module
from callwright.models.load import load
append = module.Partial.append
def and_wait(self, rows):
    append(self, rows)
    print("stored", flush=True)
    sys.stdin.read()
module.Partial.append = and_wait
tests.answer(load({folder!r}), {out!r}, workers=1)
"""


@pytest.fixture
def process(root, folder, out):
    """Another process that answers into `out`; it has stored its first batch and waits."""
    paths = [str(root / "workflow" / "scripts"), str(root / "tests")]
    code = PROCESS.format(paths=paths, folder=str(folder), out=str(out))
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "stored\n"
    yield other
    other.kill()
    other.communicate()


def test_two_processes_do_not_answer_into_one_file_and_a_killed_one_is_continued(process, base, rows, out, asked):
    with pytest.raises(CallwrightError, match=r"another process is answering into .*generations\.jsonl"):
        answer(base, out)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert len(stored(partial_of(out))) == 2
    assert timeless(answer(base, out)) == timeless(rows)
    assert len(asked) == len(EXAMPLES) - 1
    assert timeless(stored(out)) == timeless(rows)


# -- threads of the BLAS ---------------------------------------------------------------------------


@pytest.mark.skipif(not blas.is_fast(), reason="no OpenBLAS was loaded here")
@pytest.mark.skipif(sys.platform != "linux", reason="macOS's BLAS looks after its own threads")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_workers_have_a_blas_of_one_thread_each_and_give_back_what_there_was(base, out, count, monkeypatch):
    seen = []

    real = Engine.advance

    def noting(self):
        seen.append((threading.current_thread().name, threads.cores()))
        return real(self)

    monkeypatch.setattr(Engine, "advance", noting)
    with threads.blas_threads(count):
        answer(base, out)
        assert threads.cores() == count
    assert {count for _, count in seen} == {1}
    # As many workers as the BLAS was given threads (config key device.cpu_threads); one needs no thread of its own.
    assert len({name for name, _ in seen}) <= count
    assert ("MainThread" in dict(seen)) == (count == 1)


HELD = SimpleNamespace(
    messages=[{"role": "user", "content": "Wake me tomorrow, only tomorrow"}],
    tools=[
        {
            "type": "function",
            "function": {
                "name": "set_alarm",
                "parameters": {
                    "type": "object",
                    "properties": {"day": {"type": "string"}, "wake_time": {"type": "string"}},
                    "required": ["day", "wake_time"],
                },
            },
        }
    ],
)


@pytest.mark.parametrize(
    ("calls", "places", "name"),
    [
        ([{"day": "tomorrow", "wake_time": "tomorrow"}], None, None),
        ([{"day": "tomorrow"}], [0], "wake time"),
        ([{"day": "Lyon", "wake_time": "tomorrow"}], [0], "day"),
        ([{"day": "tomorrow", "wake_time": "tomorrow"}, {"day": "tomorrow"}], [1], "wake time"),
    ],
)
def test_what_nobody_said_is_held_back_and_asked_for(calls, places, name):
    text = encode_calls([{"name": "set_alarm", "arguments": arguments} for arguments in calls])
    found = module.as_served(HELD, {"text": text})
    assert found.get("held_back") == places
    left = read_answer({"text": text, **found})
    assert [call["arguments"] for call in left.calls] == [c for at, c in enumerate(calls) if at not in (places or [])]
    if name:
        assert name in found["question"]
    if not left.calls:
        assert left.content == found["question"]


def test_a_tools_own_question_is_asked_where_it_has_one():
    text = encode_calls([{"name": "set_alarm", "arguments": {"day": "tomorrow"}}])
    own = {"set_alarm": {"wake_time": "When shall I wake you?"}, "other": {"day": "Which day?"}}
    assert module.as_served(HELD, {"text": text}, own)["question"] == "When shall I wake you?"
    assert "wake time" in module.as_served(HELD, {"text": text}, {"other": own["other"]})["question"]


def test_a_call_to_no_tool_on_offer_is_an_error_and_not_held_back():
    assert module.as_served(HELD, {"text": encode_calls([{"name": "other", "arguments": {}}])}) == {}


def test_what_was_held_back_is_no_call_in_the_lenient_score_either():
    row = {"id": "a", "text": encode_calls([{"name": "set_alarm", "arguments": {"day": "tomorrow"}}])}
    row |= {"suite": "s", "condition": "tuned_served", "finish_reason": "stop", **module.as_served(HELD, row)}
    example = Example("a", HELD.messages, HELD.tools, [], "test")
    assert score_item(example, row)["lenient_ast"]
    assert answer_text(row) == row["question"]
