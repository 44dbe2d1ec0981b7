"""Finds whether a model's own chat template calls tools in a form that is read back, by rendering probes.

What a template's source says matters little; what it renders does. The answer of a conversation is what the rendering
gains by the assistant's turn, up to the token that ends it: this is what such a model was taught to write.
"""

import json
import pkgutil
import re
from dataclasses import asdict, replace
from typing import Any

from callwright.chat.call_format import (
    ID,
    KEY,
    NUMBER,
    REASONED,
    REASONS,
    THINKING,
    CallFormat,
    CallLayout,
    mlx_parser,
    named,
)
from callwright.chat.formats import to_json
from callwright.chat.parse import REASONING
from callwright.chat.template import render, render_prompt, turn_ends
from callwright.runtime.errors import CallwrightError

Call = dict[str, Any]

ASK = [{"role": "user", "content": "Probe?"}]
PROBE_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "probe_weather",
            "description": "Probe of the template.",
            "parameters": {
                "type": "object",
                "properties": {
                    "probe_city": {"type": "string"},
                    "hour": {"type": "integer"},
                    "part": {"type": "number"},
                    "days": {"type": "array", "items": {"type": "integer"}},
                    "names": {"type": "array", "items": {"type": "string"}},
                    "flag": {"type": "boolean"},
                    "inner": {"type": "object", "properties": {"a": {"type": "object"}}},
                },
                "required": ["probe_city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "probe_clock",
            "description": "The other probe.",
            "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
        },
    },
]
PLAIN = {"name": "probe_weather", "arguments": {"probe_city": "Zürich", "hour": 7}}
OTHER = {"name": "probe_clock", "arguments": {"zone": "UTC+1"}}
REQUIRED = ([PLAIN], [OTHER], [PLAIN, OTHER], [OTHER, PLAIN, PLAIN])
WORDS = "No tool fits, is there another wish?"
# What a form may not be able to carry: such examples are rejected one by one when they are tokenized.
DEMANDING: dict[str, dict[str, Any] | None] = {
    "calls without arguments": None,
    "lists": {"days": [1, 2]},
    "lists of texts": {"names": ["a, b", "c"]},
    "objects in objects": {"inner": {"a": {"b": "c"}}},
    "true and false": {"flag": True},
    "fractions": {"part": 1.5},
    "numbers as text": {"probe_city": "007"},
    "quotation marks": {"probe_city": 'it\'s "so"'},
    "line breaks": {"probe_city": "a\n\nb"},
    "backslashes": {"probe_city": "C:\\new"},
}
IDS = [f"call{number:05}" for number in range(100)]  # nine letters and digits, as Mistral's templates insist


class NoOwnForm(Exception):
    """Why a model's own template is not used."""


def own_answer(
    tokenizer: Any, messages: list[Call], tools: Any, calls: list[Call], words: str, reasons: str | None = None
) -> tuple[str, str]:
    """What the template renders as the assistant's turn, and the stop token behind it; raises ValueError if neither.

    calls: of the answer; where there are none, `words` are its content. reasons: what is thought aloud before.
    """
    turn: Call = {"role": "assistant", "content": "" if calls else words}
    if reasons is not None:
        turn["reasoning_content"] = reasons
    if calls:
        turn["tool_calls"] = [
            {"id": IDS[n % len(IDS)], "type": "function", "function": call} for n, call in enumerate(calls)
        ]
    prompt = render_prompt(tokenizer, messages, tools)
    whole = render(tokenizer, [*messages, turn], tools)
    if not whole.startswith(prompt):
        raise ValueError("the chat template does not render the answer right after the prompt")
    gained = whole[len(prompt) :]
    ends = [(at, token) for token in stop_texts(tokenizer) if (at := gained.find(token)) >= 0]
    if not ends:
        raise ValueError(f"the chat template ends the answer with {gained[-20:]!r}, not with a stop token")
    at, token = min(ends)
    return gained[:at], token


def stop_texts(tokenizer: Any) -> list[str]:
    """The tokens that end an answer, as text."""
    ids = getattr(tokenizer, "eos_token_ids", None)
    ids = set(ids) if ids else {tokenizer.eos_token_id}
    vocabulary = tokenizer.get_vocab()
    ids |= {vocabulary[token] for token in turn_ends(vocabulary)}
    return [token for token in tokenizer.convert_ids_to_tokens(sorted(i for i in ids if i is not None)) if token]


def probe(tokenizer: Any) -> dict[str, Any]:
    """The facts of a model's own form, as `tokenizer_config.json` keeps them: `name`, `layout`, `limits`.

    tokenizer: mlx-lm's wrapper, which renders as its server does. Raises NoOwnForm with the reason where the template
    does not show the tools, or an answer does not continue the prompt, end in a stop token and read back.
    """
    if not tokenizer.chat_template and not getattr(tokenizer, "has_chat_template", False):
        raise NoOwnForm("it has no chat template")
    try:
        prompt = render_prompt(tokenizer, ASK, PROBE_TOOLS)
        answers = [own_answer(tokenizer, ASK, PROBE_TOOLS, calls, "")[0] for calls in REQUIRED]
        words = own_answer(tokenizer, ASK, PROBE_TOOLS, [], WORDS)[0]
    except Exception as error:  # a template may raise whatever it likes
        raise NoOwnForm((str(error).splitlines() or [type(error).__name__])[0][:200]) from error
    for text in ("probe_weather", "Probe of the template.", "probe_city", "probe_clock"):
        if text not in prompt:
            raise NoOwnForm(f"its chat template does not show the tools ({text!r} is missing in the prompt)")
    if WORDS not in words:
        raise NoOwnForm("its chat template does not render an answer in words as it is")
    form = form_that_reads(tokenizer, answers, prompt_opens_thinking(prompt))
    if not reads(form, words, []) or form.read(words, PROBE_TOOLS).content.strip() != WORDS:
        raise NoOwnForm("an answer in words does not read back")
    layout = layout_of(tokenizer, words[: words.index(WORDS)])
    reasons = bool((getattr(tokenizer, "init_kwargs", None) or {}).get(REASONS))
    if layout and reasons:
        layout = replace(layout, nothing=own_answer(tokenizer, ASK, PROBE_TOOLS, [], "")[0])
    return {
        "name": form.name + REASONED * reasons,
        "layout": asdict(layout) if layout else None,
        "limits": [what for what, more in DEMANDING.items() if not carries(tokenizer, form, more)],
    }


