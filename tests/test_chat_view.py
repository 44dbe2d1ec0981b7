"""Token rows as text, the trained parts marked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.chat.formats import encode_calls
from callwright.chat.tokens import tokenize_example
from callwright.chat.view import ANSI_OFF, ANSI_ON, describe, marked, pieces, visible
from callwright.models.load import load_tokenizer
from callwright.runtime.errors import CallwrightError

TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "F.", "parameters": {"type": "object", "properties": {}}},
}
EXAMPLE = {
    "id": "one",
    "messages": [{"role": "user", "content": "Grüße aus 東京 🙂"}],
    "tools": [TOOL],
    "calls": [{"name": "f", "arguments": {}}],
}


@pytest.fixture(scope="module")
def tokenizer(model_folder):
    return load_tokenizer(model_folder)


def test_the_trained_part_is_the_answer_and_its_end(tokenizer):
    parts = pieces(tokenizer, tokenize_example(tokenizer, EXAMPLE))
    assert [text for text, trained in parts if trained] == [encode_calls(EXAMPLE["calls"]) + "<|im_end|>"]
    whole = "".join(text for text, _ in parts)
    assert "Grüße aus 東京 🙂<|im_end|>" in whole
    assert marked(parts, colour=False).count("⟦") == marked(parts, colour=False).count("⟧") == 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_the_pieces_are_the_row_whatever_its_spans(tokenizer, data):
    ids = tokenizer.encode("one two three four five six seven", add_special_tokens=False)
    edges = sorted(data.draw(st.lists(st.integers(0, len(ids)), min_size=0, max_size=6)))
    spans = [list(pair) for pair in zip(edges[::2], edges[1::2], strict=False)]
    row = {"id": "x", "input_ids": ids, "spans": spans}
    parts = pieces(tokenizer, row)
    assert "".join(text for text, _ in parts) == tokenizer.decode(ids)
    trained = "".join(text for text, of in parts if of)
    assert trained == "".join(tokenizer.decode(ids[start:end]) for start, end in spans)
    assert describe(tokenizer, row)["trained"] == sum(end - start for start, end in spans)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"input_ids": "1 2"}, "`input_ids` must be"),
        ({"input_ids": [1, True]}, "`input_ids` must be"),
        ({"input_ids": [1, -2], "spans": []}, "`input_ids` must be"),
        ({"input_ids": [1, 2]}, "`spans` must be"),
        ({"input_ids": [1, 2], "spans": [[0, 3]]}, "within its 2 token ids"),
        ({"input_ids": [1, 2], "spans": [[1]]}, "`spans` must be"),
        ({"input_ids": [2**70], "spans": []}, "--model"),
    ],
)
def test_a_broken_row_is_named(tokenizer, row, words):
    with pytest.raises(CallwrightError, match="row 'r1'") as caught:
        pieces(tokenizer, {"id": "r1", **row})
    assert words in str(caught.value)


def test_colour_ends_with_the_line():
    text = marked([("asked\n", False), ("one\n\ntwo", True)], colour=True)
    assert text == f"asked\n{ANSI_ON}one{ANSI_OFF}\n\n{ANSI_ON}two{ANSI_OFF}"


def test_what_would_steer_a_terminal_is_shown_as_what_it_is():
    assert visible("a\tb\n\x1b[2J\u202ec\x9b\ud800\r") == "a\tb\n\\x1b[2J\\u202ec\\x9b\\ud800\\r"
    assert "\x1b[2J" not in marked([("\x1b[2J", True)], colour=True)
