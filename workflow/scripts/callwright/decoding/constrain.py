"""Constrained decoding: an answer is plain words, or calls to the listed tools with arguments that fit their schemas.

`grammar` writes what may be said as a Lark grammar, `llguidance` walks along it token by token. The text is exactly
that of `chat.formats.encode_calls`, so that what a model was trained to write is always allowed, and an answer that
ends can be read. Abstaining stays possible; so does an introduction in words before the calls, which weak models like
to write and which servers and scorers pass over.
"""

import logging
import threading
from collections.abc import Collection, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from callwright.chat.formats import STYLES, to_json
from callwright.chat.parse import CLOSE, OPEN
from callwright.decoding.schema_grammar import Rules, literal
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

# Raised when an edit changes what is allowed, so that stored answers are not mixed with new ones.
VERSION = 1
MODES = ("auto", "required", "none")
FENCE = "```"
# Plain words: they begin with no white space and with nothing that opens JSON, a tag or a block of code, and hold no
# JSON object. Whoever begins one has begun a call, and is to make it in the form that can be read.
WORDS = r'/[^\s{\[<`](.|\n)*/ & ~/(.|\n)*(<tool_call|```|\{\s*"|\[\s*\{)(.|\n)*/'
# For a server, whose users may ask for code and JSON: all but the opening of a call.
ANYTHING = r"/(.|\n)+/ & ~/(.|\n)*(%s)(.|\n)*/"
_building = threading.Lock()


def vocabulary(tokenizer: Any) -> LLTokenizer:
    """A tokenizer (mlx-lm's wrapper or transformers' own) as llguidance needs it, with all its stop tokens.

    Built once for each tokenizer, which takes about a second. Raises CallwrightError for a tokenizer that is not one
    of the fast ones.
    """
    with _building:
        found = getattr(tokenizer, "_callwright_vocabulary", None)
        if found is None:
            stop_ids = getattr(tokenizer, "eos_token_ids", None) or [tokenizer.eos_token_id]
            try:
                found = from_tokenizer(getattr(tokenizer, "_tokenizer", tokenizer), eos_token=sorted(stop_ids))
            except ValueError as error:
                raise CallwrightError(
                    f"constrained decoding needs a fast tokenizer (tokenizer.json), found "
                    f"{type(tokenizer).__name__}: {error}"
                ) from error
            object.__setattr__(tokenizer, "_callwright_vocabulary", found)
        return found


def special_markers(vocabulary: LLTokenizer) -> tuple[str, ...]:
    """Those of the markers of a call that are special tokens of the model; the grammar must name them as tokens."""
    found = []
    for marker in (OPEN, CLOSE):
        ids = vocabulary.tokenize_str(marker, parse_special=True)
        if len(ids) == 1 and vocabulary.is_special_token(ids[0]):
            found.append(marker)
    return tuple(found)


