"""The kinds of an answer's tokens, and the base's loss on each against the plain whole model."""

import mlx.core as mx
import pytest

from callwright.chat.tokens import tokenize_example
from callwright.lora import token_kinds
from callwright.lora.token_kinds import characters
from callwright.models.load import load

TOOL = {"type": "function", "function": {"name": "name_of", "parameters": {"type": "object", "properties": {}}}}


def told(text: str) -> list[tuple[str, str]]:
    """Runs of characters of one kind."""
    runs: list[list[str]] = []
    for letter, kind in zip(text, characters(text), strict=True):
        if runs and runs[-1][0] == kind:
            runs[-1][1] += letter
        else:
            runs.append([kind, letter])
    return [(kind, run) for kind, run in runs]


def test_a_call_is_told_apart():
    text = '<tool_call>\n{"name": "name_of", "arguments": {"name": "A \\"b\\"", "n": -1.5e3, "ok": true}}\n</tool_call>'
    assert told(text) == [
        ("markers", "<tool_call>"), ("form", '\n{"name": "'), ("names", "name_of"),
        ("form", '", "arguments": {"name": "'), ("values", 'A \\"b\\"'), ("form", '", "n": '), ("values", "-1.5e3"),
        ("form", ', "ok": '), ("values", "true"), ("form", "}}\n"), ("markers", "</tool_call>"),
    ]  # fmt: skip


def test_words_are_words():
    assert told("I can't do 2 things.") == [("words", "I can't do 2 things.")]


def test_a_fenced_list_has_no_markers():
    text = '```json\n[{"name": "f", "arguments": {"a": [1, "x"]}}]\n```'
    kinds = dict.fromkeys(kind for kind, _ in told(text))
    assert list(kinds) == ["form", "names", "values"]


def test_losses_are_the_models_own(gemma_folder):
    model, tokenizer = load(gemma_folder)
    calls = [{"name": "name_of", "arguments": {"city": "Paris"}}]
    rows = [
        tokenize_example(
            tokenizer, {"id": "a", "messages": [{"role": "user", "content": "Hi"}], "tools": [TOOL], "calls": given}
        )
        for given in (calls, [], calls * 2)
    ]
    [(members, length)] = token_kinds._alike(rows)  # they begin alike, and are computed so
    assert len(members) == 3
    assert length > 20
    found = token_kinds.base_loss(model, tokenizer, rows, count=3)
    assert set(found) == set(token_kinds.KINDS)
    total, count = 0.0, 0
    for row in rows:
        ids, [[begin, end]] = row["input_ids"], row["spans"]
        kinds = token_kinds.kinds(tokenizer, ids[begin:end])
        assert len(kinds) == end - begin
        assert kinds[-1] == "end of turn"
        logits = model(mx.array([ids[:-1]]))[0]
        logits = logits - mx.logsumexp(logits, axis=1, keepdims=True)
        total -= sum(logits[at - 1, ids[at]].item() for at in range(begin, end))
        count += end - begin
    assert sum(fact["tokens"] for fact in found.values()) == count
    assert sum(fact["tokens"] * fact["loss"] for fact in found.values()) == pytest.approx(total, rel=1e-4)
    assert token_kinds.base_loss(model, tokenizer, rows, count=1)["end of turn"]["tokens"] == 1
