"""Lines of reasons: where in a request the values of calls come from."""

import pytest

from callwright.chat.reasons import NOTHING_FITS, line_of_reasons, span


@pytest.mark.parametrize(
    ("value", "text", "said"),
    [
        ("Lagos", "What is it like in lagos?", "lagos"),
        ("Oslo", "The Oslofjord is cold", None),
        (20, "Send twenty dollars", "twenty"),
        (1500, "It costs 1,500 euros", "1,500"),
        (2.5, "2.5 hours", "2.5"),
        (5, "at 5.5 percent", None),
        (True, "start a video call", None),
        ("2026-12-31", "on 31 December 2026, please", "31 December 2026"),
        ("2026-08-25", "on August 25, 2026.", "August 25, 2026"),
        ("2026-05-04", "meet me on the 4th of May", "4th of May"),
        ("2026-11-29", "tomorrow at nine", "tomorrow"),
        ("2026-11-29", "some day", None),
        ("13:15", "at 1:15 pm", "1:15 pm"),
        ("17:00", "at 5 pm", "5 pm"),
        ("06:00", "wake me at six", "six"),
        ("12:00", "lunch at noon", "noon"),
        ("07:30", "at 8:30", None),
        ("", "anything", None),
        (None, "anything", None),
    ],
)
def test_the_part_of_a_text_that_says_a_value(value, text, said):
    assert span(value, text) == said


def test_what_is_said_as_it_stands_comes_from_the_query_and_the_rest_is_named_beside_it():
    messages = [
        {"role": "system", "content": "Ada is a friend."},
        {"role": "user", "content": "Pay Ada twenty by 4 May"},
    ]
    calls = [
        {"name": "pay", "arguments": {"person": "Ada", "amount": 20, "due": "2026-05-04", "note": "rent"}},
        {"name": "list_payments", "arguments": {}},
    ]
    assert line_of_reasons(messages, calls) == (
        "pay with person 'Ada' from query, 'twenty' -> amount 20, '4 May' -> due '2026-05-04', note 'rent'; "
        "list_payments without arguments."
    )


def test_lists_and_objects_are_written_without_blanks():
    messages = [{"role": "user", "content": "Tea for Ada and Grace"}]
    calls = [{"name": "f", "arguments": {"guests": ["Ada", "Grace"], "more": ["Linus"], "at": {"x": 1}}}]
    assert line_of_reasons(messages, calls) == "f with guests ['Ada','Grace'] from query, more ['Linus'], at {\"x\":1}."


def test_without_calls_no_tool_fits():
    assert line_of_reasons([{"role": "user", "content": "Hi"}], []) == NOTHING_FITS


def test_a_line_is_one_line():
    messages = [{"role": "user", "content": "Note this: a\nb"}]
    assert "\n" not in line_of_reasons(messages, [{"name": "note", "arguments": {"text": "a\nb"}}])
