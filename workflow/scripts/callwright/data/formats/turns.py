"""The turns of a conversation as anybody writes them: who speaks, what is said, called or returned, what is trained.

| way to write | a call | a result |
|---|---|---|
| OpenAI | `tool_calls`, `function_call` of a message | role `tool`, `function` |
| OpenAI's responses | an item `function_call` | an item `function_call_output` |
| ShareGPT, LLaMA-Factory, Swift | a turn of `function_call`, `tool_call` | of `observation`, `tool`, `tool_response` |
| Anthropic, Bedrock | a part `tool_use`, `toolUse` | a part `tool_result`, `toolResult` |
| Gemini | a part `functionCall` | a part `functionResponse` |

A field may hold the JSON text of its value. Calls that are written as text in what the assistant says are found
later (`spoken`), since that takes the tools.
"""

import ast
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from callwright.data.formats.readers import parse
from callwright.data.records import RecordError, check_json, kind, short

CALL, TOOL = "call", "tool"
# Who speaks, in lower case with `_` for blanks and hyphens; `call`: the assistant, in a turn that is a call.
SPEAKERS = {
    "system": "system", "developer": "system",
    "human": "user", "user": "user", "customer": "user",
    "gpt": "assistant", "assistant": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "ai": "assistant", "agent": "assistant",
    "function_call": CALL, "tool_call": CALL, "tool_calls": CALL, "function_calls": CALL, "functioncall": CALL,
    "tool": TOOL, "tools": TOOL, "observation": TOOL, "function": TOOL, "function_response": TOOL,
    "function_result": TOOL, "function_output": TOOL, "function_call_output": TOOL, "tool_response": TOOL,
    "tool_result": TOOL, "tool_results": TOOL, "tool_output": TOOL, "ipython": TOOL, "environment": TOOL,
}  # fmt: skip
CALL_FIELDS = ("tool_calls", "function_call", "toolCalls", "functionCall", "tool_call", "function_calls")
ID_FIELDS = ("tool_call_id", "tool_use_id", "call_id", "toolCallId", "toolUseId")
NAMES = ("name", "toolName", "tool_name", "function_name", "function", "tool")
ARGUMENTS = ("arguments", "parameters", "args", "input", "kwargs")
# Flags of a turn of the assistant, and those of them that may stand beside the turns, for the record as a whole. It is
# trained without one, and with any number but 0.
FLAGS = ("weight", "train", "training", "trainable", "train_on_turn", "loss", "loss_mask", "loss_weight", "learn")
RECORD_FLAGS = ("weight", "train")
WORDS = {"false": False, "no": False, "off": False, "true": True, "yes": True, "on": True}
SILENT = ("thinking", "redacted_thinking", "reasoning", "reasoning_content")
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.S)
THOUGHT = re.compile(r"<(think|thinking|scratch_pad|reasoning)>.*?</\1>", re.S)


@dataclass(slots=True)
class Turn:
    """One turn: `role` is one of records.ROLES.

    calls: `{"name", "arguments"}` each, and maybe `id`. id, name: of the call that a result belongs to, where the
    record gives them. trained: False where the record says that this turn is to be shown, not learnt. bare: whether it
    is a call in a turn of its own; several of these in a row are parallel calls.
    """

    role: str
    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    id: str | None = None
    name: str | None = None
    trained: bool = True
    bare: bool = False


def read_turns(turns: Any, what: str) -> list[Turn]:
    """The turns of a list, or its JSON text; raises RecordError. `what`: the field's name, for messages."""
    turns = value_of(turns, what=f"the field {what!r}")
    if not isinstance(turns, list):
        raise RecordError("wrong_type", f"the field {what!r} is {kind(turns)}, expected a list")
    return [found for turn in turns for found in read_turn(turn)]


def read_turn(turn: Any) -> list[Turn]:
    """One turn, as those that it stands for: a message may hold several results, and words after them."""
    turn = value_of(turn, what="a turn")
    if not isinstance(turn, dict):
        raise RecordError("wrong_type", f"a turn is {kind(turn)}, expected an object")
    role = speaker_of(turn)
    if role is None:  # what a model thought for itself
        return []
    trained = role not in ("assistant", CALL) or is_trained(turn, FLAGS, "a turn")
    content = next(
        (turn[key] for key in ("value", "content", "parts", "text", "output") if turn.get(key) is not None), None
    )
    if role == CALL:
        calls = calls_of(turn if content is None or _named(turn) else content)
        return [Turn("assistant", calls=calls, trained=trained, bare=True)]
    text, calls, results = contents_of(content, role)
    if role == "assistant":
        made = [call for key in CALL_FIELDS if turn.get(key) for call in calls_of(turn[key])]
        calls = made or calls
    elif calls:
        raise RecordError("wrong_type", f"a call stands in a turn of the {role}")
    if role == TOOL:
        if results:
            return results
        identifier = _identifier(turn, (*ID_FIELDS, "id"))
        name = turn.get("name") if isinstance(turn.get("name"), str) else None
        texts = _RESULT.findall(text) or [text.strip()]
        return [Turn("tool", each, id=identifier if len(texts) == 1 else None, name=name) for each in texts]
    said = Turn(role, text, calls, trained=trained)
    return [*results, *([said] if text.strip() or calls or not results else [])]


