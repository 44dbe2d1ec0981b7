"""How long prompts and answers may be."""

import math
from collections.abc import Sequence
from typing import Any

import mlx.nn as nn

from callwright.chat.formats import answer_text
from callwright.chat.tokens import TokenizeError, encode, expected_answer
from callwright.runtime.errors import CallwrightError

# An answer may be so much longer than the longest expected one before it is cut.
ROOM = 1.5


def needed_room(tokenizer: Any, examples: Sequence[Any], style: str) -> tuple[int, tuple[int, str]]:
    """The least limit of output tokens, and the longest expected answer: its length and its item's id."""
    longest = max((length_of(tokenizer, example, style), example.id) for example in examples)
    return math.ceil(ROOM * longest[0]), longest


def length_of(tokenizer: Any, example: Any, style: str) -> int:
    """Tokens of the expected answer; of one that the model's own form cannot carry, those of the Hermes form."""
    try:
        return len(encode(tokenizer, expected_answer(tokenizer, example, style)))
    except TokenizeError:
        return len(encode(tokenizer, answer_text(example, style)))


def longest_prompt(model: nn.Module, limit: int, wanted: int | None) -> float:
    """The tokens that a prompt may have: `wanted`, and what the model's context leaves beside an answer."""
    context = getattr(getattr(model, "args", None), "max_position_embeddings", None)
    return min(wanted or math.inf, context - limit if context else math.inf)


def check_room(tokenizer: Any, examples: Sequence[Any], limit: int, style: str) -> None:
    """Raise CallwrightError when the longest expected answer leaves no room to `limit` output tokens."""
    needed, (length, identifier) = needed_room(tokenizer, examples, style)
    if limit < needed:
        raise CallwrightError(
            f"config key evaluation.max_output_tokens is {limit}, but the expected answer of item {identifier!r} has "
            f"{length} tokens, and answers must not be cut short: set it to at least {needed}"
        )
