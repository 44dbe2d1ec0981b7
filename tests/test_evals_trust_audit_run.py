"""The audit finds what it is there to find, and nothing in a clean evaluation."""

import hashlib
import json
import re

import pytest
from fixtures_gemma import make_gemma

from callwright.chat.formats import encode_calls
from callwright.chat.template import choose_template
from callwright.data.records import Example
from callwright.evals.suites import FAULTY
from callwright.evals.trust import gate
from callwright.evals.trust.audit_run import FAILED, OK, TAGGED, UNCHECKED, audit
from callwright.evals.trust.contamination import contaminated, shared_with
from callwright.evals.trust.leaks import serialisations, squeeze
from callwright.models.load import load_tokenizer

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "units": {"type": "string"}},
    "required": ["city"],
}
TOOL = {
    "type": "function",
    "function": {"name": "get_forecast", "description": "Weather forecast.", "parameters": PARAMETERS},
}
OTHER = {"type": "function", "function": {"name": "ping", "description": "", "parameters": {"type": "object"}}}
CALL = {"name": "get_forecast", "arguments": {"city": "Zürich Höngg", "days": 5}}


def query(number):
    """A request unlike all others."""
    words = hashlib.sha256(str(number).encode()).hexdigest().translate(str.maketrans("0123456789", "ghijklmnop"))
    return f"Forecast {words[:6]} {words[6:12]} {words[12:20]} {words[20:30]}?"


def item(number, **changes):
    row = {
        "id": f"i{number}",
        "messages": [{"role": "user", "content": query(number)}],
        "tools": [TOOL, OTHER],
        "calls": [CALL],
        **changes,
    }
    return Example.from_row(row)


def prompt(example, before="", after=""):
    """What a template makes of an example, with something slipped in."""
    tools = "\n".join(json.dumps(tool) for tool in example.tools)
    said = "\n".join(f"{message['role']}: {message['content']}" for message in example.messages)
    return f"system: {before}You can call:\n{tools}\n{said}{after}\nassistant: "


def row(example, condition="tuned", **changes):
    text = prompt(example)
    return {"id": example.id, "suite": "s", "condition": condition, "finish_reason": "stop", "text": "", "prompt": text,
            "prompt_sha256": hashlib.sha256(text.encode()).hexdigest(), **changes}  # fmt: skip


def rows(examples, condition="tuned", **changes):
    return [row(example, condition, **changes) for example in examples]


def slipped(example, before="", after=""):
    text = prompt(example, before, after)
    return row(example, prompt=text, prompt_sha256=hashlib.sha256(text.encode()).hexdigest())


def found(examples, generations, **more):
    return {finding.check: finding for finding in audit(examples, generations, **more)}


@pytest.fixture
def examples():
    return [item(number) for number in range(10)]


