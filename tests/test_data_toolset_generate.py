"""Examples from a toolset: valid, grounded in the request, in the wanted mixture, and the same for the same seed."""

import calendar
import hashlib
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict

import orjson
import pytest

from callwright.data.records import Example, normalize, skeleton
from callwright.data.similarity import near_groups
from callwright.data.toolset import wording, writer
from callwright.data.toolset.generate import apportion, generate, hold_out_tools, with_no_call
from callwright.data.toolset.toolset import load_toolset

SEEDS = (42, 7)


@pytest.fixture(scope="module")
def toolset(root):
    return load_toolset(root / "config" / "toolsets" / "everyday.yaml")


@pytest.fixture(scope="module", params=SEEDS)
def examples(toolset, request):
    return generate(toolset, examples=1000, seed=request.param)


def of_pool(examples, name):
    return [example for example in examples if f"pool:{name}" in example.tags]


def phrasings(example):
    """The ids of the tools' phrasings that the request is made of; none for small talk."""
    ids = [tag.removeprefix("phrasing:") for tag in example.tags if tag.startswith("phrasing:")]
    return [key for key in ids if not key.startswith("small_talk/")]


def digest(examples):
    return hashlib.sha256(b"".join(orjson.dumps(example.to_row()) for example in examples)).hexdigest()


def test_as_many_come_as_were_asked_for(examples):
    counts = {name: len(of_pool(examples, name)) for name in ("train", "test", "unseen_tools")}
    assert counts == {"train": 900, "test": 100, "unseen_tools": 100}
    assert [example.id for example in examples] == [f"everyday-{number:05d}" for number in range(1100)]


def test_every_example_passes_the_check_of_records(examples):
    for example in examples:
        assert Example.from_row(orjson.loads(orjson.dumps(example.to_row()))) == example


def test_the_mixture_is_that_of_the_toolset(examples, toolset):
    assert toolset.mixture == pytest.approx({"one": 0.6, "several": 0.22, "no_tool": 0.09, "missing": 0.09})
    for name, count in (("train", 900), ("test", 100), ("unseen_tools", 100)):
        found = Counter(example.stratum for example in of_pool(examples, name))
        wanted = {"one": 0.6, "several": 0.22, "abstain:no_tool": 0.09, "abstain:missing": 0.09}
        assert found.keys() == wanted.keys()
        for stratum, share in wanted.items():
            assert found[stratum] / count == pytest.approx(share, abs=0.03), (name, stratum)
    for example in examples:
        assert (example.answer is None) == bool(example.calls)


def test_every_argument_is_said_in_the_request(examples, toolset):
    """Said as it stands, or by a plain rule: the rules here are written anew, not those of the generator."""
    fixed, said_for = {}, defaultdict(set)
    for tool in toolset.tools:
        for phrasing in (*tool.phrasings, *tool.twice, *tool.missing):
            fixed[phrasing.id] = phrasing.arguments
        for name, pool in tool.pools.items():
            for said, value in pool.entries or []:
                said_for[tool.name, name].add((said, orjson.dumps(value)))
    for example in examples:
        assert "{" not in example.query
        given = [item for key in phrasings(example) for item in fixed[key].items()]
        for call in example.calls:
            for name, value in call["arguments"].items():
                if (name, value) not in given:
                    assert is_said(value, example.query, said_for[call["name"], name]), (example.query, call)


def is_said(value, query, entries):
    """Is this value in the request: as an entry of its pool is said, part by part, or by a rule?"""
    spoken = {said for said, meant in entries if meant == orjson.dumps(value)}
    if not spoken and isinstance(value, list | dict):
        parts = value.values() if isinstance(value, dict) else value
        return all(is_said(part, query, entries) for part in parts)
    ways = spoken or ways_to_say(value)
    return any(re.search(rf"(?<!\w){re.escape(said)}(?!\w)", query, re.I) for said in ways)


