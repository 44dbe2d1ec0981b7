"""The prompts that items are asked with, under each condition."""

from collections.abc import Sequence
from typing import Any

from callsmith.chat.template import render_prompt
from callsmith.evals import fewshot
from callsmith.evals.conditions import Condition
from callsmith.runtime.errors import CallsmithError


def prompt_texts(
    tokenizer: Any, examples: Sequence[Any], condition: Condition, train: Sequence[Any], style: str
) -> list[str]:
    """The prompt of each example under a condition. Raises CallsmithError where it needs examples and has none."""
    messages = [example.messages for example in examples]
    if condition.fewshot:
        if not train:
            raise CallsmithError("a condition with examples in its prompt needs training examples to choose them from")
        shots = fewshot.Shots(train, style)
        messages = [shots.of(example, tokenizer)[0] for example in examples]
    listed = condition.tools and not condition.fewshot  # there, each request stands after its tools
    return [
        render_prompt(tokenizer, said, example.tools if listed else None)
        for said, example in zip(messages, examples, strict=True)
    ]
