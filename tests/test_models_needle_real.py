"""The published Needle 3: against the JAX code of its makers, their tokenizer, and their engine's answers."""

import importlib
import json

import mlx.core as mx
import numpy as np
import pytest
from fixtures_needle_real import needle_folder, needle_jax, needle_package, needle_wheel  # noqa: F401

from callwright.chat.call_format import form_of, read_answer
from callwright.chat.tokens import encode, prompt_ids, tokenize_example
from callwright.decoding.constrain import Constraint, grammar, special_markers, vocabulary
from callwright.decoding.decode import greedy
from callwright.lora.blocks import Blocks
from callwright.models.cpu_math import fast_inference
from callwright.models.load import load
from callwright.runtime.files import read_json


def function(name: str, description: str, required: int = 1, **parameters: str) -> dict:
    """An OpenAI tool whose parameters have the given types."""
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in parameters.items()},
        "required": list(parameters)[:required],
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    function("get_weather", "Get the weather of a city.", city="string", days="integer"),
    function("set_alarm", "Set an alarm.", time="string", label="string"),
    function("send_money", "Send money to a person.", 2, person="string", amount="number"),
    function("translate", "Translate a text.", 2, text="string", language="string"),
    function("play_music", "Play a song or an artist.", query="string"),
]
REQUESTS = [
    "What is it like in Lagos?", "Wake me at 7:30.", "Send 20 dollars to Ada.", "Play something by Fela Kuti",
    "How do you say good night in Polish?", "Who wrote Hamlet?", "Weather in Paris for the next 3 days, please.",
    "An alarm for noon, called lunch", "I owe Grace 12.50, send it", "Weather in Oslo, and in Rome", "",
    "Привет! Какая погода в Москве?", "天気は?", "Just saying hi 😀", "send money", "set  an   alarm \n at 6",
    "Translate 'I am late' into German and wake me at five.", "Play Yesterday", "Cancel everything!", "a b c d e f g",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(needle_folder):  # noqa: F811
    return load(needle_folder)


def prompts(tokenizer, count: int = 20) -> list[list[int]]:
    """The token ids of the requests, with one to five tools on offer."""
    return [
        prompt_ids(tokenizer, [{"role": "user", "content": text}], TOOLS[: 1 + n % 5])
        for n, text in enumerate(REQUESTS[:count])
    ]


def test_hidden_states_and_logits_are_those_of_the_jax_code(model, needle_jax):  # noqa: F811
    import jax

    model, tokenizer = model
    network, parameters = needle_jax
    hidden_states = jax.jit(lambda p, tokens: network.apply({"params": p}, tokens, method="hidden_states"))
    all_logits = jax.jit(lambda p, tokens: network.apply({"params": p}, tokens))
    blocks, records = Blocks(model), prompts(tokenizer)
    width = max(map(len, records))
    for ids in records:
        # Padding on the right, which no token before it sees: JAX compiles for each length anew.
        padded = np.array([ids + [0] * (width - len(ids))], np.int32)
        theirs = np.asarray(hidden_states(parameters, padded))[:, 0, : len(ids)]
        h, calls = blocks.enter(mx.array([ids]))
        for n, expected in enumerate(theirs):
            h = blocks.run(h, calls, n, n + 1)
            found = np.array(h[0]).reshape(len(ids), 4, -1).mean(1)
            # They reach 30 million in the last layer: an error is measured by each layer's largest.
            assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
        logits = np.array(model(mx.array([ids]))[0])
        their_logits = np.asarray(all_logits(parameters, padded))[0, : len(ids)]
        assert np.abs(logits - their_logits).max() < 1e-3
        assert (logits.argmax(-1) == their_logits.argmax(-1)).all()


def test_texts_become_the_tokens_of_their_own_tokenizer(model, needle_package):  # noqa: F811
    _, tokenizer = model
    pytest.importorskip("jax", reason="their tokenizer's module imports jax: pip install jax")
    export = importlib.import_module("needle.model.export")
    theirs = export.RefTokenizer.from_cact(f"{needle_package.__path__[0]}/needle3.cact")
    letters = np.random.default_rng(0)
    texts = [
        *REQUESTS,
        json.dumps(TOOLS),
        "  two  blanks\n\n\t tabs",
        "aaaaaaa ======",
        "<think>\nx\n</think><tool_call>[]",
    ]
    texts += ["".join(letters.choice(list('abeinort <>{}[]",:019\n=-_é中'), 60)) for _ in range(200)]
    for text in texts:
        ids = encode(tokenizer, text)
        assert ids == theirs.encode(text)
        assert tokenizer.decode(ids) == theirs.decode(ids)


def test_the_folder_says_what_the_model_is(needle_folder, model):  # noqa: F811
    found = read_json(needle_folder / "model.json")
    assert found["license"] == "Apache-2.0"
    assert found["parameters"] == 120_948_784  # of the answering model; the heads beside it are not counted
    assert found["parameters_by_bits"] == {"2": 112_558_080, "4": 7_766_016, "32": 624_688}
    assert found["stop_tokens"] == ["</s>", "<|im_end|>"]
    assert found["call_format"] == "json_tools+reasons"
    form = form_of(model[1])
    assert form.reasons
    assert form.layout.first == '<tool_call>[{"name":"'
    assert form.layout.nothing == "<tool_call>[]</tool_call>"


def test_a_trained_answer_is_a_line_of_reasons_and_one_list_of_calls(model):
    _, tokenizer = model
    example = {
        "id": "a",
        "messages": [{"role": "user", "content": "Wake me at 7:30 and send Ada twenty dollars."}],
        "tools": TOOLS,
        "calls": [
            {"name": "set_alarm", "arguments": {"time": "07:30"}},
            {"name": "send_money", "arguments": {"person": "Ada", "amount": 20}},
        ],
    }
    row = tokenize_example(tokenizer, example)
    assert tokenizer.decode(row["input_ids"][slice(*row["spans"][0])]) == (
        "<think>\nset_alarm with '7:30' -> time '07:30'; "
        "send_money with person 'Ada' from query, 'twenty' -> amount 20.\n</think>\n"
        '<tool_call>[{"name":"set_alarm","arguments":{"time":"07:30"}},'
        '{"name":"send_money","arguments":{"person":"Ada","amount":20}}]</tool_call><|im_end|>'
    )
    row = tokenize_example(tokenizer, {**example, "calls": [], "answer": "Which account?"})
    trained = tokenizer.decode(row["input_ids"][slice(*row["spans"][0])])
    assert trained == "<think>\nWhich account?\n</think>\n<tool_call>[]</tool_call><|im_end|>"
    assert read_answer({"text": trained.removesuffix("<|im_end|>"), **form_of(tokenizer).mark}).calls == []


def test_its_grammar_takes_what_it_is_taught_and_nothing_else(model):
    _, tokenizer = model
    form, words = form_of(tokenizer), vocabulary(tokenizer)
    rules = grammar(TOOLS, style=form, special=special_markers(words, form))
    call = '<tool_call>[{"name":"set_alarm","arguments":{"time":"07:30"}}]</tool_call>'
    accepted = ["<think>\nNo tool.\n</think>\n<tool_call>[]</tool_call>", "<tool_call>[]</tool_call>", call]
    accepted.append(f"<think>\ntime '07:30'\n</think>\n{call}")
    refused = ["Hello", "<think>\na\n", call.replace("time", "hour"), call.replace('{"time":"07:30"}', "{}")]
    for text, right in [*((text, True) for text in accepted), *((text, False) for text in refused)]:
        walk = Constraint(words, rules)
        assert (all(walk.accept(token) for token in encode(tokenizer, text)) and walk.complete) == right, text


def test_prompts_are_written_as_their_training_writes_them(model, needle_package):  # noqa: F811
    pytest.importorskip("sentencepiece", reason="their module for training imports sentencepiece")
    _, tokenizer = model
    render = importlib.import_module("needle.model.finetune").render_example
    for system in ("", "date: 2026-11-28"):
        messages = [{"role": "system", "content": system}] if system else []
        ours = tokenizer.decode(prompt_ids(tokenizer, [*messages, {"role": "user", "content": "Hi ä"}], TOOLS))
        tools = [tool["function"] for tool in TOOLS]
        assert ours == "<s>" + render({"query": "Hi ä", "tools": tools, "answers": [], "system": system})[0]


def test_the_engine_of_the_wheel_gives_the_same_answers(model, needle_package):  # noqa: F811
    """Ten requests: reasons and calls, letter for letter (its weights are the same, its activations have 8 bits)."""
    model, tokenizer = model
    form = form_of(tokenizer)
    ids = [prompt_ids(tokenizer, [{"role": "user", "content": text}], TOOLS) for text in REQUESTS[:10]]
    with fast_inference(model):
        answers = greedy(model, ids, 120, set(tokenizer.eos_token_ids))
    try:
        engine = needle_package.Needle(
            tools=[tool["function"] for tool in TOOLS], auto_date=False, stateless=True, generation=3
        )
    except OSError as error:
        pytest.skip(f"the wheel's engine does not run on this machine: {error}")
    same = 0
    for text, answer in zip(REQUESTS, answers, strict=False):
        theirs = engine.complete(text)
        ours = form.read(tokenizer.decode(answer.ids))
        assert not ours.errors
        # What it is not sure of, it holds back: `suppressed_calls`.
        same += ours.calls == (theirs["function_calls"] or theirs["suppressed_calls"])
    assert same >= 9, same
