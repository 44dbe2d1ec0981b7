"""The prompts that items are asked with, under each condition."""

from collections.abc import Sequence
from typing import Any

from callwright.chat.template import render_prompt
from callwright.evals import fewshot
from callwright.evals.conditions import Condition
from callwright.runtime.errors import CallwrightError


def prompt_texts(
    tokenizer: Any, examples: Sequence[Any], condition: Condition, train: Sequence[Any], style: str
) -> list[str]:
    """The prompt of each example under a condition. Raises CallwrightError where it needs examples and has none."""
    messages = [example.messages for example in examples]
    if condition.fewshot:
        if not train:
            raise CallwrightError("a condition with examples in its prompt needs training examples to choose them from")
        shots = fewshot.Shots(train, style)
        messages = [shots.of(example, tokenizer)[0] for example in examples]
    listed = condition.tools and not condition.fewshot  # there, each request stands after its tools
    return [
        render_prompt(tokenizer, said, example.tools if listed else None)
        for said, example in zip(messages, examples, strict=True)
    ]
