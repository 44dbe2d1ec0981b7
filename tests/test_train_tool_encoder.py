"""Learning a dual encoder: what lists of tools teach about lists that were not seen."""

import numpy as np
import pytest
from fixtures_tiny import Letters, make_tiny

from callwright.data.records import Example
from callwright.evals.tool_encoder import ToolProjection
from callwright.runtime.errors import CallwrightError
from callwright.train import tool_encoder
from callwright.train.tool_encoder import ToolList, accuracy, blocks_to_read, fit, lists_of, log_loss, trained


def made(rng, hidden, tools=6, requests=20, d=32):
    """A list whose requests lie where `hidden` [d, d] takes their tool, among much noise of no meaning."""
    meaning = rng.normal(size=(tools, 8))
    meant = rng.integers(tools, size=requests)
    noise = [rng.normal(size=(count, d - 8)) for count in (tools, requests)]
    shown = np.concatenate([meaning, noise[0]], axis=1) @ hidden
    said = np.concatenate([meaning[meant] + 0.3 * rng.normal(size=(requests, 8)), noise[1]], axis=1) @ hidden
    return ToolList(shown.astype(np.float32), said.astype(np.float32) + 5.0, meant)


@pytest.fixture(scope="module")
def lists():
    rng = np.random.default_rng(0)
    hidden = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    return [made(rng, hidden) for _ in range(24)]


def test_tools_of_lists_that_were_not_seen_are_named(lists, monkeypatch):
    monkeypatch.setattr(tool_encoder, "WIDTH", 16)
    found, figures = fit(lists[:20], "tiny", (1, 2), seed=3)
    assert accuracy(found, lists[20:]) > 0.7
    assert figures["accuracy"] > 0.7
    assert figures["chance"] == pytest.approx(1 / 6)
    assert (figures["held_back_lists"], figures["lists"]) == (3, 20)
    assert log_loss(found, lists[20:]) < np.log(6)
    again, _ = fit(lists[:20], "tiny", (1, 2), seed=3)
    assert np.array_equal(found.matrix, again.matrix)


def test_training_is_what_names_them(lists, monkeypatch):
    monkeypatch.setattr(tool_encoder, "WIDTH", 16)
    before, after = (accuracy(trained(lists[:20], "tiny", (1,), 0, steps), lists[20:]) for steps in (1, 120))
    assert after > before + 0.2


def test_what_teaches_nothing_is_refused(lists, monkeypatch):
    """Calls at random; and too few lists still give a projection of what there is."""
    monkeypatch.setattr(tool_encoder, "WIDTH", 16)
    rng = np.random.default_rng(2)
    random = [ToolList(one.tools, one.requests, rng.integers(6, size=len(one.meant))) for one in lists]
    with pytest.raises(CallwrightError, match="nothing was learned"):
        fit(random, "tiny", (1,))
    few = trained(lists[:2], "tiny", (1,), 0, steps=5)
    few.check()
    assert np.abs(few.matrix).max() < 10


def test_scores_are_log_probabilities_and_the_scale_alone_makes_them_surer():
    rng = np.random.default_rng(5)
    one = ToolProjection("tiny", (1,), np.zeros((2, 6)), np.ones((2, 6)), rng.normal(size=(6, 3)), 2.0)
    requests, tools = rng.normal(size=(4, 6)), rng.normal(size=(5, 6))
    soft, hard = (
        one.log_probabilities(requests, tools),
        tool_encoder.rescaled(one, 20.0).log_probabilities(requests, tools),
    )
    assert np.exp(soft).sum(axis=-1) == pytest.approx(np.ones(4))
    assert (soft.argmax(axis=-1) == hard.argmax(axis=-1)).all()
    assert (np.exp(hard).max(axis=-1) > np.exp(soft).max(axis=-1)).all()


def example(number, asked, called, names):
    tools = [
        {"type": "function", "function": {"name": name, "description": f"{name} things", "parameters": {}}}
        for name in names
    ]
    calls = [{"name": name, "arguments": {}} for name in called]
    return Example(
        id=f"e:{number}", tools=tools, messages=[{"role": "user", "content": asked}], calls=calls, source="test"
    )


def test_requests_for_one_call_are_read_under_their_own_list(monkeypatch):
    model = make_tiny()
    examples = [
        example(1, "hi there", ["b"], ["a", "b"]), example(2, "more", ["a"], ["a", "b"]),
        example(3, "two things", ["a", "b"], ["a", "b"]), example(4, "none", [], ["a", "b"]),
        example(5, "other", ["d"], ["c", "d", "e"]), example(6, "one tool", ["x"], ["x"]),
        example(7, "a tool that is not there", ["z"], ["a", "b"]),
    ]  # fmt: skip
    monkeypatch.setattr(tool_encoder, "FEW", 2)
    first, second = lists_of(model, Letters(), examples, (1, 2))
    assert (first.meant.tolist(), second.meant.tolist()) == ([1, 0], [1])
    assert (first.tools.shape, first.requests.shape) == ((2, 2 * model.args.hidden_size),) * 2
    assert second.tools.shape[0] == 3
    with pytest.raises(CallwrightError, match="2 lists of tools or more: found 1"):
        lists_of(model, Letters(), examples[:4], (1, 2))


def test_the_blocks_that_are_read_lie_within_any_model():
    assert blocks_to_read(30) == (6, 18, 30)
    assert blocks_to_read(1) == (1, 1, 1)
