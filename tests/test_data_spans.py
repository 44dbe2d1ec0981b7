"""Which words say a value, and which value words say."""

import time

import pytest

from callwright.data.spans import is_read, said_in, spans_of, values_of

TEXT, TIME, DATE = {"type": "string"}, {"type": "string", "description": "HH:MM"}, {"format": "date"}
MONTH = {"description": "of the form YYYY-MM"}
WHOLE, NUMBER = {"type": "integer"}, {"type": "number"}


@pytest.mark.parametrize(
    ("schema", "read"),
    [(TEXT, True), ({}, True), (TIME, True), (WHOLE, True), (NUMBER, True), ({"type": "string", "enum": ["a"]}, False),
     ({"type": "boolean"}, False), ({"type": "array"}, False), ({"const": "a"}, False), (True, False),
     ({"type": ["string", "null"]}, True), ({"type": ["string", "integer"]}, False),
     ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, True),
     ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, False), ({"$ref": "#/x"}, False)],
)  # fmt: skip
def test_text_and_numbers_are_read(schema, read):
    assert is_read(schema) == read


@pytest.mark.parametrize(
    ("value", "schema", "text", "words"),
    [
        ("klara and the sun", TEXT, "Keep Klara and the Sun (Klara!)", ["Klara and the Sun"]),
        ("sun", TEXT, "Sunday, sun; SUN", ["sun", "SUN"]),
        ("C.1", TEXT, "C.1 or Cx1", ["C.1"]),
        ("something else", TEXT, "Keep it", []),
        ("", TEXT, "Keep it", []),
        ("18:00", TIME, "At 6 pm, or 18:00", ["6 pm", "18:00"]),
        ("07:15", TIME, "quarter past seven in the morning", ["quarter past seven in the morning"]),
        ("17:00", TIME, "from 9 to 5, not at 5 pm or 5.30", ["5", "5 pm"]),
        ("06:30", TIME, "half six or quarter past six", ["half six"]),
        ("2025-10", MONTH, "of October 2025, not 2025-10-01", ["October 2025"]),
        ("2026-05-20", DATE, "until May 20, 2026", ["May 20, 2026"]),
        ("tomorrow", DATE, "until Tomorrow", ["Tomorrow"]),
        (12, WHOLE, "12 or twelve, not 12.5 or 112", ["12", "twelve"]),
        (4.2, NUMBER, "they come to 4.20", ["4.20"]),
        (20, NUMBER, "take twenty dollars", ["twenty dollars"]),
        (3, WHOLE, "me and my two little ones", []),
        (True, TEXT, "true", []),
        ("x", TEXT, "İx x", []),  # whose small letters are more
    ],
)
def test_the_words_that_say_a_value_are_found(value, schema, text, words):
    assert sorted(text[start:end] for start, end in spans_of(value, schema, text)) == sorted(words)


@pytest.mark.parametrize(
    ("words", "schema", "values"),
    [("Klara", TEXT, ["Klara"]), ("6 PM", TIME, ["18:00"]), ("six", TIME, ["18:00", "06:00"]), ("at 6 pm", TIME, []),
     ("9", TIME, ["09:00", "21:00"]), ("half six", TIME, ["18:30", "06:30"]), ("25", TIME, []),
     ("quarter past seven", TIME, ["07:15", "19:15"]), ("May 20, 2026", DATE, ["2026-05-20"]), ("May", DATE, []),
     ("October 2025", MONTH, ["2025-10"]), ("2025", MONTH, []), ("2025-13", MONTH, []), ("10/2025", MONTH, ["2025-10"]),
     ("sept. 2025", MONTH, ["2025-09"]), ("market 2026", MONTH, []), ("0", TIME, []),
     ("quarter to one", TIME, ["12:45", "00:45"]), ("Twelve", WHOLE, [12]),
     ("12 guests", WHOLE, []), ("4.20", NUMBER, [4.2]), ("4.2", WHOLE, []), ("31 Feb 2026", DATE, [])],
)  # fmt: skip
def test_the_values_that_words_may_say(words, schema, values):
    assert values_of(words, schema) == values


@pytest.mark.parametrize(
    ("text", "schema", "found"),
    [
        ("tonight at ten to eight", TIME, [("ten to eight", ["19:50", "07:50"])]),
        ("at half past two", TIME, [("half past two", ["14:30", "02:30"])]),
        ("from ten to two pm", TIME, [("two pm", ["14:00"]), ("ten", ["10:00", "22:00"])]),
        ("tonight at 00:30", TIME, [("00:30", ["00:30"])]),
        ("from 9:30 pm", TIME, [("9:30 pm", ["21:30"])]),
        ("a hundred and twenty of them, or two dozen", WHOLE, [("a hundred and twenty", [120]), ("two dozen", [24])]),
        ("two thousand five hundred, not two million", WHOLE, [("two thousand five hundred", [2500])]),
        ("Klara and the Sun", TEXT, []),
        ("İ, at 9:30", TIME, []),  # whose small letters are more
    ],
)
def test_a_value_within_the_words_of_another_is_none(text, schema, found):
    assert [(text[start:end], said) for (start, end), said in said_in(text, schema)] == found


def test_a_long_text_of_many_values_is_read_in_no_time():
    began = time.process_time()
    assert len(said_in("5 " * 20_000, WHOLE)) == 20_000
    assert time.process_time() - began < 5, "each was held against each other one"
