"""What the tokens of answers are for, and the base model's loss on each kind of them, before any training.

A mean over all tokens hides what a base has to learn: it may know every value and not the form around them.
"""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from callwright.lora.blocks import Blocks
from callwright.lora.loss import logsumexp

KINDS = ("markers", "names", "values", "form", "words", "end of turn")
MARKER = re.compile(r"</?tool_call>")
NAME = re.compile(r'"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"arguments"')
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
NUMBER = re.compile(r"-?\d[\d.eE+-]*|true|false|null")


def base_loss(
    model: nn.Module, tokenizer: Any, rows: Sequence[dict[str, Any]], count: int = 8
) -> dict[str, dict[str, float]]:
    """For each of `KINDS` that occurs: its `tokens` and the mean `loss` (nats) of `model` on them, on `count` rows.

    rows: token rows (`input_ids`, `spans`), of which the first are taken.
    """
    blocks, sums, numbers = Blocks(model, verify=False), defaultdict(float), defaultdict(int)
    shares = blocks.shares()
    for group, length in _alike(rows[:count]) if shares else [([row], 0) for row in rows[:count]]:
        own = [row["input_ids"][length:-1] for row in group]
        longest = max(map(len, own))
        tokens = mx.array([ids + [0] * (longest - len(ids)) for ids in own])  # what follows a row does not change it
        states, steps = blocks.enter_flow(tokens, mx.array(group[0]["input_ids"][:length]) if length else None)
        for row, hidden in zip(group, blocks.run_flow(states, steps, 0, len(blocks))[-1], strict=True):
            ids = row["input_ids"]
            for begin, end in row["spans"]:
                logits = blocks.head(hidden[begin - 1 - length : end - 1 - length]).astype(mx.float32)
                losses = logsumexp(logits) - logits[mx.arange(end - begin), mx.array(ids[begin:end])]
                for kind, loss in zip(kinds(tokenizer, ids[begin:end]), losses.tolist(), strict=True):
                    sums[kind] += loss
                    numbers[kind] += 1
    return {kind: {"tokens": numbers[kind], "loss": sums[kind] / numbers[kind]} for kind in KINDS if kind in numbers}


def _alike(rows: Sequence[dict[str, Any]]) -> list[tuple[list[dict[str, Any]], int]]:
    """`rows` in groups whose prompts begin alike for at least half of each, with the length of what they begin with."""
    groups: list[tuple[list[dict[str, Any]], int]] = []
    for row in sorted(rows, key=lambda row: row["input_ids"]):
        prompt = row["input_ids"][: row["spans"][0][0] - 1]
        if groups:
            members, length = groups[-1]
            first = members[0]["input_ids"][: members[0]["spans"][0][0] - 1]
            common = len(os.path.commonprefix([first[: length or None], prompt]))
            if 2 * common >= max(len(first), len(prompt)) > 0:
                groups[-1] = ([*members, row], common)
                continue
        groups.append(([row], 0))
    return groups


def kinds(tokenizer: Any, answer: Sequence[int]) -> list[str]:
    """The kind of each token of an answer, whose last one ends the turn; a token of several characters is its first's.

    A token that was added to the vocabulary, other than the last, is a marker, whatever the form of calling.
    """
    added = set(tokenizer.get_added_vocab().values())
    starts, text = [], ""
    for end in range(1, len(answer)):
        starts.append(len(text))
        text = tokenizer.decode(answer[:end], clean_up_tokenization_spaces=False)
    of = characters(text)
    found = [
        "markers" if token in added else of[min(_first_letter(text, start), len(of) - 1)] if of else "words"
        for token, start in zip(answer[:-1], starts, strict=True)
    ]
    return [*found, "end of turn"]


def _first_letter(text: str, start: int) -> int:
    """The first place from `start` on that is no space or quotation mark, which belong to what they open."""
    at = start
    while at + 1 < len(text) and text[at] in ' "':
        at += 1
    return at


def characters(text: str) -> list[str]:
    """The kind of each character of an answer."""
    calls = MARKER.search(text) or NAME.search(text)
    of = ["form" if calls else "words"] * len(text)

    def mark(begin: int, end: int, kind: str) -> None:
        of[begin:end] = [kind] * (end - begin)

    if not calls:
        return of
    names = {found.span(1) for found in NAME.finditer(text)}
    at = 0
    while at < len(text):
        if string := STRING.match(text, at):
            begin, end = string.start() + 1, string.end() - 1
            is_key = re.match(r"\s*:", text[string.end() :])
            if (begin, end) in names:
                mark(begin, end, "names")
            elif not is_key:
                mark(begin, end, "values")
            at = string.end()
        elif number := NUMBER.match(text, at):
            mark(*number.span(), "values")
            at = number.end()
        else:
            at += 1
    for found in MARKER.finditer(text):
        mark(*found.span(), "markers")
    return of