def is_trained(value: dict[str, Any], flags: Sequence[str], what: str) -> bool:
    """Whether none of the flags says of a turn or a record that it is not to be learnt.

    Raises RecordError for a flag that cannot be read: to guess would be to train what should not be, or the reverse.
    `what` names the value in messages.
    """
    if value.get("mask") is not None:
        raise RecordError(
            "wrong_type",
            f"{what} has a `mask`, which some libraries take for what is learnt and others for what is not: say it by "
            "`train: true` or `train: false`, or a `weight` of 1 or 0",
        )
    return all([_flag(value.get(flag), f"{what} has the `{flag}` ") for flag in flags])  # a list: each is read


def _flag(value: Any, has: str) -> bool:
    found = value
    if isinstance(value, str):
        text = value.strip().casefold()
        try:
            found = WORDS[text] if text in WORDS else float(text or "1")  # no text: a table's way to say nothing
        except ValueError:
            found = math.nan
    if found is None:
        return True
    if not isinstance(found, bool | int | float) or (isinstance(found, float) and not math.isfinite(found)):
        raise RecordError("wrong_type", f"{has}{short(value)}, expected a number, true or false")
    return bool(found)


def speaker_of(turn: dict[str, Any]) -> str | None:
    """Who speaks: one of ROLES, or CALL; None for what is left out. Raises RecordError."""
    speaker = next((turn[key] for key in ("from", "role", "speaker") if turn.get(key) is not None), None)
    if speaker is None and isinstance(turn.get("type"), str):  # an item of OpenAI's responses
        speaker = "assistant" if turn["type"] == "message" else turn["type"]
        if speaker in SILENT:
            return None
    role = (
        SPEAKERS.get(re.sub(r"[\s\-]+", "_", speaker.strip().strip(":").casefold()))
        if isinstance(speaker, str)
        else None
    )
    if role is None:
        raise RecordError("wrong_type", f"a turn is from {short(speaker)}")
    return role


def contents_of(content: Any, role: str) -> tuple[str, list[dict[str, Any]], list[Turn]]:
    """The text, the calls and the results in the content of a turn; raises RecordError for pictures and the like."""
    if content is None:
        return "", [], []
    if isinstance(content, str):
        return content, [], []
    if isinstance(content, dict) and isinstance(content.get("parts"), list):
        content = content["parts"]
    if isinstance(content, dict) and role == "assistant" and _named(content):
        return "", calls_of(content), []
    parts = content if isinstance(content, list) else [content]
    if role == TOOL and not (isinstance(content, list) and all(map(_is_part, parts))) and not _is_part(content):
        return as_json(content), [], []
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    results: list[Turn] = []
    for part in parts:
        _read_part(part, texts, calls, results)
    return "".join(texts), calls, results


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and (
        isinstance(part.get("text"), str) or isinstance(part.get("type"), str) or "functionResponse" in part
        or "function_response" in part or "toolResult" in part
    )  # fmt: skip


def _read_part(part: Any, texts: list[str], calls: list[dict[str, Any]], results: list[Turn]) -> None:
    if isinstance(part, str):
        texts.append(part)
        return
    if not isinstance(part, dict):
        raise RecordError("wrong_type", "a message has a part that is no text")
    sort = part.get("type")
    inner = next(
        (part[key] for key in ("functionCall", "function_call", "toolUse") if isinstance(part.get(key), dict)), None
    )
    if inner is not None or sort in ("tool_use", "tool-call", "tool_call", "function_call"):
        calls += calls_of(part if inner is None else inner)
        return
    inner = next((part[key] for key in ("functionResponse", "function_response", "toolResult")
                  if isinstance(part.get(key), dict)), None)  # fmt: skip
    if inner is not None or sort in ("tool_result", "tool-result", "function_call_output"):
        results.append(_result(part if inner is None else inner))
        return
    if sort in SILENT or part.get("thought") is True:
        return
    text = next((part[key] for key in ("text", "refusal") if isinstance(part.get(key), str)), None)
    if text is None or (isinstance(sort, str) and "image" in sort):
        raise RecordError("wrong_type", f"a message has a part that is no text: {short(sort)}")
    texts.append(text)


