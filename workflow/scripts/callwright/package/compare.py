"""How far a fused model is from the model with its adapter, on held-out examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from callwright.chat.call_format import form_of
from callwright.chat.parse import parse_lenient
from callwright.chat.tokens import prompt_ids, tokenize_example
from callwright.decoding.limits import needed_room
from callwright.decoding.workers import answer_all
from callwright.evals.scoring.score import score_item
from callwright.lora.blocks import Blocks
from callwright.lora.loss import logsumexp
from callwright.models.cpu_math import fast_inference

# The answer tokens that are compared, and the most that the reference's log-probabilities of them may take, which are
# kept: 488 tokens of Gemma 3.
ANSWER_TOKENS = 600
REFERENCE_BYTES = 512 * 10**6
BATCH_SIZE = 16  # prompts answered at once


class Distance:
    """Mean KL divergence (nats) of next-token distributions at the positions of the expected answers' tokens.

    The reference is what `model` computes when this is made; `measure` compares with it what `model` computes then,
    on the first examples, up to ANSWER_TOKENS. Only the blocks from `first` on may have changed, and what stands
    before the blocks where `first` is 0.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, examples: Sequence[Any], style: str, first: int):
        self.blocks, self.first = Blocks(model), first
        self.model = model
        self.rows: list[tuple[mx.array, list[int], mx.array | None, list[Any]]] = []
        self.reference: list[mx.array] = []
        self.positions, most = 0, ANSWER_TOKENS
        with fast_inference(model):
            for example in examples:
                row = tokenize_example(tokenizer, example, style)
                at = [position - 1 for begin, end in row["spans"] for position in range(begin, end)]
                tokens = mx.array([row["input_ids"][:-1]])
                entry, calls = self.blocks.enter(tokens)
                entry = self.blocks.run(entry, calls, 0, first)
                mx.eval(entry)
                found = self._log_probabilities(entry, calls, at, first)
                most = min(most, REFERENCE_BYTES // (found.nbytes // len(at)))
                if self.rows and self.positions + len(at) > most:
                    break
                self.rows.append((tokens, at, entry if first else None, calls))
                self.reference.append(found)
                self.positions += len(at)

    def _log_probabilities(self, entry: mx.array, calls: list[Any], at: list[int], first: int) -> mx.array:
        """[answer tokens, vocabulary] float32 from hidden states that enter block `first`."""
        hidden = self.blocks.run(entry, calls, first, len(self.blocks))[0, mx.array(at)]
        logits = self.blocks.head(hidden).astype(mx.float32)
        found = logits - logsumexp(logits)[:, None]
        mx.eval(found)
        return found

    def measure(self) -> float:
        """Mean KL(reference || model) over all positions."""
        total = 0.0
        with fast_inference(self.model):
            for (tokens, at, entry, calls), reference in zip(self.rows, self.reference, strict=True):
                if entry is None:
                    entry, calls = self.blocks.enter(tokens)
                found = self._log_probabilities(entry, calls, at, self.first)
                total += mx.sum(mx.exp(reference) * (reference - found)).item()
        return total / self.positions


@dataclass(frozen=True)
class Answers:
    """Greedy answers: their texts, the calls in them, and whether they are right.

    Right is the AST match of calls that a stock server reads; in a format that none reads, of whatever can be read.
    """

    texts: list[str]
    calls: list[list[dict[str, Any]]]
    right: list[bool]

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return sum(self.right) / len(self.right)

    def agreement(self, other: "Answers") -> float:
        """The share of requests that both answer with the same calls (or with none, both)."""
        same = [mine == theirs for mine, theirs in zip(self.calls, other.calls, strict=True)]
        return sum(same) / len(same)


def answer(model: nn.Module, tokenizer: Any, examples: Sequence[Any], style: str) -> Answers:
    """Answer `examples` greedily; an answer is cut at `limits.ROOM` times the longest expected one."""
    limit, form = needed_room(tokenizer, examples, style)[0], form_of(tokenizer, style)
    prompts = [prompt_ids(tokenizer, example.messages, example.tools) for example in examples]
    texts, calls, right = ([None] * len(prompts) for _ in range(3))
    for item, given in answer_all(model, prompts, limit, set(tokenizer.eos_token_ids), BATCH_SIZE):
        text, tools = tokenizer.decode(given.ids, clean_up_tokenization_spaces=False), examples[item].tools
        row = {"suite": "", "condition": "", "finish_reason": given.finish_reason, "text": text, **form.mark}
        score = score_item(examples[item], {"id": examples[item].id, **row})
        texts[item], calls[item] = text, form.read(text, tools).calls or parse_lenient(text, tools)
        right[item] = score["ast" if style == "hermes" else "lenient_ast"]
    return Answers(texts, calls, right)
