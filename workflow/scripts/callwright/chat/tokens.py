"""Conversations as token ids, and which of them are trained."""

import json
from collections.abc import Callable
from typing import Any

from callwright.chat.formats import answer_text, fields
from callwright.chat.parse import parse_lenient, parse_native
from callwright.chat.template import BY_TURN_TOKEN, render, render_prompt
from callwright.runtime.errors import CallwrightError


class TokenizeError(CallwrightError):
    """An example that cannot be tokenized as a conversation; `rule` and `reason` go into the rejection ledger."""

    def __init__(self, rule: str, reason: str):
        super().__init__(f"{rule}: {reason}")
        self.rule, self.reason = rule, reason


def tokenize_example(tokenizer: Any, example: Any, style: str = "hermes") -> dict[str, Any]:
    """`example` (row or object) as `{"id", "input_ids": [int], "spans": [[start, end]]}`.

    `spans` are half-open ranges of trained positions in `input_ids`: here one, the answer and the
    token that ends its turn, which is the last id. The ids before it are exactly `prompt_ids`, what
    generation starts from. Nothing is cut; a row that is too long is the caller's to reject.

    Raises TokenizeError when the calls do not survive being written and read back, when a text contains
    a turn token (it would forge a turn or end the answer early) or when the template does not put the
    answer right after the prompt.
    """
    prompt, answer, end = texts_of(tokenizer, example, style)
    opening = encode(tokenizer, prompt)
    ids = encode(tokenizer, prompt + answer)
    if ids[: len(opening)] != opening:  # a token spans the boundary, which cannot happen in generation
        ids = opening + encode(tokenizer, answer)
    ids.append(tokenizer.convert_tokens_to_ids(end))
    return {"id": fields(example, "id")[0], "input_ids": ids, "spans": [[len(opening), len(ids)]]}


def texts_of(tokenizer: Any, example: Any, style: str = "hermes") -> tuple[str, str, str]:
    """The texts that an example is tokenized from: prompt, answer, and the token that ends the answer's turn.

    Raises TokenizeError as `tokenize_example` does.
    """
    messages, tools, calls = fields(example, "messages", "tools", "calls")
    try:
        answer = answer_text(example, style)
        texts = json.dumps([messages, tools, answer], ensure_ascii=False)
        texts.encode()
    except (ValueError, RecursionError) as error:  # NaN, half a surrogate pair, nesting without end
        raise TokenizeError("not_json", f"the example cannot be written as JSON: {error}") from error
    if not reads_back(answer, list(calls or []), style):
        raise TokenizeError("unreadable_answer", "the written answer does not read back as the example's calls")
    if found := next((marker for marker in turn_markers(tokenizer) if marker in texts), None):
        raise TokenizeError("turn_token", f"a text contains {found}, which the model reads as the edge of a turn")
    prompt = render_prompt(tokenizer, messages, tools)
    whole = render(tokenizer, [*messages, {"role": "assistant", "content": answer}], tools)
    if not whole.startswith(prompt + answer):
        raise TokenizeError("template", "the chat template does not render the answer right after the prompt")
    rest = whole[len(prompt) + len(answer) :].lstrip()
    end = next((token for token in stop_tokens(tokenizer) if rest.startswith(token)), None)
    if end is None:
        raise TokenizeError("template", f"the chat template ends the answer with {rest[:20]!r}, not with a stop token")
    return prompt, answer, end


def reads_back(answer: str, calls: list[dict[str, Any]], style: str) -> bool:
    """Whether the text of an answer is read as `calls`, and as nothing else.

    Hermes blocks by the server's parser; fenced lists, which no server reads, by the lenient one, and only where
    there are calls, since that one may see some in ordinary words.
    """
    if style == "hermes":
        parsed = parse_native(answer)
        return not parsed.errors and parsed.calls == calls
    return not calls or parse_lenient(answer) == calls


def token_counter(tokenizer: Any, style: str = "hermes") -> Callable[[Any], int]:
    """A function that gives the number of tokens of an example, prompt and answer; it raises as `tokenize_example`.

    It encodes once where `tokenize_example` encodes twice. Should a token span the boundary of prompt and answer,
    which no template of ours lets happen, it gives one or two too few.
    """

    def count(example: Any) -> int:
        prompt, answer, _ = texts_of(tokenizer, example, style)
        return len(encode(tokenizer, prompt + answer)) + 1

    return count


def prompt_ids(tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> list[int]:
    """Token ids of the prompt: what generation starts from, and how every training row begins."""
    return encode(tokenizer, render_prompt(tokenizer, messages, tools))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text`; special tokens only where the text has them, so a template's BOS stays the only one."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def stop_tokens(tokenizer: Any) -> list[str]:
    """The tokens that end generation, as text: all of mlx-lm's wrapper, the one of a bare transformers tokenizer."""
    ids = getattr(tokenizer, "eos_token_ids", None)
    return tokenizer.convert_ids_to_tokens(sorted(ids) if isinstance(ids, set) else [tokenizer.eos_token_id])


def turn_markers(tokenizer: Any) -> list[str]:
    """Tokens that shape a conversation and therefore may not occur in its texts."""
    return sorted({*stop_tokens(tokenizer), *BY_TURN_TOKEN, *filter(None, [tokenizer.bos_token])})
