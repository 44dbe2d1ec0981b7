"""The lenient parser on the recorded outputs of CanIToolCall, a public conformance suite for tool-call parsers.

Its package (`pip install canitoolcall`, Apache-2.0) holds outputs of nine model families with the right parse of each.
"""

from collections import Counter

import pytest

from callwright.chat.parse import parse_lenient

fixtures = pytest.importorskip(
    "canitoolcall.fixtures", reason="CanIToolCall's recorded outputs are not here: pip install canitoolcall"
)

# The only outputs that are read otherwise than the suite says, and why.
DIFFERENT = {
    # The model shows a call's JSON in its final message because it was asked for it. Whoever looks for a call in
    # whatever wrapper must take it for one; the strict readers do not.
    "gpt-oss/harmony-final-json-lookalike",
}


def comparable(value):
    """A JSON value that equals another only if JSON says so: true is not 1, 1 is 1.0."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return (type(value).__name__, value)
    if isinstance(value, int | float):
        return ("number", float(value))
    if isinstance(value, dict):
        return ("object", {key: comparable(inner) for key, inner in value.items()})
    return ("list", [comparable(inner) for inner in value])


@pytest.fixture(scope="module")
def records():
    found = [record for record in fixtures.load_fixtures() if record.expected is not None]
    assert len(found) >= 434
    return found


def plain(calls):
    return [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]


def test_recorded_outputs_are_read_as_they_should_be(records):
    right, all_, wrong = Counter(), Counter(), []
    for record in records:
        all_[record.family] += 1
        read = parse_lenient(record.raw_output, list(record.tools))
        if comparable(read) == comparable(plain(record.expected.tool_calls)):
            right[record.family] += 1
        else:
            wrong.append(record.id)
    assert len(all_) == 9
    assert set(wrong) <= DIFFERENT, {family: f"{right[family]} of {all_[family]}" for family in all_}
    assert right.total() >= 0.95 * all_.total()


def test_never_an_abstention_where_there_is_a_call(records):
    for record in records:
        if record.expected.tool_calls:
            assert parse_lenient(record.raw_output), record.id


def test_without_schemas_nearly_all_names_are_right(records):
    """A text file has no schemas: then types may be guessed wrong, names must not be."""
    wrong = [
        record.id
        for record in records
        if [call["name"] for call in parse_lenient(record.raw_output)]
        != [call.name for call in record.expected.tool_calls]
    ]
    assert set(wrong) <= DIFFERENT


def test_nothing_is_made_of_what_is_cut_or_broken(records):
    """Records that no parser can read fully: what is read of them holds nothing that was not written out."""
    for record in fixtures.load_fixtures():
        if record.expected_error is None:
            continue
        for call in parse_lenient(record.raw_output, list(record.tools)):
            assert call["name"] in record.raw_output
            assert all(key in record.raw_output for key in call["arguments"])
