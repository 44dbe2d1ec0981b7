"""An answer put together from pieces: what is passed on, when, and what is said of the rest."""

import json
import random

import pytest

from callwright.chat.formats import encode_calls
from callwright.chat.parse import parse_native
from callwright.serve.answer import Assembler, begun

SCHEMAS = {
    "now": {"type": "object", "properties": {"zone": {"type": "string"}}},
    "add": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}
NOW = {"name": "now", "arguments": {"zone": "utc"}}
ADD = {"name": "add", "arguments": {"a": 1}}


def read(text, pieces=None, reason="stop", **options):
    """The assembler after a whole text, and what it passed on, put together as a client does."""
    answer = Assembler(**{"schemas": SCHEMAS, **options})
    deltas = []
    for piece in pieces or [text]:
        deltas += answer.feed(piece)
    deltas += answer.end(reason, 9)
    content = "".join(delta.content for delta in deltas)
    calls = [delta.call for delta in deltas if delta.call]
    assert content == answer.content
    assert [{key: call[key] for key in ("id", "type", "function")} for call in calls] == answer.calls
    assert [call["index"] for call in calls] == list(range(len(calls)))
    made = [{"name": c["function"]["name"], "arguments": json.loads(c["function"]["arguments"])} for c in answer.calls]
    return answer, content, made


TEXTS = [
    encode_calls([NOW]),
    encode_calls([NOW, ADD]),
    "Well.\n\n" + encode_calls([NOW, ADD]) + "\n",
    encode_calls([NOW]) + "\nDone. " + encode_calls([ADD]) + " Bye",
    " I need a number. ",
    "a < b and <tool box> are words",
    "<tool_",
    "",
    '<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>' + encode_calls([ADD]),
    '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>',
    "<tool_call>\nnow()\n</tool_call>",
    "<tool_call>\n" + json.dumps([NOW, ADD]) + "</tool_call>",
    '<tool_call>\n{"name": "now"',
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_pieces_make_no_difference(text, reason):
    whole, content, made = read(text, reason=reason)
    rng = random.Random(1)
    for _ in range(30):
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(8)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        other, *rest = read(text, pieces, reason)
        assert rest == [content, made]
        assert (other.finish_reason, other.problems) == (whole.finish_reason, whole.problems)


def test_calls_are_those_of_the_parser_and_problems_the_others():
    for text in TEXTS:
        answer, content, made = read(text)
        parsed = parse_native(text)
        good = [call for call in parsed.calls if call in (NOW, ADD)]
        assert made == good
        assert bool(answer.problems) == bool(parsed.errors or len(good) < len(parsed.calls))
        assert "".join(content.split()) == "".join(parsed.content.split())
        if "<tool_call>" not in text:
            assert content == text  # to the letter
    assert read(TEXTS[2])[1] == "Well."
    assert read(TEXTS[3])[1] == "Done.\nBye"


def test_a_finish_reason_for_each_end():
    assert read(TEXTS[0])[0].finish_reason == "tool_calls"
    assert read(TEXTS[4])[0].finish_reason == "stop"
    assert read(TEXTS[8])[0].finish_reason == "tool_calls"
    assert read(TEXTS[9])[0].finish_reason == "stop"
    assert read(TEXTS[0], reason="length")[0].finish_reason == "length"


@pytest.mark.parametrize("cut", range(1, len(TEXTS[0])))
def test_a_call_cut_anywhere_is_reported_and_never_passed_on(cut):
    answer, content, made = read(TEXTS[0][:cut], reason="length")
    assert (content, made, answer.finish_reason) == ("", [], "length")
    (problem,) = answer.problems
    assert (problem.code, problem.text) == ("cut_call", TEXTS[0][:cut])
    assert "cut at 9 tokens" in problem.message


def test_the_first_call_alone():
    answer, _, made = read(TEXTS[1], most=1)
    assert made == [NOW]
    assert answer.finish_reason == "tool_calls"
    assert not answer.feed("more")
    assert read(TEXTS[11], most=1)[2] == [NOW]


def test_without_tools_a_text_is_a_text():
    answer, content, made = read(TEXTS[1], schemas=None)
    assert (content, made, answer.problems, answer.finish_reason) == (TEXTS[1], [], [], "stop")


def test_stop_texts_end_words_and_not_calls():
    assert read("one two", stop=("two",))[1:] == ("one ", [])
    answer, content, made = read(TEXTS[0] + "utc", stop=("utc",))
    assert (content, made, answer.finish_reason) == ("", [NOW], "tool_calls")
    assert read("one tw", stop=("two",))[1] == "one tw"


def test_how_much_of_a_mark_has_begun():
    mark = "<tool_call>"
    for n in range(len(mark)):
        assert begun("x" + mark[:n], mark) == n
    assert begun("<<", mark) == 1
    assert begun("", mark) == 0


def grounded(grounding, text, said="Weather in Oslo, please", **options):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "max_days": {"type": "integer"}},
        "required": ["city"],
    }
    answer = Assembler(
        {"weather": schema}, messages=[{"role": "user", "content": said}], grounding=grounding, **options
    )
    deltas = [*answer.feed(text), *answer.end("stop", 99)]
    return answer, deltas


def called(arguments):
    return f'<tool_call>\n{{"name": "weather", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


def test_a_call_that_was_said_passes_however_it_is_checked():
    for grounding in ("ask", "flag", "off"):
        answer, _ = grounded(grounding, called({"city": "Oslo"}))
        (call,) = answer.calls
        assert "ungrounded" not in call
        assert answer.finish_reason == "tool_calls"


def test_what_nobody_said_is_asked_for_flagged_or_passed():
    text = called({"city": "Oslo", "max_days": 17})
    answer, deltas = grounded("ask", text)
    assert answer.calls == []
    assert answer.content == "I need one more detail. Which max days should I use?"
    assert [delta.content for delta in deltas if delta.content] == [answer.content]
    assert answer.finish_reason == "stop"
    assert [problem.code for problem in answer.problems] == ["ungrounded_call"]
    answer, _ = grounded("flag", text)
    assert answer.calls[0]["ungrounded"] == ["max_days"]
    answer, _ = grounded("off", text)
    assert "ungrounded" not in answer.calls[0]


def test_a_required_value_that_lacks_is_asked_for():
    answer, _ = grounded("ask", called({}))
    assert answer.content == "I need one more detail. Which city should I use?"
    answer, _ = grounded("flag", called({}))
    assert [problem.code for problem in answer.problems] == ["invalid_call"]


def test_the_tools_own_question_is_asked():
    answer, _ = grounded("ask", called({}), questions={"weather": {"city": "Where?"}})
    assert answer.content == "Where?"


def test_one_question_is_enough_and_good_calls_stay():
    bad, good = called({"city": "Rome"}), called({"city": "Oslo"})
    answer, _ = grounded("ask", f"{bad}\n{bad}")
    assert answer.content.count("?") == 1
    answer, _ = grounded("ask", f"{good}\n{bad}")
    assert len(answer.calls) == 1
    assert answer.content == ""


def test_each_call_carries_the_confidence_that_there_is():
    answer, deltas = grounded("off", called({"city": "Oslo"}), confidence=lambda: 0.87654)
    assert answer.calls[0]["confidence"] == 0.8765
    assert next(delta.call for delta in deltas if delta.call)["confidence"] == 0.8765
    answer, _ = grounded("off", called({"city": "Oslo"}))
    assert "confidence" not in answer.calls[0]
