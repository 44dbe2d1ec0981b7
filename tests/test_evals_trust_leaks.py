"""A prompt's tools may look like an answer where they are shown as signatures; that is no leak."""

from types import SimpleNamespace

import pytest

from callwright.evals.trust.leaks import leaks

TOOL = {
    "type": "function",
    "function": {
        "name": "get_balance",
        "parameters": {
            "type": "object",
            "properties": {"account": {"type": "string", "enum": ["checking", "savings"]}},
            "required": ["account"],
        },
    },
}
EXAMPLE = SimpleNamespace(
    messages=[{"role": "user", "content": "What is in my first account?"}],
    tools=[TOOL],
    calls=[{"name": "get_balance", "arguments": {"account": "checking"}}],
)
SHOWN = 'get_balance(account: "checking"|"savings"): Balance.\nWhat is in my first account?'


@pytest.mark.parametrize(
    ("prompt", "leaked"),
    [
        (SHOWN, False),
        (SHOWN + "\naccount: checking", True),
        (SHOWN + '\n{"name": "get_balance", "arguments": {"account": "checking"}}', True),
        (SHOWN + '\nget_balance(account="checking")', True),
        (SHOWN + '\n{"account": "checking"}', True),
    ],
)
def test_an_enumeration_in_a_signature_is_no_call(prompt, leaked):
    assert leaks(EXAMPLE, prompt) == leaked


def test_only_an_enumeration_that_the_prompt_shows_so_excuses_what_looks_like_it():
    as_json = '{"name": "get_balance", "enum": ["checking", "savings"]}\nWhat is in my first account?'
    assert not leaks(EXAMPLE, as_json)
    assert leaks(EXAMPLE, as_json + "\naccount: checking")
    nullable = {"anyOf": [{"type": "string", "enum": ["checking", "savings"]}, {"type": "null"}]}
    function = {
        **TOOL["function"],
        "parameters": {**TOOL["function"]["parameters"], "properties": {"account": nullable}},
    }
    example = SimpleNamespace(**{**vars(EXAMPLE), "tools": [{"type": "function", "function": function}]})
    assert not leaks(example, SHOWN.replace('"savings"', '"savings" or null'))