def grammar(
    tools: Sequence[dict[str, Any]],
    calls: str = "auto",
    style: str = "hermes",
    *,
    words_first: bool = True,
    free_words: bool = False,
    parallel: bool = True,
    special: Collection[str] = (),
) -> str:
    """What an answer may be, as a grammar for `Constraint`.

    - tools: OpenAI tool objects, `parameters` a JSON Schema of type object
    - calls: "auto", words or calls; "required", calls; "none", words; or the name of the tool that is called, once
    - style: how calls are written (`chat.formats.encode_calls`)
    - words_first: with "auto", words may stand before the calls
    - free_words: words may be anything but the opening of a call; otherwise they hold no JSON and no code
    - parallel: more than one call is allowed
    - special: of `special_markers`

    A schema that llguidance refuses becomes any JSON object, which the log says. Raises CallwrightError for a name that
    no tool has, and for calls where there is no tool.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}, expected one of {STYLES}")
    by_name = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    if calls not in MODES:
        if calls not in by_name:
            raise CallwrightError(f"there is no tool {calls!r} to call; the tools are {', '.join(by_name) or 'none'}")
        by_name, parallel = {calls: by_name[calls]}, False
    elif not by_name:
        if calls == "required":
            raise CallwrightError("a call is required, and no tool is listed")
        calls = "none"
    words = ANYTHING % ("<tool_call" if style == "hermes" else r"```json\n\[") if free_words else WORDS
    if calls == "none":
        return LLMatcher.grammar_from_lark(f"start: WORDS\nWORDS: {words}")
    return LLMatcher.grammar_from_lark(
        _calls_grammar(by_name, style, parallel, special, words if calls == "auto" else None, words_first)
    )


def _calls_grammar(
    by_name: dict[str, dict[str, Any]],
    style: str,
    parallel: bool,
    special: Collection[str],
    words: str | None,
    words_first: bool,
) -> str:
    rules = Rules()
    tools = []
    for name, parameters in by_name.items():
        refused = len(rules.refused)
        tools.append(literal(f'{to_json(name)}, "arguments": ') + " " + rules.arguments(parameters))
        if len(rules.refused) > refused:
            log.info("tool %s: no grammar for its arguments, any are allowed there: %s", name, rules.refused[-1])

    def marker(text: str) -> str:
        return text if text in special else literal(text)

    call = r'"{\"name\": " tool "}"'
    if style == "fenced_ids":
        call = r'"{\"id\": \"call_" /[0-9]{1,3}/ "\", \"type\": \"function\", \"function\": " ' + call + ' "}"'
    if style == "hermes":
        opening = marker(OPEN)
        rest = f'"\\n" {call} "\\n" {marker(CLOSE)}'
        more = f'("\\n" {opening} {rest})*' if parallel else ""
        answer = f"{rest} {more}"
    else:
        opening = literal(f"{FENCE}json\n[")
        more = f'(", " {call})*' if parallel else ""
        answer = f"{call} {more} " + literal(f"]\n{FENCE}")
    lines = [f"calls: {answer}", f"tool: {' | '.join(tools)}", rules.text()]
    starts = [f"{opening} calls"]
    if words is not None:
        lines.append(f"WORDS: {words}")
        starts.append("WORDS")
        if words_first and opening in special:
            starts.append(f"WORDS {opening} calls")
        elif words_first:  # one terminal: llguidance's lexer does not go back to where the words ended
            lines.append(f"INTRODUCTION: WORDS {opening}")
            starts.append("INTRODUCTION calls")
    return "\n".join([f"start: {' | '.join(starts)}", *lines])


def json_grammar(schema: dict[str, Any] | None = None) -> str:
    """One JSON value of a schema, on one line; without a schema any object (a server's `response_format`)."""
    rules = Rules()
    start = "any_object" if schema is None else rules.value(schema, schema)
    if rules.refused:
        log.info("no grammar for a part of the schema, any value is allowed there: %s", rules.refused[-1])
    return LLMatcher.grammar_from_lark(f"start: {start}\n{rules.text()}")


class Constraint:
    """One sequence on its way along a grammar.

    Either tell it each token by `accept` and ask for the `mask`; or pass it to mlx-lm as a logits processor of
    one sequence (`BatchGenerator.insert(…, logits_processors=[[constraint], …])`). A grammar that cannot be followed
    any more (a resource limit of llguidance) lets everything pass from there on; `problem` then says why.
    """

    def __init__(self, vocabulary: LLTokenizer, grammar: str):
        self.matcher = LLMatcher(vocabulary, grammar, log_level=0)
        if self.matcher.is_error():
            raise CallwrightError(f"llguidance refuses a grammar: {self.matcher.get_error().strip()[:300]}")
        self.ends = set(vocabulary.eos_tokens)
        self.words = (vocabulary.vocab_size + 31) // 32
        self.problem = ""
        self._seen: int | None = None

    @property
    def finished(self) -> bool:
        """True when nothing but the end can follow, or has followed."""
        return not self.problem and self.matcher.is_stopped()

    @property
    def complete(self) -> bool:
        """True when the answer may end here."""
        return bool(self.problem) or self.matcher.is_accepting()

    def accept(self, token: int) -> bool:
        """Take a token; False, and nothing has changed, when the grammar does not allow it."""
        if self.problem:
            return True
        if self.matcher.is_stopped() and not self.matcher.is_error():
            return token in self.ends
        if self.matcher.try_consume_tokens([token]) == 1:
            return True
        self._check()
        return bool(self.problem)

    def mask(self) -> np.ndarray:
        """Which tokens may come: a bit each, the lowest first, in uint32 words [(vocabulary + 31) // 32]."""
        if not self.problem:
            words = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint32)
            self._check()
            if not self.problem:
                return words
        return np.full(self.words, 0xFFFFFFFF, dtype=np.uint32)

    def _check(self) -> None:
        if self.matcher.is_error() and not self.problem:
            self.problem = self.matcher.get_error().strip().splitlines()[0][:200]
            log.warning("an answer goes on without its grammar: %s", self.problem)

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Logits [1, vocabulary] with what may not come at minus infinity; `tokens` [n] is all before, prompt first."""
        if self._seen is not None:
            for token in tokens[self._seen :].tolist():
                self.accept(token)
        self._seen = tokens.size
        return masked(logits, self.mask()[None])


def masked(logits: mx.array, words: np.ndarray) -> mx.array:
    """Logits [rows, vocabulary] with minus infinity where the bits of `words` [rows, (vocabulary + 31) // 32] are 0.

    llguidance's own kernel for this is for Metal alone.
    """
    bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    width = logits.shape[-1]
    if bits.shape[-1] < width:  # a model may have more rows in its head than its tokenizer has tokens
        bits = np.pad(bits, [(0, 0), (0, width - bits.shape[-1])])
    return mx.where(mx.array(bits[:, :width]), logits, mx.array(-mx.inf, dtype=logits.dtype))
