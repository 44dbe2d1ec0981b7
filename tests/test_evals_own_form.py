"""A model with a form of its own from its folder to its scores: a tiny random one, made to call by its grammar."""

import json
from types import SimpleNamespace

import pytest
from fixtures_forms import FORMS, make_own

from callwright.agent.models import LocalModel
from callwright.chat.call_format import KEY, form_of, read_answer
from callwright.chat.own_form import own_answer
from callwright.chat.tokens import prompt_ids
from callwright.evals.generate import generate
from callwright.evals.scoring.score import score_item
from callwright.lora.adapted import open_model
from callwright.models.load import load
from callwright.report.items import made_calls
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_jsonl
from callwright.serve.limits import Limits
from callwright.serve.model import ServedModel
from callwright.serve.protocol import read_request

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "light",
            "description": "The lamp.",
            "parameters": {
                "type": "object",
                "properties": {"on": {"type": "boolean"}, "room": {"enum": ["hall", "attic"]}},
                "required": ["on", "room"],
            },
        },
    }
]
EXAMPLES = [
    SimpleNamespace(
        id=f"item-{number}",
        messages=[{"role": "user", "content": text}],
        tools=TOOLS,
        calls=[{"name": "light", "arguments": {"on": True, "room": "hall"}}],
        answer=None,
        tags=(),
    )
    for number, text in enumerate(["Light in the hall.", "Lamp on!", "It is dark."])
]
SETTINGS = {"items": 3, "max_output_tokens": 220, "batch_size": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """`folders(family)`: the folder of a converted model of that family."""
    found = {}

    def of(family):
        if family not in found:
            found[family] = make_own(tmp_path_factory.mktemp("own"), FORMS[family])
        return found[family]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("family", ["lfm2", "mistral list", "kimi k2"])
def test_answers_under_the_grammar_are_stored_read_and_scored_in_the_own_form(folders, tmp_path, family):
    model, tokenizer = load(folders(family))
    form = form_of(tokenizer)
    rows = generate(model, tokenizer, EXAMPLES, "test_seen", "base_grammar", SETTINGS, tmp_path / "rows.jsonl")
    assert rows == list(read_jsonl(tmp_path / "rows.jsonl"))
    for example, row in zip(EXAMPLES, rows, strict=True):
        assert row[KEY] == form.name == FORMS[family][2]
        score = score_item(example, row)
        if form.opening in row["text"] and row["finish_reason"] == "stop":
            assert score["native_parse"]
            assert score["schema_valid"]
        else:
            assert score["error"] in ("abstained_when_should_call", "truncated")
    right = own_answer(tokenizer, EXAMPLES[0].messages, TOOLS, EXAMPLES[0].calls, "")[0]
    row = {**rows[0], "text": right, "finish_reason": "stop"}
    score = score_item(EXAMPLES[0], row)
    assert score["exact"]
    assert score["lenient_ast"]
    assert made_calls(row, TOOLS) == EXAMPLES[0].calls
    del row[KEY]  # without its form it is no answer that a server reads
    assert not score_item(EXAMPLES[0], row)["native_parse"]
    assert read_answer(row, TOOLS).calls == []


def test_a_condition_with_a_grammar_that_there_is_not_says_so(folders, tmp_path):
    model, tokenizer = load(folders("glm"))
    with pytest.raises(CallwrightError, match="no grammar for calls in the model's own form glm47"):
        generate(model, tokenizer, EXAMPLES, "test_seen", "base_grammar", SETTINGS, tmp_path / "rows.jsonl")
    [row, *_] = generate(model, tokenizer, EXAMPLES, "test_seen", "base", SETTINGS, tmp_path / "rows.jsonl")
    assert row[KEY] == "glm47"


def request(choice):
    body = {"model": "m", "messages": EXAMPLES[0].messages, "tools": TOOLS, "tool_choice": choice}
    return read_request(json.dumps(body).encode(), Limits())


def test_the_server_reads_and_constrains_the_own_form(folders):
    served = ServedModel(*open_model(folders("lfm2")), "m")
    prepared = served.prepare(request("required"), Limits())
    assert prepared.prompt == prompt_ids(served.tokenizer, EXAMPLES[0].messages, TOOLS)
    assert prepared.processor is not None
    [delta] = prepared.answer.feed("<|tool_call_start|>[light(on=True, room='hall')]<|tool_call_end|>")
    assert json.loads(delta.call["function"]["arguments"]) == {"on": True, "room": "hall"}
    without = ServedModel(*open_model(folders("glm")), "m")
    assert without.prepare(request("auto"), Limits()).processor is None
    with pytest.raises(Exception, match="has no grammar for this model's calls"):
        without.prepare(request("required"), Limits())


def test_the_agent_reads_the_own_form(folders, caplog):
    agent = LocalModel(folders("lfm2"), None, max_tokens=220)
    reply = agent.answer(EXAMPLES[0].messages, TOOLS)
    assert not reply.problems or reply.cut
    assert all(call["name"] == "light" for call in reply.calls)
    assert "answers are not constrained" not in caplog.text
    LocalModel(folders("glm"), None, max_tokens=20)
    assert "answers are not constrained: there is no grammar" in caplog.text
