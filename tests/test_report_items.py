"""What sets a wrong answer apart from the expected calls, marked part by part."""

from callwright.data.records import Example
from callwright.report.items import EXTRA, MISSING, SAME, difference, item_rows, message_text

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer", "default": 1},
                    "unit": {"type": "string"},
                },
                "required": ["city"],
            },
        },
    }
    for name in ("weather", "news")
]


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


def example(*calls, possible=None):
    return Example("i", [{"role": "user", "content": "?"}], TOOLS, list(calls), "test", (), None, possible)


def marked(expected, given):
    """The difference as text: [-expected-] and {+given+}."""
    signs = {SAME: "%s", MISSING: "[-%s-]", EXTRA: "{+%s+}"}
    return ["".join(signs[kind] % text for text, kind in line) for line in difference(expected, given)]


def test_a_differing_value_stands_twice():
    found = marked(example(call("weather", city="Rome", days=2)), [call("weather", city="Rome", days=3)])
    assert found == ['weather(city="Rome", [-days=2-] {+days=3+})']


def test_missing_and_invented_arguments():
    found = marked(example(call("weather", city="Rome", unit="C")), [call("weather", city="Rome", hours=4)])
    assert found == ['weather(city="Rome", [-unit="C"-], {+hours=4+})']


def test_what_the_scorer_takes_for_the_same_is_not_marked():
    expected = example(call("weather", city="New York", days=1), call("news", city="Oslo"))
    found = marked(expected, [call("news", city="Bern"), call("weather", city="new-york")])
    assert found == ['weather(city="new-york", days left out)', 'news([-city="Oslo"-] {+city="Bern"+})']


def test_calls_that_agree_are_paired_first_and_the_rest_is_whole():
    expected = example(call("weather", city="Rome"), call("weather", city="Oslo"))
    found = marked(expected, [call("weather", city="Oslo"), call("news", city="Rome")])
    assert found == ['[-weather(city="Rome")-]', 'weather(city="Oslo")', '{+news(city="Rome")+}']


def test_listed_values_decide_where_there_are_some():
    expected = example(
        call("weather", city="NYC", unit="C"), possible=[{"city": ["NYC", "New York"], "unit": ["C", ""]}]
    )
    assert marked(expected, [call("weather", city="New York")]) == ['weather(city="New York", unit left out)']
    assert marked(expected, [call("weather", city="Rome")]) == [
        'weather([-city="NYC"-] {+city="Rome"+}, unit left out)'
    ]


def test_items_keep_one_copy_of_what_conditions_share():
    item = example(call("weather", city="Rome"))
    texts = {"base": "no", "tuned": '{"name": "weather", "arguments": {"city": "Oslo"}}', "fused": "no"}
    mark = {"id": "i", "kind": "one", "ast": False, "error": "unparseable"}
    (row,) = item_rows(
        [item],
        {condition: [mark] for condition in texts},
        {condition: [{"id": "i", "text": text, "output_tokens": 3}] for condition, text in texts.items()},
        {"from": "base", "to": "tuned"},
    )
    assert [names for names, _ in row["answers"]] == ["base, fused", "tuned"]
    assert row["answers"][0][1]["difference"] == []
    assert [text for text, kind in row["answers"][1][1]["difference"][0] if kind != SAME] == [
        'city="Rome"',
        'city="Oslo"',
    ]
    assert row["outcomes"].split() == ["-base", "-tuned", "-fused", "unparseable"]


def test_messages_show_the_calls_that_they_make():
    made = {"role": "assistant", "content": None, "tool_calls": [{"function": call("news", city="Oslo")}]}
    assert '"city": "Oslo"' in message_text(made)
    assert message_text({"role": "tool", "content": "4 °C"}) == "4 °C"
