"""The funnel and its labels: what each kind of answer is worth, and that nothing ever raises."""

import json
import random
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.chat.formats import answer_text, encode_calls
from callwright.data.records import ANY_CALL, Example
from callwright.data.sources import read_records
from callwright.data.toolset.generate import generate
from callwright.data.toolset.toolset import load_toolset
from callwright.evals.scoring import failure_labels
from callwright.evals.scoring.score import KINDS, STAGES, score_all, score_item, summarize
from callwright.runtime.errors import CallwrightError

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "default": 1, "maximum": 14},
        "unit": {"type": "string", "enum": ["metric", "us"]},
        "when": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
    },
    "required": ["city"],
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Forecast.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "clock", "description": "Time.", "parameters": {"type": "object"}}},
]
PROSE = "I am sorry, none of the tools can do that."


def call(tool_name, **arguments):
    return {"name": tool_name, "arguments": arguments}


def example(*calls):
    return SimpleNamespace(id="item", tools=TOOLS, calls=list(calls))


def generation(text, finish_reason="stop", identifier="item"):
    return {"id": identifier, "suite": "s", "condition": "c", "text": text, "finish_reason": finish_reason}


def score(expected, text, finish_reason="stop"):
    return score_item(example(*expected), generation(text, finish_reason))


ROME, OSLO = call("weather", city="Rome"), call("weather", city="Oslo")


