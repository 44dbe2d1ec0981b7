"""The tool that is meant: the channel's likelihoods, and how they weigh the names in an answer."""

import mlx.core as mx
import numpy as np
import pytest
from fixtures_tiny import VOCABULARY, Letters, make_tiny
from mlx_lm.models import gemma3_text

from callwright.chat.call_format import OURS
from callwright.data.noisy_channel import prefix
from callwright.decoding import tool_channel
from callwright.decoding.engine import Engine, Request
from callwright.decoding.name_preference import NamePreference
from callwright.decoding.tool_channel import MOST, ToolChannel
from callwright.decoding.workers import answer_all
from callwright.evals.readings import Readings, open_readings, said_since_the_last_call

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


def tiny_gemma():
    mx.random.seed(3)
    model = gemma3_text.Model(
        gemma3_text.ModelArgs(
            model_type="gemma3_text", hidden_size=32, num_hidden_layers=4, intermediate_size=48, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16, rms_norm_eps=1e-6, vocab_size=VOCABULARY,
            sliding_window=8, sliding_window_pattern=2,
        )
    )  # fmt: skip
    model.sanitize({})  # ties the head to the embedding
    model.set_dtype(mx.float32)
    return model


def alone(model, before, request):
    """The log-probability of a request behind one prefix, from one pass over both."""
    logits = np.array(model(mx.array([before + request]))[0].astype(mx.float32))
    places = range(len(before) - 1, len(before) + len(request) - 1)
    return sum(
        logits[place, token] - np.log(np.exp(logits[place]).sum()) for place, token in zip(places, request, strict=True)
    )


@pytest.mark.parametrize("make", [make_tiny, tiny_gemma], ids=["llama", "gemma with windows"])
def test_a_request_is_explained_behind_all_prefixes_as_behind_each_alone(make, monkeypatch):
    model = make()
    channel = ToolChannel(model, Letters(), {})
    prefixes, request = (
        [[4, 9, 2, 30, 11], [4, 9, 2, 7, 8, 9, 10, 12, 13, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2]],
        [5, 6, 40, 7],
    )
    expected = [alone(model, before, request) for before in prefixes]
    for _ in range(2):  # prefixes are computed, then known
        assert channel.explained(prefixes, request) == pytest.approx(expected, abs=2e-4)
    monkeypatch.setattr(tool_channel, "LOGITS", 2 * VOCABULARY * len(request))  # two and one
    assert channel.explained(prefixes, request) == pytest.approx(expected, abs=2e-4)
    kept = channel.beginnings.nbytes
    assert channel.explained(prefixes[:1], request) == pytest.approx(expected[:1], abs=2e-4)
    assert channel.beginnings.nbytes == kept > 0


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


def test_the_tool_whose_requests_look_like_it_is_preferred(tiny):
    """Also shows the form: the candidates are an answer's first tokens, and samples stand in the prefix."""
    samples = {"a": ["x"]}
    readings = Readings(tiny, Letters(), [ToolChannel(tiny, Letters(), samples, weight=2.0)])
    messages = [{"role": "user", "content": " hello "}]
    preference = readings.preference(messages, [tool("a"), tool("b")], OURS["hermes"])
    opening = OURS["hermes"].layout.first
    assert preference.candidates["a"][: len(opening) + 1] == Letters().encode(opening + "a")
    request = Letters().encode("hello")
    expected = {
        name: 2 * alone(tiny, Letters().encode(prefix(tool(name)["function"], samples.get(name, ()))), request)
        for name in "ab"
    }
    assert preference._ask() == pytest.approx(expected, rel=1e-4)


def test_nothing_is_preferred_where_there_is_no_choice_or_no_request(tiny):
    channel, hermes = Readings(tiny, Letters(), [ToolChannel(tiny, Letters(), {})]), OURS["hermes"]
    user, two = {"role": "user", "content": "hello"}, [tool("a"), tool("b")]
    assert channel.preference([user], two, hermes) is not None
    assert channel.preference([user], two[:1], hermes) is None
    assert channel.preference([], two, hermes) is None
    assert channel.preference([user], [tool(f"t{n}") for n in range(MOST + 1)], hermes) is None
    assert channel.preference([user, {"role": "tool", "content": "done"}], two, hermes) is None
    assert channel.preference([user, {"role": "user", "content": ["hello"]}], two, hermes) is None
    assert channel.preference([{"role": "user", "content": "  "}], two, hermes) is None


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([("user", "Book me a table"), ("assistant", "When?"), ("user", "at 8 ")], "Book me a table\nat 8"),
        ([("user", "Book it"), ("assistant", {"tool_calls": [1]}), ("tool", "ok"), ("user", "thanks")], "thanks"),
        ([("user", "one"), ("user", "two"), ("user", "three"), ("user", "four")], "two\nthree\nfour"),
        ([("system", "Be kind"), ("user", "hello")], "hello"),
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


class Fixed:
    """A reading with the same scores for any request."""

    def __init__(self, **scores):
        self.scores, self.identity = scores, [scores]

    def prepared(self, functions, request):
        return (lambda: self.scores) if self.scores else None


def test_readings_are_added_up_and_one_that_has_nothing_to_say_is_left_out(tiny):
    messages, two = [{"role": "user", "content": "hello"}], [tool("a"), tool("b")]
    found = Readings(tiny, Letters(), [Fixed(a=-1.0, b=-2.0), Fixed(), Fixed(a=-0.5, b=-0.25)])
    assert found.preference(messages, two, OURS["hermes"])._ask() == {"a": -1.5, "b": -2.25}
    assert found.identity == [[{"a": -1.0, "b": -2.0}], [{}], [{"a": -0.5, "b": -0.25}]]
    assert Readings(tiny, Letters(), [Fixed()]).preference(messages, two, OURS["hermes"]) is None


def test_a_decision_says_which_readings_there_are(tiny, monkeypatch):
    assert open_readings(tiny, Letters(), None) is None
    assert open_readings(tiny, Letters(), {"threshold": 0.5, "tool_encoder": None}) is None
    monkeypatch.setattr("callwright.evals.readings.windows", lambda model: None)  # keeps another state
    assert open_readings(tiny, Letters(), {"noisy_channel": {"weight": 0.5, "samples": {}}}) is None
    monkeypatch.undo()
    (found,) = open_readings(tiny, Letters(), {"noisy_channel": {"weight": 0.5, "samples": {"a": ["b"]}}}).readings
    assert (found.weight, found.samples) == (0.5, {"a": ["b"]})
