"""Constrained decoding: an answer is plain words, or calls to the listed tools with arguments that fit their schemas.

`grammar` writes what may be said as a Lark grammar, `llguidance` walks along it token by token. The text is exactly
that of the model's form (`chat.call_format`), so that what it was trained to write is always allowed, and an answer
that ends can be read. Abstaining stays possible; so does an introduction in words before the calls, which weak models
like to write and which servers and scorers pass over.
"""

import logging
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from callwright.chat.call_format import HERMES, ID, NUMBER, OURS, CallFormat
from callwright.chat.formats import to_json
from callwright.chat.parse import CLOSE
from callwright.decoding.schema_grammar import Rules, as_regex, literal
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

# Raised when an edit changes what is allowed, so that stored answers are not mixed with new ones.
VERSION = 1
MODES = ("auto", "required", "none")
# Plain words: they begin with no white space and with nothing that opens JSON, a tag or a block of code, and hold no
# JSON object. Whoever begins one has begun a call, and is to make it in the form that can be read.
WORDS = r'/[^\s{\[<`](.|\n)*/ & ~/(.|\n)*(%s|<tool_call|```|\{\s*"|\[\s*\{)(.|\n)*/'
# For a server, whose users may ask for code and JSON: all but the opening of a call.
ANYTHING = r"/(.|\n)+/ & ~/(.|\n)*(%s)(.|\n)*/"
# A line that is thought aloud before the calls, by a model that answers with an empty list where others say words.
THOUGHT = ("<think>\n", r"/[^\n<]{1,1000}/", "\n</think>\n")
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


def special_markers(vocabulary: LLTokenizer, form: CallFormat = HERMES) -> dict[str, str]:
    """Those texts in a form's layout that are special tokens of the model, and how the grammar must name them."""
    layout, found = form.layout, {}
    texts = (layout.lead, layout.first, layout.between, layout.join, layout.last) if layout else ()
    texts += (THOUGHT[0], THOUGHT[2]) if layout and layout.nothing else ()
    for text in texts:
        for token in vocabulary.tokenize_str(text, parse_special=True):
            if vocabulary.is_special_token(token):
                found[vocabulary.decode_str([token])] = f"<[{token}]>"
    return found


def grammar(
    tools: Sequence[dict[str, Any]],
    calls: str = "auto",
    style: str | CallFormat = "hermes",
    *,
    words_first: bool = True,
    free_words: bool = False,
    parallel: bool = True,
    special: Mapping[str, str] | None = None,
) -> str:
    """What an answer may be, as a grammar for `Constraint`.

    - tools: OpenAI tool objects, `parameters` a JSON Schema of type object
    - calls: "auto", words or calls; "required", calls; "none", words; or the name of the tool that is called, once
    - style: how calls are written: a form (`chat.call_format`), or the name of one of ours
    - words_first: with "auto", words may stand before the calls
    - free_words: words may be anything but the opening of a call; otherwise they hold no JSON and no code
    - parallel: more than one call is allowed
    - special: of `special_markers`

    A schema that llguidance refuses becomes any JSON object, which the log says. Raises CallwrightError for a name that
    no tool has, for calls where there is no tool, and for a form without a grammar.
    """
    form = OURS.get(style) if isinstance(style, str) else style
    if form is None:
        raise ValueError(f"unknown style {style!r}, expected one of {tuple(OURS)}")
    if form.layout is None:
        raise CallwrightError(no_grammar(form))
    by_name = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    if calls not in MODES:
        if calls not in by_name:
            raise CallwrightError(f"there is no tool {calls!r} to call; the tools are {', '.join(by_name) or 'none'}")
        by_name, parallel = {calls: by_name[calls]}, False
    elif not by_name:
        if calls == "required":
            raise CallwrightError("a call is required, and no tool is listed")
        calls = "none"
    words = (ANYTHING if free_words else WORDS) % as_regex(form.opening.removesuffix(">"))
    lead = literals(form.layout.lead, special or {})
    if calls == "none":
        if form.layout.nothing:
            nothing = literals(form.layout.nothing, special or {})
            return LLMatcher.grammar_from_lark(f"start: thought? {nothing}\n{thought(special or {})}")
        return LLMatcher.grammar_from_lark(f"start: {lead} WORDS\nWORDS: {words}")
    return LLMatcher.grammar_from_lark(
        _calls_grammar(by_name, form, parallel, special or {}, words if calls == "auto" else None, words_first)
    )