@pytest.mark.parametrize(
    ("expected", "text", "stage", "error"),
    [
        # One expected call.
        ([ROME], encode_calls([ROME]), "exact", None),
        ([ROME], "Sure!\n" + encode_calls([call("weather", city="rome", days=1)]), "ast", None),
        ([ROME], encode_calls([OSLO]), "names", "wrong_value"),
        ([call("weather", city="Rome", days=2)], encode_calls([ROME]), "names", "missing_argument"),
        ([ROME], encode_calls([call("weather", city="Rome", days=2)]), "names", "wrong_value"),
        ([ROME], encode_calls([ROME, ROME]), "schema_valid", "extra_call"),
        ([ROME], encode_calls([call("clock")]), "schema_valid", "missing_call"),
        ([call("clock")], encode_calls([ROME]), "schema_valid", "missing_call"),
        ([ROME], encode_calls([call("wetter", city="Rome")]), "native_parse", "hallucinated_tool"),
        ([ROME], encode_calls([call("weather", city="Rome", planet="Mars")]), "known_tools", "hallucinated_argument"),
        ([ROME], encode_calls([call("weather", days=2)]), "known_tools", "missing_argument"),
        ([ROME], encode_calls([call("weather", city=7)]), "known_tools", "wrong_type"),
        ([ROME], encode_calls([call("weather", city="Rome", when=[1])]), "known_tools", "wrong_type"),
        ([ROME], encode_calls([call("weather", city="Rome", place={})]), "known_tools", "missing_argument"),
        ([ROME], encode_calls([call("weather", city="Rome", days=99)]), "known_tools", "wrong_value"),
        ([ROME], encode_calls([call("weather", city="Rome", unit="si")]), "known_tools", "wrong_value"),
        ([ROME], encode_calls([call("weather", city=7, planet=1)]), "known_tools", "hallucinated_argument"),
        ([ROME], PROSE, "terminated", "abstained_when_should_call"),
        ([ROME], "", "terminated", "unparseable"),
        ([ROME], "[]", "terminated", "unparseable"),
        (
            [ROME],
            '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"\n</tool_call>',
            "terminated",
            "unparseable",
        ),
        ([ROME], '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}', "terminated", "unparseable"),
        ([ROME], encode_calls([ROME]) + "\n<tool_call>", "terminated", "unparseable"),
        ([ROME], encode_calls([ROME], style="fenced"), "terminated", "unparseable"),
        ([ROME], '{"name": "weather", "arguments": {"city": "Rome"}}', "terminated", "unparseable"),
        ([ROME], 'weather(city="Rome")', "terminated", "unparseable"),
        # Several expected calls.
        ([ROME, OSLO], encode_calls([OSLO, ROME]), "exact", None),
        ([ROME, OSLO], encode_calls([ROME]), "schema_valid", "missing_call"),
        ([ROME, OSLO], encode_calls([ROME, ROME]), "names", "wrong_value"),
        ([ROME, call("clock")], encode_calls([ROME]), "schema_valid", "missing_call"),
        ([ROME, OSLO], encode_calls([ROME, OSLO, ROME]), "schema_valid", "extra_call"),
        ([ROME, OSLO], encode_calls([OSLO, call("weather", city="rome")]), "ast", None),
        ([ROME, OSLO], encode_calls([ROME]) + encode_calls([OSLO]), "exact", None),
        ([ROME, OSLO], f"<tool_call>{json.dumps([OSLO, ROME])}</tool_call>", "exact", None),
        ([ROME, OSLO], encode_calls([ROME]) + "\n<tool_call>\n{}\n</tool_call>", "terminated", "unparseable"),
        ([ROME, OSLO], encode_calls([ROME, call("wetter", city="Oslo")]), "native_parse", "hallucinated_tool"),
        ([ROME, OSLO], encode_calls([ROME, call("weather")]), "known_tools", "missing_argument"),
        ([ROME, OSLO], PROSE, "terminated", "abstained_when_should_call"),
        # None expected: abstained, malformed attempt, called.
        ([], PROSE, "exact", None),
        ([], "", "names", "unparseable"),
        ([], "...\n...", "names", "unparseable"),
        ([], "[]", "names", "unparseable"),
        ([], "{}", "names", "unparseable"),
        ([], encode_calls([ROME]), "schema_valid", "called_when_should_abstain"),
        ([], PROSE + encode_calls([ROME]), "schema_valid", "called_when_should_abstain"),
        ([], encode_calls([call("wetter")]), "native_parse", "called_when_should_abstain"),
        ([], encode_calls([call("weather")]), "known_tools", "called_when_should_abstain"),
        ([], PROSE + "<tool_call>", "terminated", "unparseable"),
        ([], "</tool_call>", "terminated", "unparseable"),
        ([], encode_calls([ROME], style="fenced"), "terminated", "unparseable"),
        ([], 'I call {"name": "weather", "arguments": {}}', "terminated", "unparseable"),
        ([], "```tool_code\nweather(city='Rome')\n```", "terminated", "unparseable"),
        ([], "weather(city='Rome')", "terminated", "unparseable"),
        ([], "weather()", "terminated", "unparseable"),
        ([], 'Here: {"city": "Rome"}', "terminated", "unparseable"),
        ([], "{'name': 'weather', 'arguments': {'city': 'Rome'}}", "terminated", "unparseable"),
        ([], PROSE + "<tool_call", "terminated", "unparseable"),
        ([], "null", "names", "unparseable"),
        ([], "??!", "names", "unparseable"),
        ([], "[weather]", "terminated", "unparseable"),
        ([], "[sunny]", "names", "unparseable"),
        ([], "```\nweather\n```", "terminated", "unparseable"),
        ([], "The weather (in Rome) is not known to me.", "exact", None),
        ([], "我没有合适的工具。", "exact", None),
    ],
)
def test_stage_and_label(expected, text, stage, error):
    row = score(expected, text)
    assert (row["stage"], row["error"]) == (stage, error)
    passed = STAGES.index(stage) + 1
    assert [row[name] for name in STAGES] == [True] * passed + [False] * (len(STAGES) - passed)


def test_an_answer_cut_by_the_limit_fails_at_once_whatever_it_says():
    for expected, text in (([ROME], encode_calls([ROME])), ([], PROSE)):
        row = score(expected, text, "length")
        assert (row["stage"], row["error"]) == ("started", "truncated")
        assert not any(row[stage] for stage in STAGES)
        assert row["lenient_ast"]  # what it said was right


