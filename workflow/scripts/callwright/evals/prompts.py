"""The prompts that items are asked with, under each condition."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from callwright.chat.template import render_prompt
from callwright.evals import fewshot
from callwright.evals.conditions import CONDITIONS, Condition
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


def fewer_tools(row: Mapping[str, Any]) -> bool:
    """Whether the prompt of a row of `evals.generate` shows the tools alone that a tool encoder left."""
    condition = CONDITIONS.get(row["condition"])
    return bool(row.get("offered")) and condition is not None and condition.threshold


def shortened_prompt(tokenizer: Any, example: Any, row: Mapping[str, Any]) -> str:
    """The prompt of a row for which `fewer_tools` holds, rendered again."""
    shown = as_shown(example, row)
    return render_prompt(tokenizer, shown.messages, shown.tools)


def as_shown(example: Any, row: Mapping[str, Any]) -> Any:
    """The example as the prompt of a row of `evals.generate` shows it."""
    if not fewer_tools(row):
        return example
    return replace(example, tools=[tool for tool in example.tools if tool["function"]["name"] in row["offered"]])