def form_that_reads(tokenizer: Any, answers: list[str], thinking: bool) -> CallFormat:
    """The form of the parser of mlx-lm that reads all probes: first the one that mlx-lm itself takes, then JSON's."""
    first = (getattr(tokenizer, "init_kwargs", None) or {}).get("tool_parser_type")
    names = list(dict.fromkeys([*filter(None, [first]), "json_tools", *parsers()]))
    near = []
    for name in names:
        try:
            parser = mlx_parser(name)
        except CallwrightError:
            continue
        if not all(parser.tool_call_start in answer for answer in answers):
            continue
        form = named(name + THINKING * thinking)
        near.append(name)
        if all(reads(form, answer, calls) for answer, calls in zip(answers, REQUIRED, strict=True)):
            return form
    how = f"the parsers {', '.join(near)} do not read the calls back" if near else "no parser of mlx-lm knows its marks"
    raise NoOwnForm(f"{how} (it writes {answers[0][:60]!r})")


def parsers() -> list[str]:
    """The parsers of the mlx-lm that is installed."""
    import mlx_lm.tool_parsers

    return sorted(module.name for module in pkgutil.iter_modules(mlx_lm.tool_parsers.__path__))


def reads(form: CallFormat, answer: str, calls: list[Call]) -> bool:
    """Whether an answer reads back as the calls, and nothing else."""
    parsed = form.read(answer, PROBE_TOOLS)
    return not parsed.errors and parsed.calls == calls and (bool(calls) <= (not parsed.content.strip()))


def carries(tokenizer: Any, form: CallFormat, more: dict[str, Any] | None) -> bool:
    """Whether a call with such arguments reads back; None: with none at all."""
    call = {"name": "probe_weather", "arguments": {} if more is None else {**PLAIN["arguments"], **more}}
    try:
        return reads(form, own_answer(tokenizer, ASK, PROBE_TOOLS, [call, OTHER], "")[0], [call, OTHER])
    except Exception:  # a template may raise whatever it likes
        return False


def prompt_opens_thinking(prompt: str) -> bool:
    """Whether a prompt ends within the model's thinking aloud."""
    return any(prompt.rfind(opening) > prompt.rfind(closing) for opening, closing in REASONING)


def layout_of(tokenizer: Any, lead: str) -> CallLayout | None:
    """The layout of answers, where calls are a name, something fixed and arguments in JSON or as in Python."""
    one, two, three = (own_answer(tokenizer, ASK, PROBE_TOOLS, [PLAIN] * n, "")[0] for n in (1, 2, 3))
    if not one.startswith(lead):
        return None
    arguments = PLAIN["arguments"]
    written = {
        "json": [to_json(arguments)],
        "compact": [json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))],
        "python": ["probe_city='Zürich', hour=7", 'probe_city="Zürich", hour=7'],
    }
    for kind, texts in written.items():
        for text in texts:
            parts = [split(answer.removeprefix(lead), text) for answer in (one, two, three)]
            if all(parts) and (found := same_layout(parts, kind, lead)):
                return found
    return None


def split(answer: str, arguments: str) -> list[str] | None:
    """An answer at its names and arguments: `[first, between, join, between, …, last]`."""
    pieces, at = [], 0
    while (name := answer.find(PLAIN["name"], at)) >= 0:
        start = answer.find(arguments, name)
        if start < 0:
            return None
        pieces += [answer[at:name], answer[name + len(PLAIN["name"]) : start]]
        at = start + len(arguments)
    return [*pieces, answer[at:]] if pieces else None


def same_layout(parts: list[Any], kind: str, lead: str) -> CallLayout | None:
    """The layout that answers with one, two and three calls have in common, None where they have none."""
    if [len(found) for found in parts] != [3, 5, 7]:
        return None
    one, two, three = parts
    first = general([one[0], two[0], three[0]])
    between = general([found[at] for found in parts for at in range(1, len(found), 2)])
    join = general([two[2], three[2], three[4]])
    last = general([one[-1], two[-1], three[-1]])
    if None in (first, between, join, last):
        return None
    return CallLayout(first, between, join, last, kind, lead)


def general(texts: list[str]) -> str | None:
    """What texts have in common but for whole numbers and the ids of calls; None where they differ otherwise."""
    texts = [re.sub("|".join(IDS[:4]), ID, text) for text in texts]
    if len(set(texts)) == 1:
        return texts[0]
    patterns = {re.sub(r"\d+", NUMBER, text) for text in texts}
    return patterns.pop() if len(patterns) == 1 else None


def description(facts: dict[str, Any]) -> str:
    """The facts of a form in a line of the log."""
    said = f"{KEY} {facts['name']}, {'with' if facts['layout'] else 'without'} a grammar"
    said += ", a line of reasons before the calls" if named(facts["name"]).reasons else ""
    return said + (f"; its form does not carry {', '.join(facts['limits'])}" if facts["limits"] else "")
