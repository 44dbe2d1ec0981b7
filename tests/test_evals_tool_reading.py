"""What a tool encoder says of a conversation, and how names are weighed in an answer."""

import mlx.core as mx
import numpy as np
import pytest
from fixtures_tiny import VOCABULARY, Letters, make_tiny

from callwright.chat.call_format import OURS
from callwright.data.completed_calls import Said
from callwright.decoding.engine import Engine, Request
from callwright.decoding.name_preference import NamePreference
from callwright.decoding.workers import answer_all
from callwright.evals.tool_reading import ToolReading, open_reading, parts, said_since_the_last_call
from callwright.runtime.errors import CallwrightError

NAMES = {"one": [7, 8, 9, 3], "two": [7, 8, 10, 3], "three": [7, 8, 10, 11, 3]}


@pytest.fixture(scope="module")
def tiny():
    return make_tiny()


def tool(name):
    return {"type": "function", "function": {"name": name, "description": f"What {name} does", "parameters": {}}}


def test_a_preference_has_a_say_only_where_names_part():
    asked = []
    preference = NamePreference(NAMES, lambda: asked.append(1) or {"one": -5.0, "two": -9.0, "three": -6.0})
    assert [preference.due(ids) for ids in ([], [7], [7, 8], [7, 8, 9], [7, 8, 10], [7, 8, 10, 3], [5])] == [
        False, False, True, False, True, False, False,
    ]  # fmt: skip
    assert not asked
    logits = mx.zeros((1, VOCABULARY))
    first = np.array(preference([7, 8], logits))[0]
    assert first[[9, 10]].tolist() == [0, -1]
    assert first[[3, 5, 7, 8, 11]].tolist() == [-51] * 5  # no name goes on so
    second = np.array(preference([7, 8, 10], logits))[0]
    assert second[[11, 3]].tolist() == [0, -3]
    assert asked == [1]


def test_the_names_of_one_answer_are_weighed_and_those_of_others_not(tiny):
    prompts = [[3, 4, 5], [9, 8, 7, 6], [20, 21]]
    plain = dict(answer_all(tiny, prompts, 6, set(), 3, workers=1))
    chosen = plain[0].ids[0]
    other = (chosen + 5) % VOCABULARY
    wanted = {"liked": [other, 2], "disliked": [chosen, 2]}

    def preference_of(number):
        return NamePreference(wanted, lambda: {"liked": 0.0, "disliked": -1e4}) if number == 0 else None

    found = dict(answer_all(tiny, prompts, 6, set(), 3, workers=1, preference_of=preference_of))
    assert found[0].ids[0] != chosen
    assert [found[n].ids for n in (1, 2)] == [plain[n].ids for n in (1, 2)]
    mild = NamePreference(wanted, lambda: {"liked": 0.0, "disliked": 0.0})
    assert dict(answer_all(tiny, prompts, 6, set(), 3, workers=1, preference_of=lambda n: mild))[0].ids == plain[0].ids
    ahead = Engine(tiny, set(), 3, ahead=True)  # a step queued before the last token is known must wait for it
    requests = [Request(prompt, 6, preference=preference_of(n)) for n, prompt in enumerate(prompts)]
    for request in requests:
        ahead.submit(request)
    while ahead.busy:
        if ahead.read() is None:
            ahead.advance()
    assert [request.ids for request in requests] == [found[n].ids for n in range(3)]


class Fixed:
    """Stands for a tool encoder: what it says is given."""

    identity = ["fixed"]

    weight = 2.0

    def read_ahead(self, functions, requests):
        self.ahead = [[function["name"] for function in functions], list(requests)]

    def meant(self, functions, request):
        return {function["name"]: -float(len(request) + place) for place, function in enumerate(functions)}

    def fitting(self, functions, request):
        return float(len(functions) + len(request))

    def said(self, function, name, request):
        return Said({f"{function['name']}/{name}/{request}": 0.75}, 0.1)


def test_an_answers_first_tokens_are_weighed_and_its_decision_and_values_have_a_say(tiny):
    reading = ToolReading(Letters(), Fixed())
    messages, tools = [{"role": "user", "content": " hello "}], [tool("a"), tool("b")]
    preference = reading.preference(messages, tools, OURS["hermes"])
    opening = OURS["hermes"].layout.first
    assert preference.candidates["a"][: len(opening) + 1] == Letters().encode(opening + "a")
    assert preference._scores is None
    assert preference._ask() == {"a": -10.0, "b": -12.0}
    assert reading.evidence(messages, tools)() == 7.0
    likely = reading.likely(messages, tools)
    assert likely("b", "area") == Said({"b/area/hello": 0.75}, 0.1)
    assert reading.identity == ["fixed"]


def test_nothing_is_said_where_there_is_no_choice_or_no_request():
    reading, hermes = ToolReading(Letters(), Fixed()), OURS["hermes"]
    user, two = {"role": "user", "content": "hello"}, [tool("a"), tool("b")]
    assert reading.preference([user], two, hermes) is not None
    assert reading.preference([user], two[:1], hermes) is None
    assert reading.evidence([user], two[:1])() == 6.0
    assert reading.evidence([user], []) is None
    for messages in (
        [], [user, {"role": "tool", "content": "done"}], [user, {"role": "user", "content": []}],
        [{"role": "user", "content": "  "}],
    ):  # fmt: skip
        assert reading.preference(messages, two, hermes) is None
        assert reading.evidence(messages, two) is None
        assert reading.likely(messages, two) is None