@pytest.mark.parametrize(
    ("expected", "text", "lenient"),
    [
        ([ROME], encode_calls([ROME], style="fenced"), True),
        ([ROME], 'Here: {"name": "weather", "parameters": {"city": "ROME"}}', True),
        ([ROME], json.dumps(ROME), True),
        ([ROME], json.dumps([ROME]), True),
        ([ROME], json.dumps({"tool_calls": [{"type": "function", "function": ROME}]}), True),
        ([ROME], json.dumps({"function": {"name": "weather", "arguments": json.dumps(ROME["arguments"])}}), True),
        ([ROME], f"I will look.\n```json\n{json.dumps([ROME])}\n```\nThere you are.", True),
        ([ROME], "<tool_call>\n" + json.dumps(ROME), True),
        ([ROME], encode_calls([ROME]) + " And now?", True),
        ([ROME], encode_calls([OSLO], style="fenced"), False),
        ([ROME], encode_calls([ROME, OSLO], style="fenced"), False),
        ([ROME], json.dumps(ROME)[:-1], False),
        ([ROME], 'weather(city="Rome")', True),
        ([ROME], '```tool_code\nprint(default_api.weather(city="Oslo"))\n```', False),
        ([ROME, OSLO], encode_calls([OSLO, ROME], style="fenced"), True),
        ([ROME, OSLO], f"First {json.dumps(OSLO)}, then {json.dumps(ROME)}.", True),
        ([ROME, OSLO], encode_calls([ROME], style="fenced"), False),
        ([ROME], PROSE, False),
        ([], PROSE, True),
        ([], encode_calls([ROME], style="fenced"), False),
        ([], "", False),
    ],
)
def test_lenient_reading_tells_the_task_from_the_format(expected, text, lenient):
    assert score(expected, text)["lenient_ast"] == lenient


@pytest.mark.parametrize(
    ("text", "finish_reason", "found"),
    [
        (PROSE, "stop", "abstained"),
        (PROSE, "length", "malformed"),
        ("", "stop", "malformed"),
        ("...", "stop", "malformed"),
        ("{}", "stop", "malformed"),
        (PROSE + "<tool_call>", "stop", "malformed"),
        (encode_calls([ROME], style="fenced"), "stop", "malformed"),
        ("", "too_long", "malformed"),
        (encode_calls([ROME]), "stop", "called"),
        (encode_calls([call("wetter")]), "stop", "called"),
        (encode_calls([ROME]) + "<tool_call>", "stop", "called"),
        (encode_calls([ROME]), "length", "called"),
    ],
)
def test_abstaining_has_three_outcomes_and_garbage_is_none_of_it(text, finish_reason, found):
    row = score([], text, finish_reason)
    assert row["abstention"] == found
    assert (found == "abstained") == row["ast"]
    assert score([ROME], text, finish_reason)["abstention"] is None


def test_every_stage_and_every_label_is_reached_above():
    [cases] = [mark.args[1] for mark in test_stage_and_label.pytestmark if mark.name == "parametrize"]
    assert {stage for _, _, stage, _ in cases} == {*STAGES} - {"started"}
    elsewhere = {"truncated", "prompt_too_long"}  # they have tests of their own
    assert {label for *_, label in cases} == {None, *failure_labels.LABELS} - elsewhere


def test_nothing_but_the_stored_answer_decides():
    row = generation(encode_calls([ROME]))
    scored = score_item(example(ROME), row)
    assert (scored["id"], scored["suite"], scored["condition"]) == ("item", "s", "c")
    assert score_item(example(ROME), {**row, "seconds": 9, "output_tokens": 0}) == scored


def test_kind_comes_from_the_expected_calls():
    assert [score(calls, PROSE)["kind"] for calls in ([ROME], [ROME, OSLO], [])] == list(KINDS)


PIECES = [
    "<tool_call>",
    "</tool_call>",
    "\n",
    "[",
    "{",
    "]",
    "}",
    '"name"',
    "weather(",
    "NaN",
    "1e999",
    "\\ud800",
    "```json",
]
PIECES += ["so be it", '{"name": "weather", "arguments": {"city": "Rome"}}', '{"name": "weather", "arguments": {}}']
texts = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
expectations = st.lists(st.sampled_from([ROME, OSLO, call("clock")]), max_size=3)


@settings(max_examples=300)
@given(expectations, texts, st.sampled_from(["stop", "length"]))
def test_any_text_gets_a_funnel_and_a_label_that_fit_together(expected, text, finish_reason):
    row = score(expected, text, finish_reason)
    flags = [row[stage] for stage in STAGES]
    assert flags == sorted(flags, reverse=True)
    assert (row["error"] is None) == row["ast"]
    assert row["error"] in (None, *failure_labels.LABELS)
    assert row["lenient_ast"] or not row["ast"]