def no_grammar(form: CallFormat) -> str:
    """Why answers in a form cannot be constrained."""
    return (
        f"there is no grammar for calls in the model's own form {form.name}, only for JSON and Python lists: leave the "
        "conditions with a grammar out, or convert the model with `model.call_format: hermes`"
    )


def _calls_grammar(
    by_name: dict[str, dict[str, Any]],
    form: CallFormat,
    parallel: bool,
    special: Mapping[str, str],
    words: str | None,
    words_first: bool,
) -> str:
    layout = form.layout
    rules = Rules(layout.arguments, "" if form.closing in special else form.closing if form.own else CLOSE)
    quoted = layout.first.endswith('"')
    tools = []
    for name, parameters in by_name.items():
        refused = len(rules.refused)
        written = to_json(name)[1:-1] if quoted else name
        tools.append(literals(written + layout.between, special) + " " + rules.arguments(parameters))
        if len(rules.refused) > refused:
            log.info("tool %s: no grammar for its arguments, any are allowed there: %s", name, rules.refused[-1])

    opens = layout.first.find(form.opening) + len(form.opening)
    opening, rest = layout.first[:opens], layout.first[opens:]
    more = f"({literals(layout.join, special)} tool)*" if parallel else ""
    lead, first = literals(layout.lead, special), literals(opening, special)
    lines = [
        f"calls: {literals(rest, special)} tool {more} {literals(layout.last, special)}",
        f"tool: {' | '.join(tools)}",
        rules.text(),
    ]
    starts = [f"{first} calls"]
    if layout.nothing:
        starts += [literals(layout.nothing, special)] if words is not None else []
        return "\n".join([f"start: thought? ({' | '.join(starts)})", thought(special), *lines])
    if words is not None:
        lines.append(f"WORDS: {words}")
        starts.append("WORDS")
        if words_first and opening.startswith(tuple(special)):
            starts.append(f"WORDS {first} calls")
        elif words_first:  # one terminal: llguidance's lexer does not go back to where the words ended
            lines.append(f"INTRODUCTION: WORDS {first}")
            starts.append("INTRODUCTION calls")
    return "\n".join([f"start: {lead} ({' | '.join(starts)})", *lines])


def thought(special: Mapping[str, str]) -> str:
    """The rules for `THOUGHT`."""
    opening, line, closing = THOUGHT
    return f"thought: {literals(opening, special)} LINE {literals(closing, special)}\nLINE: {line}"


def literals(text: str, special: Mapping[str, str]) -> str:
    """A part of a layout for the grammar: its special tokens by name, and what differs from call to call as such."""
    named = {**special, NUMBER: "/[0-9]{1,3}/", ID: "/[A-Za-z0-9]{9}/"}
    pattern = "|".join(map(re.escape, sorted(named, key=len, reverse=True)))
    return " ".join(named.get(part) or literal(part) for part in re.split(f"({pattern})", text) if part)


def json_grammar(schema: dict[str, Any] | None = None, lead: str = "", special: Mapping[str, str] | None = None) -> str:
    """One JSON value of a schema, on one line; without a schema any object (a server's `response_format`).

    lead, special: what stands before each answer in the model's form (`CallLayout.lead`), and of `special_markers`.
    """
    rules = Rules()
    start = "any_object" if schema is None else rules.value(schema, schema)
    if rules.refused:
        log.info("no grammar for a part of the schema, any value is allowed there: %s", rules.refused[-1])
    return LLMatcher.grammar_from_lark(f"start: {literals(lead, special or {})} {start}\n{rules.text()}")


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
