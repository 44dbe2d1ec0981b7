"""`examples` of a toolset: real requests with their calls, of which a third is kept back as the headline test.

```yaml
examples:
  - {ask: A small espresso for me, calls: [{order_drink: {drink: espresso, size: small}}]}
  - {ask: A coffee please., answer: I need one more detail. Small, medium or large?}   # no call
  - ask: What's the weather?                                                           # no call, and no tool for it
  - my-requests.jsonl                                       # records in any format that the project reads
```
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from callwright.data.formats.detect import to_records
from callwright.data.formats.inputs import list_files, read_rows
from callwright.data.held_back import held_back
from callwright.data.records import Example, RecordError
from callwright.data.toolset.phrasing import OwnExample, Tool, Toolset
from callwright.data.toolset.yaml_lines import Document
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

POOL_OWN, POOL_KEPT = "pool:own", "pool:test_examples"
KEPT_BACK = 1 / 3
FEW_TESTS = 20  # with fewer kept back, the headline test decides little


def read_own(file: Document, folder: Path, entries: Any, tools: dict[str, Tool]) -> tuple[OwnExample, ...]:
    """The examples under `examples`, checked against the tools; faults go into `file.faults`."""
    found: list[OwnExample] = []
    if not isinstance(entries, list):
        raise file.fault(("examples",), f"found {entries!r:.60}, expected a list of requests or of files")
    for index, entry in enumerate(entries):
        at = ("examples", index)
        with file.collect():
            if isinstance(entry, str):
                found += _of_file(file, at, folder / entry, tools)
            else:
                found.append(_inline(file, at, entry, tools))
    return tuple(found)


def _inline(file: Document, at: tuple[Any, ...], entry: Any, tools: dict[str, Tool]) -> OwnExample:
    entry = file.mapping(at, entry, {"ask", "calls", "answer"})
    ask, answer = entry.get("ask"), entry.get("answer")
    if not isinstance(ask, str) or not ask.strip():
        raise file.fault(at, "expected `ask` with the request's text")
    if not isinstance(answer, str | None):
        raise file.fault((*at, "answer"), f"found {answer!r:.60}, expected text")
    calls = []
    if not isinstance(entry.get("calls", []), list):
        raise file.fault((*at, "calls"), "expected a list, as `[{get_weather: {city: Oslo}}]`")
    for number, call in enumerate(entry.get("calls", [])):
        call = file.mapping((*at, "calls", number), call)
        if set(call) == {"name", "arguments"} and "name" not in tools:
            call = {call["name"]: call["arguments"]}
        if len(call) != 1:
            raise file.fault(
                (*at, "calls", number), "expected one tool with its arguments, as `get_weather: {city: Oslo}`"
            )
        ((name, arguments),) = call.items()
        calls.append({"name": name, "arguments": arguments if arguments is not None else {}})
    own = OwnExample(
        ({"role": "user", "content": ask.strip()},), tuple(calls), answer, f"{file.path.name}:{file.line(at)}"
    )
    try:
        example(own, list(tools.values()))
    except RecordError as error:
        raise file.fault(at, error.reason) from error
    return own


def _of_file(file: Document, at: tuple[Any, ...], path: Path, tools: dict[str, Tool]) -> list[OwnExample]:
    try:
        files = list_files(path)
    except CallwrightError as error:
        raise file.fault(at, str(error)) from error
    found = []
    for name, each in files:
        for row_id, row in read_rows(each, name):
            for record_id, record in to_records(row_id, row, None, {}):
                if isinstance(record, RecordError):
                    raise file.fault(at, f"{record_id}: {record.reason}")
                own = OwnExample(tuple(record.messages), tuple(record.calls), record.answer, record_id)
                try:
                    example(own, list(tools.values()))
                except RecordError as error:
                    raise file.fault(at, f"{record_id}: {error.reason}") from error
                found.append(own)
    return found


def example(own: OwnExample, tools: list[Tool], pool: str = POOL_OWN) -> Example:
    """The example with these tools on offer; raises RecordError when a call is not one of theirs."""
    count = len(own.calls)
    kind = (
        ("calls:1" if count == 1 else "calls:2+",)
        if count
        else ("calls:0", "abstain:missing" if own.answer else "abstain:no_tool")
    )
    return Example.from_row(
        {
            "id": f"own:{own.place}",
            "messages": list(own.messages),
            "tools": [tool.definition for tool in tools],
            "calls": list(own.calls),
            "answer": own.answer,
            "source": "own",
            "tags": [*kind, "own", pool],
        }
    )


def own_records(toolset: Toolset, held_out: set[str]) -> list[tuple[str, Example | RecordError]]:
    """The toolset's examples as records: those kept back first, so that nothing like them is trained.

    held_out: the tools that only test_unseen_tools lists.
    """
    tools = [tool for tool in toolset.tools if tool.name not in held_out]
    found: list[tuple[str, Example | RecordError]] = []
    for own in toolset.examples:
        try:
            made = example(own, tools)
        except RecordError:
            made = RecordError("mixed_tools", "calls a tool that is held out for test_unseen_tools")
        else:
            if held_back(made.query, KEPT_BACK):
                made = replace(made, tags=(*made.tags[:-1], POOL_KEPT))
        found.append((f"own:{own.place}", made))
    if 0 < (tests := kept_back(toolset)) < FEW_TESTS:
        log.warning(
            "test_examples has %d of the toolset's %d examples: so few decide little; with some %d examples it has %d",
            tests, len(toolset.examples), round(FEW_TESTS / KEPT_BACK), FEW_TESTS,
        )  # fmt: skip
    return sorted(found, key=lambda pair: not (isinstance(pair[1], Example) and POOL_KEPT in pair[1].tags))


def kept_back(toolset: Toolset) -> int:
    """How many of the toolset's examples are kept back."""
    requests = (own.messages[-1]["content"] for own in toolset.examples if own.messages[-1]["role"] == "user")
    return sum(held_back(text, KEPT_BACK) for text in requests if isinstance(text, str))
