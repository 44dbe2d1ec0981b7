"""Conversations as token ids, and which of them are trained."""

import json
from collections.abc import Callable
from typing import Any

from callwright.chat.call_format import CallFormat, form_of
from callwright.chat.formats import answer_text, fields
from callwright.chat.own_form import own_answer
from callwright.chat.parse import parse_lenient, parse_native
from callwright.chat.reasons import line_of_reasons
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

    The answer is in the model's form (`call_format.form_of`): as we write it in `style`, or as its own chat template
    renders it. Raises TokenizeError as `tokenize_example` does.
    """
    messages, tools, calls = fields(example, "messages", "tools", "calls")
    form = form_of(tokenizer, style)
    try:
        ours = answer_text(example, style)
        texts = json.dumps([messages, tools, ours], ensure_ascii=False)
        texts.encode()
    except (ValueError, RecursionError) as error:  # NaN, half a surrogate pair, nesting without end
        raise TokenizeError("not_json", f"the example cannot be written as JSON: {error}") from error
    if not form.own and not reads_back(ours, list(calls or []), style):
        raise TokenizeError("unreadable_answer", "the written answer does not read back as the example's calls")
    if found := next((marker for marker in turn_markers(tokenizer) if marker in texts), None):
        raise TokenizeError("turn_token", f"a text contains {found}, which the model reads as the edge of a turn")
    prompt = render_prompt(tokenizer, messages, tools)
    if form.own:
        return (prompt, *own_texts(tokenizer, form, example, ours))
    whole = render(tokenizer, [*messages, {"role": "assistant", "content": ours}], tools)
    if not whole.startswith(prompt + ours):
        raise TokenizeError("template", "the chat template does not render the answer right after the prompt")
    rest = whole[len(prompt) + len(ours) :].lstrip()
    end = next((token for token in stop_tokens(tokenizer) if rest.startswith(token)), None)
    if end is None:
        raise TokenizeError("template", f"the chat template ends the answer with {rest[:20]!r}, not with a stop token")
    return prompt, ours, end


def own_texts(tokenizer: Any, form: CallFormat, example: Any, words: str) -> tuple[str, str]:
    """The answer as the model's own template renders it, and the token that ends it.

    A model that writes a line of reasons is taught one made by rule (`chat.reasons`), and where there are no calls, to
    say the words there. Raises TokenizeError where the template cannot render it, or it does not read back: `words`,
    where the example has no calls, else the calls.
    """
    messages, tools, calls = fields(example, "messages", "tools", "calls")
    calls = list(calls or [])
    reasons = None
    if form.reasons:
        reasons = line_of_reasons(messages, calls) if calls else words.strip()
    try:
        answer, end = own_answer(tokenizer, messages, tools, calls, "" if form.reasons else words, reasons)
    except Exception as error:  # a template may raise whatever it likes
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TokenizeError("template", f"the model's chat template: {reason}") from error
    parsed = form.read(answer, tools)
    if parsed.errors or parsed.calls != calls or parsed.content.strip() != ("" if calls else words.strip()):
        raise TokenizeError(
            "unreadable_answer", f"in the model's own form ({form.name}) the answer does not read back as the example's"
        )
    return answer, end


def expected_answer(tokenizer: Any, example: Any, style: str = "hermes") -> str:
    """The text of the answer that an example expects, in the model's form; raises TokenizeError."""
    form = form_of(tokenizer, style)
    words = answer_text(example, style)
    return own_texts(tokenizer, form, example, words)[0] if form.own else words


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