def test_a_required_value_that_is_not_said_speaks_against_a_call():
    needs = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
    asking = {"type": "function", "function": {"name": "a", "description": "", "parameters": needs}}
    reading, user = ToolReading(Letters(), Fixed()), {"role": "user", "content": "hello"}
    fitting = Fixed().fitting([0, 1], "hello")
    assert reading.evidence([user], [asking, tool("b")])() == pytest.approx(fitting + 2 * np.log(0.9))
    assert reading.evidence([user], [tool("b"), asking])() == fitting, "the likeliest tool requires nothing"
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": '{"x": "it"}'}}]}
    after = [user, call, {"role": "tool", "content": "done"}, user]
    assert reading.evidence(after, [asking, tool("b")])() == fitting, "it may have been said before"
    system = {"role": "system", "content": "x is 3"}
    assert reading.evidence([system, user], [asking, tool("b")])() == fitting


def test_a_model_is_shown_the_likely_tools_and_those_that_are_named():
    def names(reading, messages, tools):
        return [one["function"]["name"] for one in reading.offered(messages, tools)]

    tools = [tool(name) for name in "abcde"]
    user = {"role": "user", "content": "hello"}
    assert names(ToolReading(Letters(), Fixed(), 2), [user], tools) == ["a", "b"]
    assert names(ToolReading(Letters(), Fixed(), 4), [user], tools) == ["a", "b", "c"], "d is 3 nats behind"
    assert names(ToolReading(Letters(), Fixed(), 5), [user], tools) == list("abcde"), "they are few"
    assert names(ToolReading(Letters(), Fixed()), [user], tools) == list("abcde")
    called = [user, {"role": "assistant", "tool_calls": [{"function": {"name": "e", "arguments": "{}"}}]}]
    after = [*called, {"role": "tool", "content": "done"}]
    assert names(ToolReading(Letters(), Fixed(), 2), after, tools) == list("abcde"), "a result is to be answered"
    assert names(ToolReading(Letters(), Fixed(), 2), [*after, user], tools) == list("abcde"), "what goes on is not cut"
    system = {"role": "system", "content": "Always use e."}
    assert names(ToolReading(Letters(), Fixed(), 2), [system, user], tools) == ["a", "b", "e"], "it is named"
    assert ToolReading(Letters(), Fixed(), 2).identity != ToolReading(Letters(), Fixed()).identity == ["fixed"]


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([("user", "Book me a table"), ("assistant", "When?"), ("user", "at 8 ")], "Book me a table\nat 8"),
        ([("user", "Book it"), ("assistant", {"tool_calls": [1]}), ("tool", "ok"), ("user", "thanks")], "thanks"),
        ([("user", "one"), ("user", "two"), ("user", "three"), ("user", "four")], "two\nthree\nfour"),
        ([("system", "Be kind"), ("user", "hello")], "hello"),
        ([("user", "long " * 79), ("assistant", "What?"), ("user", "forget it")], "forget it"),
        ([("user", "long " * 300)], ("long " * 300).strip()),
        ([("user", "hello"), ("assistant", "hi")], ""),
        ([("user", "hello"), ("user", " ")], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_who_was_asked_back_is_read_with_what_was_said_before(turns, said):
    messages = [
        {"role": role, **(content if isinstance(content, dict) else {"content": content})} for role, content in turns
    ]
    assert said_since_the_last_call(messages) == said


def test_what_was_said_too_long_ago_is_not_therefore_unsaid():
    turns = [{"role": "user", "content": text} for text in ("Book a table at 7", "four", "Luigi's", "Anna")]
    reading, tools = ToolReading(Letters(), Fixed()), [tool("a"), tool("b")]
    assert reading.likely(turns[:3], tools) is not None
    assert reading.likely(turns, tools) is None
    assert reading.evidence(turns, tools) is not None


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ("Wake me at 7", []),
        ("Wake me at 7 and put eggs on my list, then play whale songs.",
         ["Wake me at 7", "put eggs on my list", "play whale songs."]),
        ("My grandmother moved in with us. Got any Tokarczuk for her?",
         ["My grandmother moved in with us", "Got any Tokarczuk for her?"]),
        ("salt and pepper", []),
    ],
)  # fmt: skip
def test_a_request_is_read_as_a_whole_and_by_its_clauses(request_, found):
    assert parts(request_) == [request_, *found]


def test_a_decision_says_whether_there_is_one(tmp_path):
    assert open_reading(Letters(), None, None) is None
    assert open_reading(Letters(), {"threshold": 0.5, "tool_encoder": None}, tmp_path / "decision.json") is None
    assert open_reading(Letters(), {"tool_encoder": {"weight": 1.0}}, None) is None
    with pytest.raises(CallwrightError, match="is not there: copy it"):
        open_reading(Letters(), {"tool_encoder": {"weight": 1.0}}, tmp_path / "decision.json")
