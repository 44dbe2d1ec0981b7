"""The base model with an instruction and three examples in its prompt: what can be had without training.

The examples are training examples: one call, several calls, no call; the same ones for every item, chosen by a seed,
unless one has a tool in common with the item or would give its answer away: then the next in the seeded order takes
its place. They stand as earlier turns, each request right after the tools that it was asked with; the item's own
request follows its own tools in the same way. A small model that reads its tools in the system message copies the
examples' calls instead (docs/lab-notes.md), and so most prompts begin alike, which `evals.decode` computes once.
"""

import contextlib
import json
import logging
import random
from collections.abc import Iterator, Sequence
from typing import Any

from callwright.chat.call_format import form_of
from callwright.chat.formats import answer_text, to_json
from callwright.chat.template import render_prompt
from callwright.chat.tokens import TokenizeError, expected_answer
from callwright.data.records import Example, normalize, text_of
from callwright.evals.trust.leaks import leaks

log = logging.getLogger(__name__)

SEED = 42
# The last one is what a small model copies most, and most requests ask for one call.
KINDS = ("none", "several", "one")
SHORT = 0.5  # examples come from the shorter half of the training set: each token of a prompt costs time
TRIES = 50
ASKED = {"role": "user", "content": "A request."}

INSTRUCTION = {
    "hermes": "Answer the request with calls to the tools. Write each call exactly like this:\n{call}\n"
    "Write one such block for each call, and nothing else. If no tool fits or a required value is missing, "
    "write no block and answer in plain words.",
    "fenced": "Answer the request with calls to the tools. Write all calls as one list, exactly like this:\n{call}\n"
    "Write nothing else. If no tool fits or a required value is missing, write no list and answer in plain words.",
}


class Shots:
    """The training examples that prompts may show, in seeded orders by kind."""

    def __init__(self, train: Sequence[Example], style: str = "hermes", seed: int = SEED):
        self.style = style
        self.orders: dict[str, list[Example]] = {}
        for kind in KINDS:
            found = [example for example in train if example.kind == kind and is_plain(example)]
            found.sort(key=lambda example: (len(to_json([example.tools, example.query, example.calls])), example.id))
            found = found[: max(round(SHORT * len(found)), 3)]
            random.Random(f"{seed} {kind}").shuffle(found)
            if found:
                self.orders[kind] = found
        if missing := [kind for kind in KINDS if kind not in self.orders]:
            log.warning("the training set has no example of the kinds %s to show", ", ".join(missing))

    def of(self, item: Any, tokenizer: Any) -> tuple[list[dict[str, Any]], list[Example]]:
        """The messages that an item is asked with, its tools among them, and the examples in them.

        Examples that share a tool with the item come last in each order, and those that ask the same not at all.
        """
        names, asked = {tool["function"]["name"] for tool in item.tools}, normalize(item.asked)
        orders = [
            sorted((e for e in order if normalize(e.asked) != asked), key=lambda e: not names.isdisjoint(e.tool_names))
            for order in self.orders.values()
        ]
        for chosen in combinations(orders):
            messages = with_shots(item, chosen, self.style, tokenizer)
            if not leaks(item, render_prompt(tokenizer, messages, None)):
                return messages, chosen
        log.warning("item %s: every choice of examples gives its answer away; it is asked without examples", item.id)
        return with_shots(item, [], self.style, tokenizer), []


def combinations(orders: Sequence[Sequence[Example]]) -> Iterator[list[Example]]:
    """The first of each order; then, one order at a time, the next ones."""
    yield [order[0] for order in orders if order]
    for step in range(1, TRIES):
        for place in range(len(orders)):
            yield [order[min(step - (n > place), len(order) - 1)] for n, order in enumerate(orders) if order]


def is_plain(example: Example) -> bool:
    """Whether an example is a single request."""
    return [message["role"] for message in example.messages] == ["user"]


def with_shots(item: Any, shots: Sequence[Example], style: str, tokenizer: Any = None) -> list[dict[str, Any]]:
    """An item's messages with instruction and examples before them; its own system message follows the instruction.

    The examples are answered in the form of the model whose tokenizer is given.
    """
    shown = {"calls": [{"name": "NAME", "arguments": {"PARAMETER": "VALUE"}}], "messages": [ASKED], "tools": item.tools}
    system = [INSTRUCTION["hermes" if style == "hermes" else "fenced"].replace("{call}", said(shown, style, tokenizer))]
    system += [text_of(message) for message in item.messages[:1] if message["role"] == "system"]
    messages = [{"role": "system", "content": "\n\n".join(system)}]
    for shot in shots:
        messages.append({"role": "user", "content": after_tools(shot.tools, shot.query)})
        messages.append({"role": "assistant", "content": said(shot, style, tokenizer)})
    own = [message for message in item.messages if message["role"] != "system"]
    last = max(place for place, message in enumerate(own) if message["role"] == "user")
    own[last] = {**own[last], "content": after_tools(item.tools, text_of(own[last]))}
    return messages + own


def said(example: Any, style: str, tokenizer: Any) -> str:
    """The answer to an example in the model's form, without what it would think aloud; in ours if that one fails."""
    form = form_of(tokenizer, style)
    if form.own:
        with contextlib.suppress(TokenizeError):
            return (form.after_thinking(expected_answer(tokenizer, example, style)) or "").strip()
    return answer_text(example, style)


def after_tools(tools: Sequence[dict[str, Any]], request: str) -> str:
    """A request after the list of its tools, as JSON: what a model that was not fine-tuned has seen most of."""
    lines = [json.dumps(tool["function"], ensure_ascii=False, separators=(",", ":")) for tool in tools]
    return "\n".join(["<tools>", *lines, "</tools>", request])