def _result(part: dict[str, Any]) -> Turn:
    content = next((part[key] for key in ("content", "response", "result", "output") if part.get(key) is not None), "")
    if isinstance(content, list) and all(
        isinstance(each, dict) and ("text" in each or "json" in each) for each in content
    ):
        text = "".join(
            each["text"] if isinstance(each.get("text"), str) else as_json(each.get("json")) for each in content
        )
    else:
        text = content if isinstance(content, str) else as_json(content)
    identifier = _identifier(part, (*ID_FIELDS, "id"))
    name = next((part[key] for key in ("name", "toolName") if isinstance(part.get(key), str)), None)
    return Turn("tool", text, id=identifier, name=name)


def calls_of(value: Any) -> list[dict[str, Any]]:
    """The calls in a field: one or a list of them, or the text of these; raises RecordError."""
    if isinstance(value, str):
        text = THOUGHT.sub("", value).strip()
        value = parse_loose(re.sub(r"^```\w*\s*|\s*```$|</?tool_call>", "", text)) if text else []
    if isinstance(value, dict):
        nested = next((value[key] for key in CALL_FIELDS if value.get(key)), None)
        if nested is not None and not _named(value):
            return calls_of(nested)
        value = [value]
    if not isinstance(value, list):
        raise RecordError("wrong_type", f"a message's tool_calls are {kind(value)}, expected a list")
    return [call_of(call) for call in value]


def call_of(value: Any) -> dict[str, Any]:
    """A call in any of the usual forms as `{"name", "arguments"}` and maybe `id`; raises RecordError for all else.

    The forms: bare, or under `function`; `parameters`, `args` or `input` for `arguments`; arguments as an object,
    its JSON text, or a list of keys and values, as tables have maps.
    """
    value = value_of(value, what="a call")
    identifier = None
    if isinstance(value, dict):
        identifier = _identifier(value, ("id", *ID_FIELDS))
        inner = value_of(value.get("function"), loose=False)
        value = inner if isinstance(inner, dict) else value
    if not isinstance(value, dict) or not _named(value):
        raise RecordError("wrong_type", f"a call is {short(value)}, expected an object with a `name`")
    name = next(value[key] for key in NAMES if isinstance(value.get(key), str))
    arguments = next((value[key] for key in ARGUMENTS if value.get(key) is not None), None)
    for _ in range(2):  # some texts are written as JSON twice
        if isinstance(arguments, str):
            arguments = value_of(arguments, what=f"the arguments of the call to {name!r}") if arguments.strip() else {}
    if arguments is None or arguments == []:
        arguments = {}
    if isinstance(arguments, list) and all(
        isinstance(pair, dict) and pair.keys() == {"key", "value"} for pair in arguments
    ):
        arguments = {pair["key"]: pair["value"] for pair in arguments}
    if not isinstance(arguments, dict):
        raise RecordError("wrong_type", f"the arguments of a call are {kind(arguments)}, expected an object")
    return {"name": name, "arguments": arguments, **({"id": identifier} if identifier else {})}


def _identifier(value: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """What tells a call or its result: the first of the keys with a text, or a number, as its text."""
    found = (value.get(key) for key in keys)
    return next((str(each) for each in found if isinstance(each, str | int) and not isinstance(each, bool)), None)


def _named(value: dict[str, Any]) -> bool:
    return any(isinstance(value.get(key), str) for key in NAMES) and any(key in value for key in (*ARGUMENTS, "name"))


def value_of(value: Any, loose: bool = True, what: str = "") -> Any:
    """A value, or what its JSON text says where a list or an object is expected; raises RecordError.

    With `loose` False a text that is none stays as it is. `what` names the value in messages.
    """
    if not isinstance(value, str) or not value.strip():
        return value
    if not loose and value.strip()[:1] not in ("[", "{"):
        return value
    try:
        return parse_loose(value)
    except RecordError as error:
        if loose:
            raise RecordError(error.rule, f"{what}: {error.reason}") from error if what else error
        return value


def parse_loose(text: str) -> Any:
    """A value from JSON, or from Python's way to write it; raises RecordError."""
    try:
        value = parse(text)
    except RecordError as error:
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            raise error from None
    check_json(value)
    return value


def as_json(value: Any) -> str:
    """A result that is no text, as its JSON text."""
    return json.dumps(value, ensure_ascii=False)
