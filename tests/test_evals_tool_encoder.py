"""The dual encoder: the tool whose vector lies nearest, and its file."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from fixtures_encoder import Words, make_encoder, make_heads
from fixtures_tiny import Letters
from mlx.utils import tree_flatten

from callwright.data.tool_texts import described, words
from callwright.evals import tool_encoder
from callwright.evals.tool_encoder import (
    FILE,
    Scales,
    ToolEncoder,
    check,
    enumerations,
    learned,
    log_softmax,
    open_tuned,
    put,
    save,
    token_ids,
    tool_scores,
    untrained,
)
from callwright.evals.tool_reading import open_reading
from callwright.evals.value_spans import AskedRequest, read
from callwright.lora.layers import adapter_parameters
from callwright.runtime.errors import CallwrightError

SCALES = Scales(tools=9.0, nothing=4.0, values=12.0, unsaid=5.0, whole=10.0, tool_words=7.0, request_words=3.0)


@pytest.fixture
def small(monkeypatch):
    """Every encoder that is opened is a tiny one."""
    monkeypatch.setattr(tool_encoder, "open_encoder", lambda: (make_encoder(), Words()))


def function(name, description="What it does", **properties):
    return {"name": name, "description": description, "parameters": {"properties": properties}}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("lookUpOrder", "look up order"), ("orders.look_up", "orders look up"), ("BookSeats", "book seats"), ("x", "x"),
     ("get-2nd_item", "get 2nd item")],
)  # fmt: skip
def test_names_are_read_as_words(name, expected):
    assert words(name) == expected


def test_a_tool_is_described_with_all_that_it_takes_and_any_schema_is_read():
    text = described(function("bookSeats", "Buy seats.", show={"type": "string", "description": "Title"},
                              area={"enum": ["STALLS", "BOX"]}))  # fmt: skip
    assert text == "book seats: Buy seats. show Title area STALLS BOX"
    assert described({"name": "f"}) == "f:"
    assert described({"name": "f", "description": None, "parameters": None}) == "f:"
    assert described(function("f", "d", x=True, y={"enum": "odd"})) == "f: d x y"


def test_scores_are_those_of_the_vectors_and_tools_are_read_once(monkeypatch):
    model, asked = make_encoder(), []
    encoder = ToolEncoder(model, Words(), make_heads(), SCALES, weight=2.0)
    functions = [function("a"), function("b", "Another thing"), function("c", "Yet another")]
    scores = np.array([plain_score(model, "hello there", described(one)) for one in functions])
    expected = scores - np.log(np.exp(scores).sum())
    plain = model.encode_tokens
    counted = SimpleNamespace(encode_tokens=lambda ids: asked.append(len(ids)) or plain(ids))
    monkeypatch.setattr(encoder, "encoder", counted)
    for _ in range(2):
        found = encoder.meant(functions, "hello there")
        assert list(found) == ["a", "b", "c"]
        assert list(found.values()) == pytest.approx(expected, abs=5e-3)  # words are kept in half precision
    assert asked == [4], "the request too is read once"
    encoder.read_ahead([*functions, function("d")], ["hello there", "another"])
    assert asked == [4, 2], "what is known is not read again"
    encoder.meant([functions[0], function("d")], "another")
    assert asked == [4, 2]
    vectors = np.array(model.encode(token_ids(Words(), ["hello there", *map(described, functions)])))
    whole = 9.0 * vectors[1:] @ vectors[0]
    assert encoder.fitting(functions, "hello there") == pytest.approx(np.log(np.exp(whole).sum()) - 4.0, abs=1e-4)


def plain_score(model, request, tool):
    """Each text read alone: the cosine of their means, and of each word with the nearest of the other text."""
    (asked, said), (offered, there) = (
        (states.mean(axis=0), states / np.linalg.norm(states, axis=1, keepdims=True))
        for (text,) in (token_ids(Words(), [one]) for one in (request, tool))
        for states in [np.array(model.states(mx.array([text]), mx.ones((1, len(text)), mx.bool_)))[0]]
    )
    whole = asked @ offered / np.linalg.norm(asked) / np.linalg.norm(offered)
    cosines = said @ there.T
    return 10.0 * whole + 7.0 * cosines.max(axis=0).mean() + 3.0 * cosines.max(axis=1).mean()


def test_many_requests_are_scored_at_once_as_one_by_one():
    model, requests = make_encoder(), ["hello there", "one two three four", "x"]
    encoder = ToolEncoder(model, Words(), make_heads(), SCALES)
    functions = [function("a"), function("b", "Another thing that is longer")]
    texts = token_ids(Words(), [*requests, *map(described, functions)])
    vectors, tokens = model.encode_tokens(texts)
    found = np.array(tool_scores(vars(SCALES), (vectors[:3], tokens[:3]), (vectors[3:], tokens[3:])))
    for request, scores in zip(requests, found, strict=True):
        assert scores == pytest.approx([plain_score(model, request, described(one)) for one in functions], abs=1e-4)
        assert list(encoder.meant(functions, request).values()) == pytest.approx(log_softmax(scores), abs=5e-3)


def test_the_value_is_the_nearest_and_may_be_none():
    tool = function("bookSeats", area={"enum": ["STALLS", "BOX"], "description": "Where to sit"}, day={"enum": [1, 2]},
                    guest={"type": "string"}, odd=True)  # fmt: skip
    options = enumerations(tool)
    assert options["area"] == ("book seats: area Where to sit", [("area: stalls", "STALLS"), ("area: box", "BOX")])
    assert list(options) == ["area"]
    several = function("bookSeats", area={"type": ["array", "null"], "items": {"enum": ["STALLS", "BOX"]}})
    assert enumerations(several)["area"] == ("book seats: area", options["area"][1])
    for values in (["auto", 1], ["price", None], ["C", "F"], []):
        assert enumerations(function("f", area={"enum": values})) == {}
    long = enumerations(function("f", area={"enum": ["box"], "description": "word " * 90}))["area"][0]
    assert len(long.split()) == 30
    assert enumerations({"name": "f", "parameters": None}) == {}
    about, values = options["area"]
    model, texts = make_encoder(), [f"{about}: hello there", *(text for text, _ in values)]
    request, *values = np.array(model.encode(token_ids(Words(), texts)))
    for unsaid in (-50.0, 50.0):
        scores = np.array([*(12.0 * value @ request for value in values), unsaid])
        encoder = ToolEncoder(model, Words(), make_heads(), replace(SCALES, unsaid=unsaid))
        said, shares = encoder.said(tool, "area", "hello there"), np.exp(scores - np.logaddexp.reduce(scores))
        assert said.value == ("STALLS", "BOX")[scores[:2].argmax()]
        assert [*said.values.values(), said.unsaid] == pytest.approx(shares.tolist(), abs=1e-5)


def test_what_words_say_is_read_once_for_all_parameters_and_what_is_no_text_is_not(monkeypatch):
    tool = function("orderCake", icing={"description": "What to write on it"}, guests={"type": "integer"},
                    fast={"type": "boolean"}, size={"enum": ["small", "large"]})  # fmt: skip
    encoder, asked = ToolEncoder(make_encoder(), Words(), make_heads(), SCALES), []
    monkeypatch.setattr(tool_encoder, "read", lambda *given: asked.append(len(given[2])) or read(*given))
    found = {name: encoder.said(tool, name, "Happy birthday for 12 guests") for name in ("icing", "guests", "fast")}
    assert found["fast"] is None
    assert encoder.said({"name": "f"}, "icing", "hello") is None
    assert set(found["guests"].values) == {12}
    assert set(found["icing"].values) > {"Happy birthday", "Happy", "12 guests"}
    for said in (found["icing"], found["guests"]):
        assert 0 < sum(said.values.values()) + said.unsaid <= 1.0001
    assert asked == [2]
    monkeypatch.setattr(tool_encoder, "READ", 2)
    encoder.said(tool, "icing", "Something else")
    assert encoder.said(tool, "icing", "Happy birthday for 12 guests") == found["icing"]
    assert asked == [2, 2, 2]


def test_many_threads_get_what_one_gets_and_forgetting_loses_nothing(monkeypatch):
    monkeypatch.setattr(tool_encoder, "KEPT", 2)
    encoder = ToolEncoder(make_encoder(), Words(), make_heads(), SCALES)
    lists = [[function(f"{letter}{n}", f"{letter} {n}") for n in range(3)] for letter in "abcd"]
    expected = [ToolEncoder(make_encoder(), Words(), make_heads(), SCALES).meant(tools, "hello") for tools in lists]
    found = [None] * len(lists)

    def ask(number):
        with mx.stream(mx.new_stream(mx.cpu)):
            found[number] = encoder.meant(lists[number], "hello")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(lists))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-2)


def test_a_file_gives_back_what_was_learned(small, tmp_path):
    encoder, _, heads = untrained(3)
    texts, before = [[4, 9, 2], [7, 8]], np.array(make_encoder().encode([[4, 9, 2], [7, 8]]))
    assert np.array(encoder.encode(texts)) == pytest.approx(before, abs=1e-6)  # nothing was learned yet
    arrays = {name: 0.3 * mx.random.normal(array.shape) for name, array in learned(encoder, heads).items()}
    put(encoder, heads, arrays)
    save(tmp_path / FILE, encoder, heads, SCALES)
    found, _, heads, scales = open_tuned(tmp_path / FILE)
    for name, array in tree_flatten(heads.parameters()):
        assert np.array(array) == pytest.approx(np.array(arrays[f"heads.{name}"]), abs=1e-3)
    assert scales == SCALES
    assert np.array(found.encode(texts)) == pytest.approx(np.array(encoder.encode(texts)), abs=1e-2)
    assert np.abs(np.array(found.encode(texts)) - before).max() > 0.05
    assert adapter_parameters(found) == {}, "folded in"


def test_a_file_that_knows_no_words_is_read_as_it_was(small, tmp_path):
    encoder, _, heads = untrained(0)
    arrays = learned(encoder, heads)
    about = {"tools": "9.0", "nothing": "4.0", "values": "12.0", "unsaid": "5.0"}
    mx.save_safetensors(str(tmp_path / FILE), arrays, {"encoder": tool_encoder.NAME, **about})
    assert check(tmp_path / FILE)[1] == Scales(9.0, 4.0, 12.0, 5.0, whole=9.0, tool_words=0.0, request_words=0.0)


def test_a_reading_opens_the_file_beside_the_decision_and_a_damaged_or_foreign_one_is_refused(small, tmp_path):
    decided, decision = {"tool_encoder": {"weight": 1.5}}, tmp_path / "decision.json"
    encoder, _, heads = untrained(0)
    save(tmp_path / FILE, encoder, heads, SCALES)
    reading = open_reading(Letters(), decided, decision).encoder
    assert (reading.weight, reading.scales) == (1.5, SCALES)
    other = ToolEncoder.load(tmp_path / FILE, 2.0)
    assert other.identity != reading.identity
    arrays, _ = check(tmp_path / FILE)
    name = next(iter(arrays))
    about = {"encoder": tool_encoder.NAME} | dict.fromkeys(vars(SCALES), "1.0")
    for change, metadata, message in [
        ({}, {"model": "qwen2"}, "it is none of all-MiniLM-L6-v2"),
        ({}, {**about, "tools": "nan"}, "holds what is not finite"),
        ({name: mx.full(arrays[name].shape, mx.inf)}, about, "holds what is not finite"),
        ({name: mx.zeros((2, 2))}, about, "its arrays are others"),
    ]:
        mx.save_safetensors(str(tmp_path / FILE), {**arrays, **change}, metadata)
        with pytest.raises(CallwrightError, match=f"not a tool encoder .*{message}"):
            open_reading(Letters(), decided, decision)
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(CallwrightError, match="not a tool encoder"):
        open_reading(Letters(), decided, decision)
    (tmp_path / FILE).unlink()
    with pytest.raises(CallwrightError, match="is not there: copy it"):
        open_reading(Letters(), decided, decision)


def test_no_value_begins_or_ends_within_a_word():
    request = AskedRequest("Flat 7C, 9 am", [0] * 7, 0, [(0, 4), (5, 6), (6, 7), (7, 8), (9, 10), (11, 13), (0, 0)])
    assert [request.cuts(*span) for span in [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (4, 4), (4, 5)]] == [
        False, True, True, False, False, False, False,
    ]  # fmt: skip


def test_a_request_that_is_not_read_to_its_end_says_nothing_of_its_arguments():
    class Short(Words):
        def encode(self, text):
            found = super().encode(text)
            return SimpleNamespace(ids=[*found.ids[:-1][:8], 99], offsets=[*found.offsets[:-1][:8], (0, 0)])

    tool = function("orderCake", icing={})
    for request, read_whole in (("Happy birthday", True), ("one two three four five six seven", False)):
        encoder = ToolEncoder(make_encoder(), Short(), make_heads(), SCALES)
        assert (encoder.said(tool, "icing", request) is not None) == read_whole


def test_whether_a_tool_fits_is_read_without_what_is_said_of_its_parameters():
    function = {
        "name": "switch_light",
        "description": "Switch a light.",
        "parameters": {
            "type": "object",
            "properties": {"state": {"type": "string", "description": "What it is to be.", "enum": ["on", "off"]}},
        },
    }
    assert described(function) == "switch light: Switch a light. state What it is to be. on off"
    assert described(function, parameters=False) == "switch light: Switch a light. state on off"