def ways_to_say(value):
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    if isinstance(value, str) and (date := re.fullmatch(r"(?:(\d{4})-)?(\d\d)-(\d\d)", value)):
        year, month, day = date.group(1), calendar.month_name[int(date.group(2))], int(date.group(3))
        return (
            [value, f"{month} {day}, {year}", f"{day} {month} {year}"] if year else [f"{month} {day}", f"{day} {month}"]
        )
    if isinstance(value, str) and (time := re.fullmatch(r"(\d\d):(\d\d)", value)):
        hour, minute = int(time.group(1)), time.group(2)
        twelve = hour - 12 if hour > 12 else hour
        clock = f"{twelve}:{minute} {'am' if hour < 12 else 'pm'}"
        part = "morning" if hour < 12 else "afternoon" if hour < 18 else "evening"
        whole = [f"{twelve} in the {part}"] * (minute == "00") + ["noon"] * (value == "12:00")
        return [value, clock, clock.replace(":00", ""), *whole]
    if isinstance(value, float):
        return [str(value), f"{value:.2f}"]
    if isinstance(value, int):
        lengths = {15: "a quarter of an hour", 30: "half an hour", 60: "an hour", 90: "an hour and a half"}
        hours = [f"{count} hours" for count in (value // 60, words[value // 60])] if value in (120, 180, 240) else []
        return [str(value), *words[value : value + 1], *hours, *filter(None, [lengths.get(value)])]
    # Entries inside of lists and objects that are said otherwise.
    return [value, *{"daily": ["every day"], "weekend": ["on the weekend"]}.get(value, [])]


def test_the_arguments_of_one_call_are_different_values(examples):
    for example in examples:
        for call in example.calls:
            for first, second in (("source", "target"), ("from_unit", "to_unit"), ("origin", "destination")):
                if first in call["arguments"]:
                    assert call["arguments"][first] != call["arguments"][second], example.query
        assert len({orjson.dumps(call) for call in example.calls}) == len(example.calls), example.query


def test_held_out_tools_are_listed_in_no_other_pool(examples):
    listed = defaultdict(set)
    for example in examples:
        for tag in example.tags:
            if tag.startswith("pool:"):
                listed[tag] |= set(example.tool_names)
    assert len(listed["pool:unseen_tools"]) >= 8
    assert not listed["pool:unseen_tools"] & (listed["pool:train"] | listed["pool:test"])
    assert listed["pool:test"] <= listed["pool:train"]


def test_the_wordings_of_tests_are_not_trained(examples, toolset):
    trained = {key for example in of_pool(examples, "train") for key in phrasings(example)}
    tested = {key for example in of_pool(examples, "test") for key in phrasings(example)}
    assert len(tested) > 50
    assert not tested & trained
    everything = {p.id for t in toolset.tools for p in (*t.phrasings, *t.twice, *t.missing)}
    assert trained | tested <= everything
    texts = {normalize(example.query) for example in of_pool(examples, "train")}
    assert not texts & {normalize(e.query) for e in examples if "pool:train" not in e.tags}


def test_no_tool_that_could_serve_is_offered_to_a_request_that_none_serves(examples, toolset):
    tools = {tool.name: tool for tool in toolset.tools}
    count = 0
    for example in examples:
        if "abstain:no_tool" not in example.tags or not phrasings(example):
            continue
        count += 1
        asked = tools[phrasings(example)[0].split("/")[0]]
        able = {asked.name, *asked.similar} | {tool.name for tool in toolset.tools if asked.name in tool.similar}
        assert not able & set(example.tool_names), (example.query, example.tool_names)
    assert count > 30


def test_the_right_tools_are_offered_among_others_in_any_place(examples, toolset):
    tools = {tool.name: tool for tool in toolset.tools}
    places = Counter()
    for example in examples:
        names = example.tool_names
        assert {call["name"] for call in example.calls} <= set(names)
        assert 1 <= len(names) <= 5
        for call in example.calls:
            assert not tools[call["name"]].similar & set(names), example.query
        if example.kind == "one" and len(names) == 3:
            places[names.index(example.calls[0]["name"])] += 1
    assert len(places) == 3
    assert min(places.values()) > 0.2 * sum(places.values())
    sizes = Counter(len(example.tools) for example in examples if example.kind == "one")
    assert all(sizes[size] > 5 for size in (1, 2, 3, 4, 5))


def test_a_missing_argument_is_asked_for(examples, toolset):
    tools = {tool.name: tool for tool in toolset.tools}
    for example in examples:
        if "abstain:missing" in example.tags:
            tool = tools[phrasings(example)[0].split("/")[0]]
            assert tool.name in example.tool_names
            assert example.answer in tool.ask.values()


def test_no_two_requests_are_nearly_the_same(examples):
    """As curation counts near copies (`similarity`), and as those that differ in numbers and quoted parts only."""
    queries = [example.query for example in examples]
    assert len(set(near_groups(queries))) == len(queries)
    assert len({skeleton(query) for query in queries}) == len(queries)
    assert len({normalize(query) for query in queries}) == len(queries)


def test_the_english_has_no_slips_that_a_pattern_finds(examples):
    slips = re.compile(
        r"\b(the the|a a|an an)\b|\ban? the\b|\ba [aeo]\w|\ban [bcdfgjkmpqtvwyz]\w|\ban uro|  | [.,?!]|[.?!]{2}|"
        r"(?<![\w.])1 (?!is\b)\w+s\b|\b(find|get|buy) (me )?a \"",
        re.I,
    )
    found = [(match.group(), example.query) for example in examples if (match := slips.search(example.query))]
    assert found == []


def test_the_same_seed_gives_the_same_examples_whatever_the_hash_seed(root):
    code = (
        "import sys, hashlib, orjson\n"
        "from callwright.data.toolset.generate import generate\n"
        "from callwright.data.toolset.toolset import load_toolset\n"
        "rows = [e.to_row() for e in generate(load_toolset(sys.argv[1]), examples=200, seed=3)]\n"
        "print(hashlib.sha256(b''.join(map(orjson.dumps, rows))).hexdigest())\n"
    )
    path = root / "config" / "toolsets" / "everyday.yaml"
    scripts = str(root / "workflow" / "scripts")
    found = {
        subprocess.run(
            [sys.executable, "-c", code, path],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": scripts},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "77")
    }
    assert found == {digest(generate(load_toolset(path), examples=200, seed=3))}


def test_another_seed_gives_other_examples_and_holds_other_tools_out(toolset):
    first, second = generate(toolset, examples=100, seed=1), generate(toolset, examples=100, seed=2)
    assert digest(first) == digest(generate(toolset, examples=100, seed=1))
    assert len({e.query for e in first} & {e.query for e in second}) < 10
    assert len({frozenset(hold_out_tools(toolset, seed)) for seed in range(5)}) > 1


def test_whole_domains_are_held_out(toolset):
    held = hold_out_tools(toolset, 42)
    domains = {tool.domain for tool in toolset.tools if tool.name in held}
    assert len(domains) == round(0.15 * len(toolset.domains))
    assert held == {tool.name for tool in toolset.tools if tool.domain in domains}


def test_the_share_without_a_call_is_set_for_training_and_leaves_the_tests_as_they_are(toolset):
    plain, quiet = (generate(toolset, examples=300, no_call=share) for share in (None, 0.5))
    train = Counter(example.stratum for example in of_pool(quiet, "train"))
    assert train["abstain:no_tool"] == pytest.approx(train["abstain:missing"], abs=3) == pytest.approx(67, abs=3)
    for pool in ("test", "unseen_tools"):
        assert of_pool(quiet, pool) == of_pool(plain, pool)
    even = {"one": 1.0, "several": 0.0, "no_tool": 0.0, "missing": 0.0}
    assert with_no_call(even, 0.4) == {"no_tool": 0.2, "missing": 0.2, "one": 0.6, "several": 0.0}
    assert with_no_call(toolset.mixture, 0.0)["one"] == pytest.approx(0.6 / 0.82)


def test_requests_may_come_in_groups_that_share_their_list_of_tools(toolset):
    made = of_pool(generate(toolset, examples=200, requests_per_tool_list=4), "train")
    assert len(made) == 180
    lists = [tuple(example.tool_names) for example in made]
    assert all(len(set(lists[at : at + 4])) == 1 for at in range(0, 180, 4))
    assert len(set(lists)) > 35
    assert all(Example.from_row(example.to_row()) for example in made)
    found = Counter(example.stratum for example in made)
    assert found["abstain:no_tool"] >= 12
    assert found["abstain:missing"] >= 8
    assert found["several"] >= 30
    tools = {tool.name: tool for tool in toolset.tools}
    for example in made:
        for first in example.tool_names:
            assert not any(tools[first].could_serve(tools[o]) for o in example.tool_names if o != first)


def test_small_letters_leave_the_values_as_they_are(toolset):
    assert wording.small("Is it Raining in {city} or {City}?") == "is it raining in {city} or {City}?"
    made = generate(toolset, examples=400)
    short = [e for e in made if e.calls and e.query == e.query.lower() and e.query[-1] not in ".?!"]
    assert len(short) > 5


@pytest.mark.parametrize("chance", ["SHORT", "WITH_BEFORE", "WITH_AFTER"])
def test_each_habit_of_speech_can_be_turned_off(toolset, monkeypatch, chance):
    def marked(examples):
        return {
            "SHORT": sum(e.query[0].islower() and e.query[-1] not in ".?!" for e in examples),
            "WITH_BEFORE": sum(e.query.startswith(tuple(wording.BEFORE)) for e in examples),
            "WITH_AFTER": sum(e.query.endswith(tuple(wording.AFTER)) for e in examples),
        }[chance]

    assert marked(generate(toolset, examples=400)) > 5
    monkeypatch.setattr(wording, chance, 0.0)
    assert marked(generate(toolset, examples=300)) < 3 + 5 * (chance == "SHORT")


def test_the_tools_beside_the_right_one_are_near_or_far(toolset, examples):
    domain = {tool.name: tool.domain for tool in toolset.tools}
    near = far = 0
    for example in examples:
        if example.kind == "one" and len(example.tools) > 1:
            own = domain[example.calls[0]["name"]]
            beside = [domain[name] == own for name in example.tool_names if name != example.calls[0]["name"]]
            near, far = near + all(beside), far + (not any(beside))
    assert near > 150
    assert far > 150
    assert {name for name, _ in writer.NEIGHBOURS} == {"same", "other", ""}


def test_no_tools_are_held_out_where_none_are_wanted(toolset):
    made = generate(toolset, examples=50, test=0.0, unseen_tools=0.0)
    assert len(made) == 50
    assert all("pool:train" in example.tags for example in made)


def small(tmp_path, text):
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return load_toolset(path)


LAMP = """
domains:
  home:
    switch_lamp:
      description: Turn a lamp on or off.
      parameters: {state: {type: string, enum: [on, off]}}
      phrasings: ["Turn the lamp {state}", "Switch the lamp {state}."]
"""


def test_one_tool_alone_makes_what_can_be_made_of_it_and_says_so(tmp_path, caplog):
    made = generate(small(tmp_path, LAMP), examples=800)
    assert 50 < len(made) < 800
    assert {example.kind for example in made} == {"one", "several", "none"}
    assert len({normalize(example.query) for example in made}) == len(made)
    assert all(Example.from_row(example.to_row()) for example in made)
    assert re.search(r"small has phrasings and values for \d+ different requests of pool:train, not 720", caplog.text)
    assert "too small to hold tools out" in caplog.text


def test_two_orders_that_make_the_same_call_are_not_joined(tmp_path):
    music = """
domains:
  music:
    stop_music: {description: Stop the music., phrasings: [Stop the music, Turn the music off, Music off]}
    start_radio: {description: Start the radio., phrasings: [Start the radio, Turn the radio on, Radio on]}
"""
    made = generate(small(tmp_path, music), examples=60)
    assert sum(example.kind == "several" for example in made) > 5
    assert all(len({call["name"] for call in e.calls}) == len(e.calls) for e in made)


def test_articles_fit_the_values_that_follow():
    said = {
        "an": "apple 8-day 80 11 18 hour honest umbrella urgent uninteresting onion 11.50 ophthalmologist",
        "a": "pear 9-day 110 180 1 universal user European one-way urologist uranium unicorn",
    }
    for article, values in said.items():
        for value in values.split():
            text = wording.fill("Get a/an {x}. A/an {x}", {"{x}": value})
            assert text == f"Get {article} {value}. {article.capitalize()} {value}"


def test_a_count_is_divided_by_shares_without_loss():
    assert apportion({"a": 0.6, "b": 0.22, "c": 0.09, "d": 0.09}, 100) == {"a": 60, "b": 22, "c": 9, "d": 9}
    assert apportion({"a": 1, "b": 1, "c": 1}, 2) == {"a": 1, "b": 1, "c": 0}
    assert apportion({"a": 0, "b": 0}, 0) == {"a": 0, "b": 0}
    for count in range(30):
        parts = apportion({"a": 3, "b": 1.5, "c": 0.1}, count)
        assert sum(parts.values()) == count
        assert all(abs(parts[key] - count * share / 4.6) < 1 for key, share in {"a": 3, "b": 1.5, "c": 0.1}.items())
