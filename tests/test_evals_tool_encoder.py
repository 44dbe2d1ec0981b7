"""The dual encoder: texts as means of hidden states, and the tool whose vector lies nearest."""

import threading
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from fixtures_tiny import Letters, make_tiny

from callwright.data.tool_texts import described, words
from callwright.evals.pooled import pooled
from callwright.evals.readings import open_readings
from callwright.evals.tool_encoder import FILE, ToolEncoder, ToolProjection, model_of, read
from callwright.lora.blocks import Blocks
from callwright.runtime.errors import CallwrightError


@pytest.fixture(scope="module")
def tiny():
    return make_tiny()


def function(name, description="What it does", **properties):
    return {"name": name, "description": description, "parameters": {"properties": properties}}


def projection(model, width=4, after=(1, 2), scale=10.0):
    d = len(after) * model.args.hidden_size
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(d, width)).astype(np.float32)
    return ToolProjection(model_of(model.args), after, np.zeros((2, d)), np.ones((2, d)), matrix, scale)


def test_a_text_is_the_mean_of_its_states_whatever_stands_beside_it(tiny, monkeypatch):
    texts = [[4, 9, 2], [7], [5, 6, 40, 7, 8, 1, 2, 3, 9]]
    blocks = Blocks(tiny)
    expected = []
    for ids in texts:
        h, calls = blocks.enter(mx.array([ids]))
        one, two = (blocks.run(h, calls, 0, last)[0] for last in (1, 2))
        expected.append(np.concatenate([np.array(one.mean(axis=0)), np.array(two.mean(axis=0))]))
    assert pooled(tiny, texts, (1, 2)) == pytest.approx(np.stack(expected), abs=1e-5)
    monkeypatch.setattr("callwright.evals.pooled.TOKENS", 1)  # one by one
    assert pooled(tiny, texts, (1, 2)) == pytest.approx(np.stack(expected), abs=1e-5)


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


def test_scores_are_those_of_the_vectors_and_tools_are_read_once(tiny, monkeypatch):
    learned = projection(tiny)
    encoder = ToolEncoder(tiny, Letters(), learned, weight=2.0)
    functions = [function("a"), function("b", "Another thing"), function("c", "Yet another")]
    states = read(tiny, Letters(), ["hello", *map(described, functions)], learned.after)
    vectors = [learned.vectors(states[:1], 0), learned.vectors(states[1:], 1)]
    cosines = 10.0 * (vectors[0] @ vectors[1].T)[0]
    expected = 2.0 * (cosines - np.log(np.exp(cosines).sum()))
    asked = []
    plain = pooled
    monkeypatch.setattr(
        "callwright.evals.tool_encoder.pooled", lambda *given: asked.append(len(given[1])) or plain(*given)
    )
    for ready in [encoder.prepared(functions, " hello ") for _ in range(2)]:  # all before any is asked
        found = ready()
        assert list(found) == ["a", "b", "c"]
        assert list(found.values()) == pytest.approx(expected, abs=1e-4)
    assert asked == [4, 1]


def test_many_threads_get_what_one_gets_and_forgetting_loses_nothing(tiny, monkeypatch):
    monkeypatch.setattr("callwright.evals.tool_encoder.KEPT", 2)
    encoder = ToolEncoder(tiny, Letters(), projection(tiny))
    lists = [[function(f"{letter}{n}", f"{letter} {n}") for n in range(3)] for letter in "abcd"]
    expected = [ToolEncoder(tiny, Letters(), projection(tiny)).prepared(tools, "hello")() for tools in lists]
    ready = [encoder.prepared(tools, "hello") for tools in lists]  # all before any is asked
    found = [None] * len(lists)

    def ask(number):
        with mx.stream(mx.new_stream(mx.cpu)):
            found[number] = ready[number]()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(lists))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_file_gives_back_what_was_saved_and_a_damaged_or_foreign_one_is_refused(tiny, tmp_path):
    learned, decision = projection(tiny), tmp_path / "decision.json"
    learned.save(tmp_path / FILE)
    found = ToolProjection.load(tmp_path / FILE)
    assert (found.after, found.scale) == (learned.after, learned.scale)
    assert found.matrix == pytest.approx(learned.matrix, abs=1e-2)
    decided = {"tool_encoder": {"weight": 1.5}}
    (reading,) = open_readings(tiny, Letters(), decided, decision).readings
    assert reading.weight == 1.5
    replace(learned, model="llama, 30 blocks, width 576, vocabulary 49152").save(tmp_path / FILE)
    with pytest.raises(CallwrightError, match="made for another model: llama, 30 blocks"):
        open_readings(tiny, Letters(), decided, decision)
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(CallwrightError, match="not a tool encoder"):
        open_readings(tiny, Letters(), decided, decision)
    (tmp_path / FILE).unlink()
    with pytest.raises(CallwrightError, match="is not there: copy it"):
        open_readings(tiny, Letters(), decided, decision)


@pytest.mark.parametrize(
    "change",
    [{"after": (2, 1)}, {"after": (0, 1)}, {"after": ()}, {"scale": float("nan")}, {"center": np.zeros(4)},
     {"spread": np.zeros((2, 96))}, {"matrix": np.zeros(96)}, {"center": np.full((2, 96), np.inf)}],
)  # fmt: skip
def test_parts_that_make_no_encoder_are_refused(tiny, change):
    whole = projection(tiny)
    whole.check()
    assert whole.matrix.shape[0] == 96
    with pytest.raises(ValueError):  # noqa: PT011
        replace(whole, **change).check()