@given(st.lists(st.sampled_from([ROME, OSLO, call("clock")]), min_size=1, max_size=4))
def test_the_expected_answer_is_exact(calls):
    assert score(calls, encode_calls(calls))["stage"] == "exact"


@given(st.lists(st.sampled_from([ROME, OSLO, call("weather", city="Rome", days=2)]), min_size=1, max_size=4), st.data())
def test_a_tool_called_several_times_is_matched_in_any_order_and_each_call_once(calls, data):
    shuffled = data.draw(st.permutations(calls))
    assert score(calls, encode_calls(shuffled))["stage"] == "exact"
    place = data.draw(st.integers(0, len(calls) - 1))
    spoiled = [*shuffled[:place], call("weather", city="Bonn"), *shuffled[place + 1 :]]
    assert score(calls, encode_calls(spoiled))["stage"] == "names"


@pytest.fixture(scope="module")
def everyday(root):
    return generate(load_toolset(root / "config" / "toolsets" / "everyday.yaml"), examples=300)


def perfect(examples, write=answer_text):
    """The expected answers, as if a model had given them."""
    return [
        {"id": e.id, "suite": "s", "condition": "c", "text": write(e), "finish_reason": "stop"} for e in examples
    ]  # fmt: skip


def test_the_expected_answers_of_the_toolset_score_100_percent_of_every_kind(everyday):
    summary = summarize(score_all(everyday, perfect(everyday)))
    assert summary["errors"] == {}
    assert summary["lenient_ast"] == 1
    for name in KINDS:
        assert summary["kinds"][name]["n"] > 20
        assert [summary["kinds"][name][stage] for stage in STAGES] == [1] * len(STAGES)


def test_the_expected_calls_may_come_in_any_order_and_fenced_ones_are_right_but_for_the_format(everyday):
    def backwards(example):
        return encode_calls(example.calls[::-1]) if example.calls else answer_text(example)

    assert summarize(score_all(everyday, perfect(everyday, backwards)))["exact"] == 1
    fenced = summarize(score_all(everyday, perfect(everyday, lambda example: answer_text(example, "fenced"))))
    assert fenced["lenient_ast"] == 1
    assert fenced["native_parse"] == fenced["kinds"]["none"]["n"] / fenced["n"]


def mutants(example, generator):
    """(stage at most, answer): the expected calls with one thing wrong."""
    calls = example.calls
    place = generator.randrange(len(calls))
    name, arguments = calls[place]["name"], calls[place]["arguments"]

    def with_call(changed):
        return encode_calls([*calls[:place], changed, *calls[place + 1 :]])

    yield "native_parse", with_call({"name": name + "_", "arguments": arguments})
    yield "known_tools", with_call({"name": name, "arguments": {**arguments, "made_up": 1}})
    yield "schema_valid", encode_calls([*calls, calls[place]])
    yield ("schema_valid", encode_calls(calls[1:])) if len(calls) > 1 else ("terminated", "I cannot.")
    yield "terminated", encode_calls(calls)[:-1]
    yield "terminated", encode_calls(calls).replace("{", "", 1)
    for argument, value in arguments.items():
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else ["x", value]
        yield "names", with_call({"name": name, "arguments": {**arguments, argument: other}})
        rest = {key: kept for key, kept in arguments.items() if key != argument}
        yield "names", with_call({"name": name, "arguments": rest})


def test_a_single_mistake_in_the_expected_calls_is_never_a_match(everyday):
    generator = random.Random(3)
    seen = set()
    for example in everyday:
        for limit, text in mutants(example, generator) if example.calls else ():
            row = score_item(example, generation(text))
            assert not row["ast"], (example.calls, text)
            assert row["error"] in failure_labels.LABELS
            assert STAGES.index(row["stage"]) <= STAGES.index(limit), (limit, text)
            seen.add(row["error"])
    assert seen >= {"unparseable", "hallucinated_tool", "hallucinated_argument", "missing_argument", "wrong_type"}
    assert seen >= {"wrong_value", "missing_call", "extra_call", "abstained_when_should_call"}


def test_the_answers_of_real_records_score_100_percent(xlam_sample):
    examples = [value for _, value in read_records(xlam_sample, "xlam") if isinstance(value, Example)]
    assert len(examples) > 350
    rows = score_all(examples, perfect(examples))
    assert [row["id"] for row in rows if not row["exact"]] == []
    assert [row["id"] for row in rows if not row["lenient_ast"]] == []


