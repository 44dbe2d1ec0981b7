"""Requests from tools: prefixes, what is drawn, and what a server is given of it."""

from callwright.data.noisy_channel import SAMPLES, prefix, settings_for, wordings
from callwright.data.records import Example

TOOLS = [
    {"type": "function", "function": {"name": name, "description": text, "parameters": {"type": "object"}}}
    for name, text in [("get_weather", "The weather in a city."), ("play.song", "Play a song.")]
]


def example(number, tool, text, wording=None, **more):
    tags = (f"phrasing:{tool}/phrasings/{wording}",) if wording is not None else ()
    calls = [{"name": tool, "arguments": {}}]
    made = {"id": f"e{number}", "messages": [{"role": "user", "content": text}], "tools": TOOLS, "calls": calls}
    return Example(**{**made, "source": "test", "tags": tags, **more})


EXAMPLES = [example(n, "get_weather", f"weather {wording} {n}", wording) for n in range(40) for wording in range(6)] + [
    example(900, "play.song", "sing something"),
    example(901, "play.song", "nothing", calls=[]),
    example(902, "play.song", "both", calls=[{"name": tool, "arguments": {}} for tool in ("play.song", "get_weather")]),
]


def test_a_prefix_shows_the_tool_and_how_others_asked():
    assert prefix(TOOLS[1]["function"], ["a", "b"]) == (
        'What a customer can ask for: play song: Play a song.\nCustomers write:\n- "a"\n- "b"\n- "'
    )
    assert prefix({"name": "now"}) == 'What a customer can ask for: now: now\nCustomers write:\n- "'


def test_only_requests_for_one_tool_say_how_people_ask():
    found = wordings(EXAMPLES)
    assert {tool: {w: len(same) for w, same in by.items()} for tool, by in found.items()} == {
        "get_weather": {f"get_weather/phrasings/{wording}": 40 for wording in range(6)},
        "play.song": {"sing something": 1},
    }


def test_a_server_is_given_requests_for_the_runs_own_tools():
    mixed = example(950, "other", "of another toolset", tags=("mixed:1",))
    found = settings_for([*EXAMPLES, mixed], 1)
    assert found["weight"] > 0
    assert sorted(found["samples"]) == ["get_weather", "play.song"]
    assert len({text.split()[1] for text in found["samples"]["get_weather"]}) == SAMPLES
    assert found["samples"]["play.song"] == ["sing something"]
    assert settings_for([], 1)["samples"] == {}
