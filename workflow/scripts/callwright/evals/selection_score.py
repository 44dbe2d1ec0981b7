"""How many of a few requests a model answers correctly, all in memory: what adapters are chosen by while they train."""

import math
from collections.abc import Sequence
from typing import Any

import mlx.nn as nn

from callwright.chat.call_format import form_of
from callwright.chat.tokens import prompt_ids
from callwright.decoding.limits import ROOM
from callwright.decoding.workers import answer_all
from callwright.evals.scoring.score import score_item
from callwright.runtime.errors import CallwrightError

BATCH_SIZE = 8  # prompts answered at once; fixed, so that the same adapter always gives the same answers


class HeldOut:
    """Some examples and their prompts. `score(model)` is the number of correct greedy answers (AST match)."""

    def __init__(
        self,
        tokenizer: Any,
        examples: Sequence[Any],
        token_rows: Sequence[dict[str, Any]],
        items: int,
        share: tuple[int, int] = (0, 1),
    ):
        """The first `items` of `examples` that have a row of tokens (`id`, `input_ids`, `spans`).

        `share` (rank, size): every `size`-th of them from `rank` on. An answer is cut at `limits.ROOM` times the
        longest expected one of all. Raises CallwrightError when no example is left.
        """
        expected = {row["id"]: sum(end - begin for begin, end in row["spans"]) for row in token_rows}
        chosen = [example for example in examples if example.id in expected][:items]
        if not chosen:
            raise CallwrightError("config key training.select is `tool_calls`, but the validation set has no example")
        self.items = len(chosen)
        self.limit = math.ceil(ROOM * max(expected[example.id] for example in chosen))
        self.examples = chosen[share[0] :: share[1]]
        self.prompts = [prompt_ids(tokenizer, example.messages, example.tools) for example in self.examples]
        self.tokenizer = tokenizer

    def score(self, model: nn.Module) -> int:
        """The number of this share's requests that `model` answers with the expected calls, as `evals.score` says."""
        correct, mark = 0, form_of(self.tokenizer).mark
        if not self.prompts:  # more workers than requests
            return 0
        stop_ids = set(self.tokenizer.eos_token_ids)
        for item, answer in answer_all(model, self.prompts, self.limit, stop_ids, BATCH_SIZE):
            text = self.tokenizer.decode(answer.ids, clean_up_tokenization_spaces=False)
            row = {"suite": "", "condition": "", "finish_reason": answer.finish_reason, "text": text, **mark}
            correct += score_item(self.examples[item], {"id": self.examples[item].id, **row})["ast"]
        return correct