def test_items_that_take_any_call_are_in_no_recall():
    open_item = SimpleNamespace(id="item", tools=TOOLS, calls=[], tags=(ANY_CALL,))
    row = score_item(open_item, generation(encode_calls([ROME])))
    assert (row["ast"], row["abstention"], row["calls"]["made"]) == (True, None, 1)
    found = summarize([row])
    assert (found["calls"]["recall"], found["calls"]["precision"]) == (None, None)
    assert found["abstention"]["n"] == 0


def test_an_answer_of_100_kb_is_scored_in_no_time():
    for text in (
        "{" * 100_000,
        '"name"' + " " * 100_000,
        "<tool_call>" * 9_000,
        "weather(" * 12_000,
        "a" * 100_000,
        "[" * 50_000 + "]" * 50_000,
    ):
        start = time.process_time()
        score([], text)
        score([ROME], text)
        assert time.process_time() - start < 1, text[:20]


def test_scores_are_paired_with_examples_by_id():
    examples = [SimpleNamespace(id=name, tools=TOOLS, calls=[ROME]) for name in "abc"]
    rows = score_all(examples, [generation(PROSE, identifier="c"), generation(encode_calls([ROME]), identifier="a")])
    assert [(row["id"], row["ast"]) for row in rows] == [("c", False), ("a", True)]
    with pytest.raises(CallwrightError, match="'z' answers no example"):
        score_all(examples, [generation(PROSE, identifier="z")])
    with pytest.raises(CallwrightError, match="'a' is stored twice"):
        score_all(examples, [generation(PROSE, identifier="a")] * 2)
    with pytest.raises(CallwrightError, match="no generations"):
        score_all(examples, [])


def test_summary_counts_what_the_rows_say():
    rows = [
        score([ROME], encode_calls([ROME])),
        score([ROME], encode_calls([call("weather", city="rome")])),
        score([ROME], PROSE),
        score([ROME, OSLO], encode_calls([ROME])),
        score([ROME], "blah", "length"),
        score([], PROSE),
        score([], encode_calls([ROME])),
        score([], "again " * 50, "length"),
    ]
    summary = summarize(rows)
    assert summary["n"] == 8
    counts = [summary["counts"][stage] for stage in STAGES]
    assert counts == [6, 5, 5, 5, 3, 3, 2]
    assert summary["counts"]["lenient_ast"] == 4
    assert (summary["ast"], summary["exact"], summary["length_stops"]) == (3 / 8, 2 / 8, 2)
    assert summary["ast_ci95"] == [pytest.approx(0.1368, abs=1e-4), pytest.approx(0.6943, abs=1e-4)]
    assert summary["errors"] == {
        "truncated": 2, "missing_call": 1, "called_when_should_abstain": 1, "abstained_when_should_call": 1,
    }  # fmt: skip
    assert {kind: (part["n"], part["counts"]["ast"]) for kind, part in summary["kinds"].items()} == {
        "one": (4, 2),
        "several": (1, 0),
        "none": (3, 1),
    }
    assert summary["abstention"] == {"n": 3, "abstained": 1, "malformed": 1, "called": 1}
    # Expected: 4 x 1, 2, 0; made: 1, 1, 0, 1, 0 and once where none was due; right: both of the first, one of two.
    assert summary["calls"] == {
        "expected": 6, "made": 4, "right": 3, "recall": pytest.approx(3 / 6), "precision": pytest.approx(3 / 4),
    }  # fmt: skip
    assert summary["arguments"] == {
        "expected": 6, "given": 4, "right": 3, "found": 3, "recall": pytest.approx(3 / 6),
        "precision": pytest.approx(3 / 4),
    }  # fmt: skip
    truncated = summarize(rows[4:5])
    assert (truncated["length_stops"], truncated["counts"]["terminated"], truncated["terminated"]) == (1, 0, 0.0)
    silent = summarize(rows[5:6])
    assert (silent["calls"]["recall"], silent["calls"]["precision"], silent["calls"]["expected"]) == (None, None, 0)
    nothing = summarize(rows[:1])["kinds"]["none"]
    assert (nothing["n"], nothing["ast"], nothing["ast_ci95"]) == (0, None, [0.0, 1.0])