def test_a_clean_evaluation_passes(examples):
    answers = [*rows(examples, "base"), *rows(examples, "tuned")]
    checks = found(examples, answers, train=[item(1, messages=[{"role": "user", "content": "Something else"}])],
                   limit=100, count_tokens=lambda text: len(text) // 3)  # fmt: skip
    assert {name: check.verdict for name, check in checks.items()} == {
        "leak": OK, "tools": OK, "prompts": OK, "items": OK, "copying": OK, "no_tools": UNCHECKED, "gold": OK,
        "limit": OK, "length": OK, "contamination": OK,
    }  # fmt: skip


def test_what_is_missing_is_not_passed(examples):
    bare = [{"id": e.id, "suite": "s", "condition": "x", "finish_reason": "stop", "text": ""} for e in examples]
    verdicts = {name: check.verdict for name, check in found(examples, bare).items()}
    unchecked = {name for name, verdict in verdicts.items() if verdict == UNCHECKED}
    assert unchecked == {"leak", "tools", "prompts", "items", "copying", "no_tools", "limit", "contamination"}


ARGUMENTS = CALL["arguments"]
REVERSED = dict(reversed(ARGUMENTS.items()))
LEAKS = {
    "Hermes": encode_calls([CALL]),
    "fenced": encode_calls([CALL], style="fenced"),
    "indented": json.dumps(CALL, indent=4),
    "ASCII": json.dumps(CALL),
    "compact": json.dumps(CALL, separators=(",", ":"), ensure_ascii=False),
    "arguments first": json.dumps({"arguments": ARGUMENTS, "name": CALL["name"]}),
    "other order": json.dumps({"name": CALL["name"], "arguments": REVERSED}, ensure_ascii=False),
    "OpenAI": json.dumps({"type": "function", "function": {"name": CALL["name"], "arguments": json.dumps(ARGUMENTS)}}),
    "JSON in JSON in JSON": json.dumps(json.dumps({"x": json.dumps(CALL)})),
    "parameters": json.dumps({"name": CALL["name"], "parameters": ARGUMENTS}),
    "Python": "get_forecast(city='Zürich Höngg', days=5)",
    "Python, double quotes": '[get_forecast(city="Zürich Höngg",days=5)]',
    "Python, other order": "get_forecast(days=5, city='Zürich Höngg')",
    "dictionary": str(ARGUMENTS),
    "arguments alone": "Expected: " + json.dumps(ARGUMENTS, ensure_ascii=False),
    "XML": "<city>Zürich Höngg</city>\n<days>5</days>",
    "XML parameters": "<function=get_forecast>\n<parameter=city>\nZürich Höngg\n</parameter>\n<parameter=days>\n5\n"
    "</parameter>\n</function>",
    "YAML": "name: get_forecast\narguments:\n  city: Zürich Höngg\n  days: 5",
}


@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_leak_is_found_in_every_serialisation(examples, name, place):
    answers = [slipped(examples[0], **{place: LEAKS[name]}), *rows(examples[1:])]
    check = found(examples, answers)["leak"]
    assert (check.verdict, check.items) == (FAILED, ["i0"]), name


@pytest.mark.parametrize("name", LEAKS)
def test_what_the_request_itself_says_is_no_leak(name):
    asked = item(0, messages=[{"role": "user", "content": f"Please run {LEAKS[name]} for me"}])
    assert found([asked], rows([asked]))["leak"].verdict == OK
    assert found([asked], [slipped(asked, before=LEAKS[name])])["leak"].verdict == FAILED


def test_what_tools_and_earlier_turns_say_is_no_leak(examples):
    described = {**TOOL, "function": {**TOOL["function"], "description": f"For example {json.dumps(CALL)}."}}
    told = item(0, tools=[described])
    assert found([told], rows([told]))["leak"].verdict == OK
    first = {"role": "assistant", "content": encode_calls([CALL])}
    again = item(1, messages=[{"role": "user", "content": "Forecast?"}, first, {"role": "user", "content": "Again."}])
    assert found([again], rows([again]))["leak"].verdict == OK


def test_serialisations_cover_values_of_every_type():
    call = {"name": "f", "arguments": {"a": True, "b": None, "c": [1.5, "x y"], "d": {"e": "ü"}}}
    wanted = [json.dumps(call), str(call["arguments"]), "f(a=True, b=None, c=[1.5, 'x y'], d={'e': 'ü'})"]
    texts = serialisations(call)
    assert all(any(text in squeeze(one) for text in texts) for one in wanted)
    assert all(text in {squeeze(text)} for text in texts)
    assert "{}" not in serialisations({"name": "f", "arguments": {}})


def test_a_tool_that_the_prompt_lacks_is_named(examples):
    without = [row(e, prompt=f"user: {e.query}\nassistant: ", prompt_sha256=None) for e in examples]
    check = found(examples, without)["tools"]
    assert check.verdict == FAILED
    assert check.items == [e.id for e in examples]
    assert "'get_forecast' in i0" in check.about
    named = item(0, messages=[{"role": "user", "content": "Use get_forecast with city, days, units, or ping."}])
    check = found([named], [row(named, prompt=f"user: {named.query}\n", prompt_sha256=None)])["tools"]
    assert check.verdict == FAILED, "that the user names a tool does not show it to the model"
    short = [row(e, prompt=prompt(e).replace('"units"', '"u"'), prompt_sha256=None) for e in examples]
    assert "'units' in i0" in found(examples, short)["tools"].about


def test_prompts_that_differ_are_found_but_not_those_that_differ_by_design(examples):
    answers = [*rows(examples, "base"), *rows(examples[1:], "tuned"), slipped(examples[0], after=" ")]
    check = found(examples, answers)["prompts"]
    assert (check.verdict, check.items) == (FAILED, ["i0"])
    fewshot = rows(examples, "base_fewshot", prompt="else", prompt_sha256=hashlib.sha256(b"else").hexdigest())
    assert found(examples, [*rows(examples, "base"), *rows(examples, "tuned"), *fewshot])["prompts"].verdict == OK
    fewer = rows(
        examples, "tuned_served", prompt="some", prompt_sha256=hashlib.sha256(b"some").hexdigest(), offered=["ping"]
    )
    check = found(examples, [*rows(examples, "base"), *rows(examples, "tuned"), *fewer])["prompts"]
    assert check.verdict == OK
    assert f"{len(fewer)} prompts show the tools alone" in check.about
    forged = [*rows(examples[1:]), row(examples[0], prompt_sha256="0" * 64)]
    check = found(examples, [*rows(examples, "base"), *forged])["prompts"]
    assert (check.verdict, check.items) == (FAILED, ["i0"])
    assert "not that of the prompt" in check.about


def test_conditions_must_answer_the_same_items(examples):
    check = found(examples, [*rows(examples, "base"), *rows(examples[2:], "tuned")])["items"]
    assert (check.verdict, check.items) == (FAILED, ["i0", "i1"])


def test_copying_what_the_request_gives_away_is_noticed(examples):
    given = [item(n, messages=[{"role": "user", "content": f"{n}: {json.dumps(CALL)}"}]) for n in range(4)]
    check = found([*given, *examples[4:]], rows([*given, *examples[4:]]))["copying"]
    assert check.verdict == FAILED
    assert check.items == ["i0", "i1", "i2", "i3"]
    assert "4 of 10" in check.about


def test_a_condition_without_tools_must_know_nothing(examples):
    blind = rows(examples, "no_tools", prompt="?", prompt_sha256=hashlib.sha256(b"?").hexdigest())
    checks = found(examples, [*rows(examples), *blind])
    assert (
        checks["no_tools"].verdict == checks["tools"].verdict == checks["prompts"].verdict.replace(UNCHECKED, OK) == OK
    )
    knowing = [{**one, "text": encode_calls([CALL])} for one in blind]
    check = found(examples, [*rows(examples), *knowing])["no_tools"]
    assert check.verdict == FAILED
    assert len(check.items) == 10


def test_expected_answers_that_do_not_score_are_found(examples):
    broken = Example("i0", examples[0].messages, [TOOL], [{"name": "get_forecast", "arguments": {}}], "")
    check = found([broken, *examples[1:]], rows(examples[1:]))["gold"]
    assert (check.verdict, check.items) == (FAILED, ["i0"])


@pytest.mark.parametrize(("limit", "verdict"), [(42, FAILED), (43, OK), (None, UNCHECKED)])
def test_the_limit_leaves_room(examples, limit, verdict):
    longest = len(encode_calls([CALL]))
    check = found(examples, rows(examples), limit=limit, count_tokens=lambda text: round(28 * len(text) / longest) + 1)
    assert check["limit"].verdict == (FAILED if limit == 43 else verdict), "29 tokens need 44"


def test_the_limit_is_learned_from_the_rows_and_lengths_are_estimated(examples):
    text = encode_calls([CALL])
    answers = rows(examples, text=text, output_tokens=len(text) // 2)
    assert found(examples, answers)["limit"].verdict == UNCHECKED
    answers[0] |= {"finish_reason": "length", "output_tokens": len(text) // 2 + 3}
    check = found(examples, answers)["limit"]
    assert check.verdict == FAILED
    assert "estimated" in check.about
    assert found(examples, [{**one, "max_output_tokens": len(text)} for one in rows(examples, text=text,
                 output_tokens=len(text) // 2)])["limit"].verdict == OK  # fmt: skip


def test_cut_answers_are_reported_and_are_an_error_of_a_tuned_model(examples):
    cut = rows(examples[:1], "base", finish_reason="length") + rows(examples[1:], "base")
    check = found(examples, [*cut, *rows(examples, "tuned")])["length"]
    assert check.verdict == OK
    assert "base 1 of 10 (10.0%), tuned 0 of 10 (0.0%)" in check.about
    tuned = rows(examples[:2], "tuned", finish_reason="length") + rows(examples[2:], "tuned")
    check = found(examples, tuned)["length"]
    assert (check.verdict, check.items) == (FAILED, ["i0", "i1"])
    check = found(examples, [{**row, "condition": "tuned_served"} for row in tuned])["length"]
    assert check.verdict == OK
    assert "tuned_served 2 of 10" in check.about


def test_trained_requests_are_found_exactly_and_nearly(examples):
    near = query(1).removesuffix("?")[:-1]
    train = [item(0, id="a"), item(1, id="b", messages=[{"role": "user", "content": near}])]
    check = found(examples, rows(examples), train=train)["contamination"]
    assert (check.verdict, check.items) == (FAILED, ["i0", "i1"])
    assert (
        "1 of 10 requests are in the 2 training examples, 1 more nearly, 1 in the same wording; 2 of 2 tool definitions"
        in check.about
    )


def test_wordings_that_training_has_are_counted_but_are_no_request_of_it(examples):
    asked = "Please tell me the forecast of {}."
    train = [item(20, messages=[{"role": "user", "content": asked.format("Zürich Höngg")}])]
    other = {"name": "get_forecast", "arguments": {"city": "the lonely southern islands of Tristan da Cunha"}}
    told = item(0, messages=[{"role": "user", "content": asked.format(other["arguments"]["city"])}], calls=[other])
    check = found([told, *examples[1:]], rows(examples), train=train)["contamination"]
    assert (check.verdict, check.items) == (OK, [])
    assert "1 in the same wording" in check.about
    assert shared_with(train, [told])["same_template"] == ["i0"]


def test_the_share_of_answers_that_may_be_cut_is_a_setting(examples):
    answers = rows(examples[:2], "tuned", finish_reason="length") + rows(examples[2:], "tuned")
    assert found(examples, answers, max_cut=0.19)["length"].verdict == FAILED
    assert found(examples, answers, max_cut=0.2)["length"].verdict == OK


def test_one_cut_answer_alone_is_no_failure_of_a_small_suite(examples):
    answers = rows(examples[:1], "tuned", finish_reason="length") + rows(examples[1:], "tuned")
    assert found(examples, answers)["length"].verdict == OK
    assert found(examples, answers, max_cut=0)["length"].verdict == FAILED


def test_items_without_a_right_answer_lower_the_ceiling_and_are_no_failure(examples):
    wrong = [{"name": "get_forecast", "arguments": {}}]
    faulty = Example("i0", examples[0].messages, [TOOL], wrong, "", tags=(FAULTY,))
    check = found([faulty, *examples[1:]], rows(examples))["gold"]
    assert check.verdict == OK
    assert "1 more have no right answer: at most 90.0% can be right" in check.about


# -- of a run: before any score --------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tiny model's tokenizer, with the chat template that conversion gives it."""
    tokenizer = load_tokenizer(make_gemma(tmp_path_factory.mktemp("gemma") / "model"))
    tokenizer.chat_template = choose_template(tokenizer)
    return tokenizer


@pytest.fixture
def own_template(tmp_path):
    """The tokenizer with Gemma's own template, which drops tools without a word."""
    return load_tokenizer(make_gemma(tmp_path / "model"))


CONDITIONS = ["base", "base_fewshot", "base_grammar", "tuned", "fused", "no_tools"]
SPLIT = {"audit": {"shared_requests": 0, "near_copies": 0}}


def said(number, **changes):
    """An item as a run has them; its tool is one of three."""
    name = f"get_{number % 3}"
    tool = {"type": "function", "function": {**TOOL["function"], "name": name}}
    call = {"name": name, "arguments": {"city": f"Zürich {query(number)[9:20]}", "days": number}}
    return item(number, **{"tools": [tool, OTHER], "calls": [call], **changes})


def sets_of(examples):
    train = [said(number) for number in range(100, 106)]
    train += [said(110, calls=[], answer="No."), said(111, calls=[said(111).calls[0]] * 2)]
    return {"train": train, "valid": [said(200)], "test_seen": examples, "test_unseen_tools": [said(300)]}


def answers_of(tokenizer, examples, **changes):
    """What rule generate stores, as far as the audit reads it."""
    prompts = gate.rendered(tokenizer, examples, CONDITIONS, sets_of(examples)["train"], "hermes")
    return [
        {"id": e.id, "suite": "test_seen", "condition": name, "finish_reason": "stop", "text": "I can't.",
         "prompt_sha256": hashlib.sha256(prompts[name][e.id].encode()).hexdigest(), "max_output_tokens": 500, **changes}
        for name in CONDITIONS for e in examples
    ]  # fmt: skip


def reported(tokenizer, examples, answers, suite="test_seen", own=True, most=0.01, **sets):
    settings = {"evaluation": {"max_output_tokens": 500}, "data": {"format": "hermes"}, "own": own,
                "max_length_stops": most}  # fmt: skip
    return gate.report(suite, examples, answers, tokenizer, {**sets_of(examples), **sets}, SPLIT, settings)


@pytest.fixture
def asked():
    return [said(number) for number in range(8)]


def test_a_runs_answers_are_audited_under_every_condition(tokenizer, asked):
    report = reported(tokenizer, asked, answers_of(tokenizer, asked))
    assert report["problem"] is None
    assert {found["check"]: found["verdict"] for found in report["findings"]} == dict.fromkeys(
        ["leak", "tools", "prompts", "items", "copying", "no_tools", "gold", "limit", "length", "contamination"], OK
    )
    assert report["conditions"] == CONDITIONS
    assert report["items"] == 8
    assert report["contaminated"] == []
    assert report["sets"]["train, test_seen"] == {"requests": 0, "near_requests": 0, "templates": 0, "tools": 4}
    assert len(report["sets"]) == 6


def test_a_template_that_drops_the_tools_is_found(own_template, asked):
    line = reported(own_template, asked, answers_of(own_template, asked))["problem"]
    assert "prompts lack a tool" in line
    assert "the chat template must show every tool" in line


@pytest.mark.parametrize("condition", CONDITIONS)
def test_another_prompt_under_any_condition_is_found(tokenizer, asked, condition):
    answers = answers_of(tokenizer, asked)
    row = next(row for row in answers if row["condition"] == condition)
    row["prompt_sha256"] = "0" * 64
    report = reported(tokenizer, asked, answers)
    assert [found["check"] for found in report["findings"] if found["verdict"] == FAILED] == ["prompts"]
    assert "the audit of test_seen failed" in report["problem"]
    assert "[i0]" in report["problem"]


def test_examples_in_the_prompt_are_training_examples_and_the_control_sees_no_tool(tokenizer, asked):
    prompts = gate.rendered(tokenizer, asked, CONDITIONS, sets_of(asked)["train"], "hermes")
    for e in asked:
        assert prompts["base"][e.id] == prompts["tuned"][e.id] == prompts["fused"][e.id] != prompts["no_tools"][e.id]
        assert "get_" not in prompts["no_tools"][e.id].replace(e.query, "")
        shown = [other for other in sets_of(asked)["train"] if other.query in prompts["base_fewshot"][e.id]]
        assert len(shown) == 3


def test_cut_answers_of_a_tuned_model_say_in_one_line_what_to_do(tokenizer, asked):
    answers = answers_of(tokenizer, asked)
    for row in answers:
        if row["id"] in ("i3", "i4") and row["condition"] in ("tuned", "base"):
            row["finish_reason"] = "length"
    report = reported(tokenizer, asked, answers)
    line = report["problem"]
    assert "\n" not in line
    for words in ["tuned 2 of 8 (25.0%)", "base 2 of 8", "[i3, i4]", "evaluation.max_output_tokens above 500",
                  "evaluation.max_length_stops to 0.25", "the answers stay stored"]:  # fmt: skip
        assert words in line
    assert reported(tokenizer, asked, answers, most=0.25)["problem"] is None


def test_an_answer_that_needs_more_room_fails_only_in_a_runs_own_sets(tokenizer):
    long = [said(0, calls=[{"name": "get_0", "arguments": {"city": "x y z " * 300}}]), said(1)]
    own = [
        {key: value for key, value in row.items() if key != "max_output_tokens"} for row in answers_of(tokenizer, long)
    ]
    line = reported(tokenizer, long, own)["problem"]
    assert "limit: answers may have 500 tokens" in line
    assert re.search(r"set evaluation\.max_output_tokens to at least \d{4}", line)
    assert reported(tokenizer, long, own, own=False)["problem"] is None


def test_contamination_is_tagged_and_stops_nothing(tokenizer, asked):
    near = asked[1].query.removesuffix("?")[:-1]
    train = [*sets_of(asked)["train"], said(0, id="a"), said(1, id="b", messages=[{"role": "user", "content": near}])]
    answers = answers_of(tokenizer, asked)
    for row in answers:
        if row["condition"] == "base_fewshot":
            row["prompt_sha256"] = None
    report = reported(tokenizer, asked, answers, train=train)
    assert report["problem"] is None
    assert report["shared"]["same_request"] == ["i0"]
    assert report["shared"]["near_request"] == ["i1"]
    assert report["contaminated"] == ["i0", "i1"]
    assert report["findings"][-1]["verdict"] == TAGGED
    assert report["shared"]["same_tools"] == [e.id for e in asked]


@pytest.mark.parametrize(("suite", "count"), [("test_seen", 0), ("robust_shuffled", 0), ("test_unseen_tools", 8),
                                              ("bfcl_multiple", 8)])  # fmt: skip
def test_known_tools_count_where_they_should_be_unknown(asked, suite, count):
    assert len(contaminated(shared_with(sets_of(asked)["train"], asked), suite)) == count
