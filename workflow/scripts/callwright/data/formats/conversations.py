"""From a conversation to the examples in it: one for each turn of the assistant that calls tools.

The formats of other people bring their conversations into one form (`turns`); what follows is the same for all. An
example's messages are what stood before its turn, earlier calls and their results included, so that a prompt in
training is rendered as a server renders it when it is that turn's turn.

- Calls may be written as text in what the assistant says (`spoken`).
- Results stand behind their calls in the calls' order, whatever their order in the record: by the calls' ids, else by
  the tools' names, else as they come. After a result that is missing or that no call asked for, nothing is learnt.
- A turn that is not to be trained (`weight: 0`, `train: false` …) is shown, not learnt.
- What the assistant says beside its calls is not trained. A conversation without any call becomes one example that
  abstains, with the assistant's first answer; an answer that follows a call is not trained.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from callwright.chat.attempts import attempts_call
from callwright.data.formats.spoken import Spoken, read_spoken
from callwright.data.formats.tools import tools_in, tools_of_system
from callwright.data.formats.turns import THOUGHT, Turn, as_json, parse_loose, value_of
from callwright.data.records import Example, RecordError, kind
from callwright.data.schema import validate

Record = tuple[str, Example | RecordError]


def examples_of(record_id: str, turns: Sequence[Turn], tools: list[Any], source: str) -> Iterator[Record]:
    """The examples of one conversation, `(id, Example or RecordError)` each, at least one.

    `tools`: their definitions, in anybody's form; where there are none, a system prompt may hold them, which is left
    out then: the chat template of the model that is trained says how to call in its own words. The id is the
    record's, with `/<number of the turn>` where there are several. Raises RecordError when the record as a whole
    cannot be used.
    """
    definitions, turns = _definitions(tools, turns)
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in definitions}
    said = [_said(turn, definitions) for turn in turns]
    turns = _joined([replace(turn, calls=[_asked(call, schemas) for call in found.calls], text=found.words)
                     for turn, found in zip(turns, said, strict=True)],
                    [found.unclear for found in said])  # fmt: skip
    turns, unclear = [turn for turn, _ in turns], [reason for _, reason in turns]
    messages, starts, broken = _history(turns)
    targets, abstains = _targets(turns, unclear)
    many = len(targets) > 1
    for number, at in enumerate(targets, 1):
        name, turn = f"{record_id}/{number}" if many else record_id, turns[at]
        row = {
            "id": name,
            "messages": messages[: starts[at]],
            "tools": definitions,
            "calls": [_plain(call) for call in turn.calls],
            "source": source,
            "tags": [
                "calls:2+" if len(turn.calls) > 1 else f"calls:{len(turn.calls)}",
                *(["abstain:answer"] if abstains else []),
                *([f"conversation:{record_id}"] if many else []),
            ],
        }
        try:
            if unclear[at]:
                raise RecordError("call_in_text", unclear[at])
            if broken is not None and at > broken[0]:
                raise RecordError("unpaired_result", broken[1])
            if abstains:
                row["answer"] = THOUGHT.sub("", turn.text).strip()
                if attempts_call(row["answer"], definitions):
                    raise RecordError("call_in_text", "the answer looks like a call, but cannot be read as one")
            yield name, _checked(row)
        except RecordError as error:
            yield name, error


def _definitions(tools: list[Any], turns: Sequence[Turn]) -> tuple[list[dict[str, Any]], list[Turn]]:
    """The tools as OpenAI tool objects, and the turns without a system prompt that holds them."""
    kept = []
    for turn in turns:
        if turn.role == "system" and (found := tools_of_system(turn.text, explained=bool(tools))) is not None:
            tools = tools or found
        else:
            kept.append(turn)
    return tools_in(tools), kept


def _said(turn: Turn, definitions: Sequence[dict[str, Any]]) -> Spoken:
    """A turn's calls, be they written as text, and its words."""
    if turn.role != "assistant":
        return Spoken(words=turn.text)
    found = read_spoken(turn.text, definitions)
    if turn.calls:  # the same calls may stand in the text once more
        return Spoken(turn.calls, "" if found.calls or found.unclear else turn.text.strip())
    return found


