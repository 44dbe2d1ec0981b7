"""Who is asked as a judge: a local MLX model, or a server that speaks OpenAI's protocol; at temperature 0, in JSON."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import orjson

from callwright.evals.judge import Ask, Messages
from callwright.runtime.chat_server import KEY_VARIABLE, ChatServer, RefusedRequest
from callwright.runtime.files import sha256_json

VERDICTS = ('{"same": true}', '{"same": false}')
SCHEMA = {
    "type": "object",
    "properties": {"same": {"type": "boolean"}},
    "required": ["same"],
    "additionalProperties": False,
}
TIMEOUT = 60.0  # seconds for one answer of a server


def chosen(settings: dict[str, Any], memory: str | Path) -> Ask:
    """The judge that `evaluation.judge` names; its answers are kept in the file `memory`."""
    if settings["folder"]:
        ask = local(settings["folder"])
    else:
        ask = server(settings["url"], settings["model"], settings["key_variable"])
    return remembering(ask, memory, name(settings))


def name(settings: dict[str, Any]) -> str:
    """The judge's name for the report."""
    return settings["folder"] or f"{settings['model']} at {settings['url']}"


def local(folder: str | Path) -> Ask:
    """A model folder that mlx-lm opens. Of the two verdicts that may be written the likelier one is its answer.

    That is greedy decoding under a grammar of these two texts, but for its computing each text whole, so that
    the model's way to cut them into tokens cannot matter.
    """

    from callwright.chat.template import render_prompt
    from callwright.models.load import load

    model, tokenizer = load(folder)

    def ask(messages: Messages) -> bool | None:
        prompt = render_prompt(tokenizer, messages, None)
        yes, no = (log_likelihood(model, tokenizer, prompt, verdict) for verdict in VERDICTS)
        return None if yes == no else yes > no

    return ask


def log_likelihood(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """The natural logarithm of the probability that `model` goes on with `answer` after `prompt`."""
    import mlx.core as mx
    import mlx.nn as nn

    start = tokenizer.encode(prompt, add_special_tokens=False)
    whole = tokenizer.encode(prompt + answer, add_special_tokens=False)
    common = next((n for n, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b), len(start))
    logits = model(mx.array([whole[:-1]]))[0, common - 1 :].astype(mx.float32)
    losses = nn.losses.cross_entropy(logits, mx.array(whole[common:]), reduction="sum")
    return -losses.item()


def server(url: str, model: str, key_variable: str = KEY_VARIABLE) -> Ask:
    """A server that speaks OpenAI's chat completions at `url` (`http://127.0.0.1:8080/v1`).

    The key, if any, is read from the environment variable `key_variable`. Servers that do not know
    `response_format` are asked without; what is then not JSON of the right form is no verdict (None).
    Raises CallwrightError when the server cannot be reached or refuses.
    """
    asked = ChatServer(url, TIMEOUT, key_variable=key_variable, who=f"the judge at {url}")
    form: dict[str, Any] = {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True},
        }
    }

    def ask(messages: Messages) -> bool | None:
        for _ in range(2):
            try:
                given = asked.complete(model, messages=messages, temperature=0, max_tokens=32, **form)
                return read_verdict(given.choices[0].message.content or "")
            except RefusedRequest:
                if not form:
                    raise
                form.clear()
        return None

    return ask


def read_verdict(text: str) -> bool | None:
    """The `same` of the first JSON object in `text`, None where there is none."""
    for found in re.finditer(r"\{[^{}]*\}", text):
        try:
            value = json.loads(found.group())
        except ValueError:
            continue
        if isinstance(value.get("same"), bool):
            return value["same"]
    return None


def remembering(ask: Ask, path: str | Path, who: Any) -> Ask:
    """`ask`, its answers kept in the file `path`: what the same judge `who` was asked before is not asked again."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, bool | None] = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(orjson.JSONDecodeError):  # a line that a kill cut
            row = orjson.loads(line)
            known[row["key"]] = row["same"]

    def asking(messages: Messages) -> bool | None:
        key = sha256_json([who, messages])
        if key not in known:
            known[key] = ask(messages)
            with open(path, "ab") as stream:
                stream.write(b"\n" + orjson.dumps({"key": key, "same": known[key]}))
        return known[key]

    return asking