def _asked(call: dict[str, Any], schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A call without the nulls that a table made of other tools' arguments, and of those that were left out."""
    schema = schemas.get(call["name"])
    if schema is None or None not in call["arguments"].values():
        return call
    listed, required = schema.get("properties") or {}, schema.get("required") or ()

    def meant(name: str) -> bool:
        alone = {"type": "object", "properties": {name: listed.get(name, False)}, "$defs": schema.get("$defs", {})}
        return name in required or (name in listed and validate({name: None}, alone) is None)

    kept = {name: value for name, value in call["arguments"].items() if value is not None or meant(name)}
    return {**call, "arguments": kept}


def _joined(turns: Sequence[Turn], unclear: Sequence[str | None]) -> list[tuple[Turn, str | None]]:
    """The turns, those of the assistant that follow each other as one: words and call, or parallel calls."""
    found: list[tuple[Turn, str | None]] = []
    for turn, reason in zip(turns, unclear, strict=True):
        last, last_reason = found[-1] if found else (None, None)
        if last is not None and last.role == turn.role == "assistant" and _one_turn(last, turn):
            text = "\n".join(part for part in (last.text.strip(), turn.text.strip()) if part)
            trained = turn.trained if turn.calls else last.trained
            calls, bare = [*last.calls, *turn.calls], turn.bare or last.bare
            found[-1] = Turn("assistant", text, calls, trained=trained, bare=bare), last_reason or reason
        else:
            found.append((turn, reason))
    return found


def _one_turn(last: Turn, turn: Turn) -> bool:
    if last.calls and turn.calls:  # parallel calls; two messages with calls of their own are none
        return last.bare and turn.bare and last.trained == turn.trained
    return last.trained == turn.trained or bool(last.calls or turn.calls)


def _history(turns: Sequence[Turn]) -> tuple[list[dict[str, Any]], list[int], tuple[int, str] | None]:
    """The messages of all turns; where each turn begins among them; the first turn whose results do not fit, and why.

    Results stand in the order of their calls.
    """
    messages: list[dict[str, Any]] = []
    starts: list[int] = []
    broken: tuple[int, str] | None = None
    at = 0
    while at < len(turns):
        turn = turns[at]
        starts.append(len(messages))
        messages.append(_message(turn))
        at += 1
        if turn.role == "tool":
            broken = broken or (at - 1, "a result belongs to no call")
        if not turn.calls:
            continue
        behind = at
        while behind < len(turns) and turns[behind].role == "tool":
            behind += 1
        results, problem = _in_order(turn.calls, turns[at:behind])
        if problem and behind < len(turns):
            broken = broken or (at - 1, problem)
        starts += [len(messages)] * (behind - at)
        messages += [{"role": "tool", "content": text} for text in results]
        at = behind
    return messages, starts, broken


def _in_order(calls: Sequence[dict[str, Any]], results: Sequence[Turn]) -> tuple[list[str], str | None]:
    """The texts of results in the order of their calls, and what is wrong with them."""
    texts = [result.text for result in results]
    ids, given = [call.get("id") for call in calls], [result.id for result in results]
    if results and all(ids) and all(given) and len(set(ids)) == len(ids):
        if strange := [identifier for identifier in given if identifier not in ids]:
            return texts, f"a result belongs to {strange[0][:60]!r}, which is no call before it"
        if len(set(given)) < len(given):
            return texts, "a call has two results"
        if missing := [identifier for identifier in ids if identifier not in given]:
            return texts, f"the call {missing[0][:60]!r} has no result"
        return [texts[given.index(identifier)] for identifier in ids], None
    if len(results) == 1 < len(calls):
        texts, names = _parts(results[0].text, len(calls))
    else:
        names = [result.name for result in results]
    if len(texts) != len(calls):
        return texts, f"{len(calls)} calls have {len(texts)} results"
    wanted = [call["name"] for call in calls]
    if all(names) and Counter(names) == Counter(wanted):
        left = list(zip(names, texts, strict=True))
        texts = [left.pop(next(n for n, (name, _) in enumerate(left) if name == call))[1] for call in wanted]
    return texts, None


def _parts(text: str, count: int) -> tuple[list[str], list[str | None]]:
    """The results that one text holds as a list of so many, and their tools' names; else the text itself."""
    try:
        found = parse_loose(text)
    except RecordError:
        return [text], [None]
    if not isinstance(found, list) or len(found) != count:
        return [text], [None]
    names = [
        part.get("name") if isinstance(part, dict) and isinstance(part.get("name"), str) else None for part in found
    ]
    return [part if isinstance(part, str) else as_json(part) for part in found], names


def _targets(turns: Sequence[Turn], unclear: Sequence[str | None]) -> tuple[list[int], bool]:
    """The turns that are learnt, and whether they abstain; raises RecordError when there is none."""
    calling = [at for at, turn in enumerate(turns) if turn.calls or unclear[at]]
    answering = [at for at, turn in enumerate(turns) if turn.role == "assistant"]
    if not answering:
        raise RecordError("no_answer", "no message is the assistant's: there is nothing to learn")
    found = [at for at in (calling or answering) if turns[at].trained]
    if not found:
        raise RecordError(
            "not_trained", "the record says of each turn that could be learnt that it is not to be trained"
        )
    return (found, False) if calling else (found[:1], True)


def _checked(row: dict[str, Any]) -> Example:
    example = Example.from_row(row)
    if not example.calls and not (example.answer or "").strip():
        raise RecordError("no_answer", "the assistant neither calls nor says anything")
    return example


def _message(turn: Turn) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.calls:
        plain["tool_calls"] = [{"type": "function", "function": _plain(call)} for call in turn.calls]
    return plain


def _plain(call: dict[str, Any]) -> dict[str, Any]:
    return {"name": call["name"], "arguments": call["arguments"]}


def list_of(row: dict[str, Any], name: str) -> list[Any]:
    """A field that is a list, or the text of one; empty when it is absent."""
    value = value_of(row.get(name), what=f"the field {name!r}")
    if value is None or value == "":
        return []
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RecordError("wrong_type", f"the field {name!r} is {kind(value)}, expected a list")
    return value
