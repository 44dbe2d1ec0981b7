"""Requests written by hand, with the calls that answer them: a YAML file beside a toolset.

```yaml
toolset: ../toolsets/dental.yaml      # or tools_from: [tools.json], both relative to this file
requests:
  - say: Could I come in on Thursday? Paul Renner, a cleaning.
    calls: [{book_appointment: {patient: Paul Renner, treatment: cleaning, day: {or: [Thursday, on Thursday]}}}]
  - say: Something's come up, I can't be there tomorrow.
    ask: [patient]                    # no call: these are missing, and a good answer asks for one of them
  - say: Where do I park?             # no call: nothing fits
  - say: Thank you!
    answer: You're welcome.           # no call, and what to say in a training
```

The tools may stand in the file itself, under `tools`, in any of the forms that `tools_from` reads. Trained, a request
with `ask` is answered by the question for the first of what is missing, one without calls as `answer` says, else by
the sentence for requests that no tool serves. `held_back: true` keeps the requests of a file out of every training:
they are validated, and measure what was learned from others.

`{or: [a, b]}` lists the values that are right, `~` (null) among them says that the argument may be left out. All
tools of the toolset are on offer in each request, in the file's order.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from callwright.data.formats.conversations import Record
from callwright.data.negatives import question
from callwright.data.records import POOL_VALID, Example, RecordError
from callwright.data.said_values import required_of
from callwright.data.tool_sources.sources import described, tools_from
from callwright.data.toolset.toolset import load_toolset
from callwright.data.toolset.yaml_lines import Document, YamlFault
from callwright.runtime.errors import CallwrightError

HELD_BACK = "held_back"  # a tag
NEEDED = "needs:"  # a tag for each argument that is missing: "needs:patient"


def read_requests(path: str | Path) -> Iterator[Record]:
    """The requests of a file as examples, `(id, Example or RecordError)` each; the id is `<file's stem>:<number>`.

    Raises CallwrightError, at once, when the file or its tools cannot be read; it names the line.
    """
    path = Path(path)
    file = Document(path)
    try:
        root = file.mapping((), file.value, {"toolset", "tools_from", "tools", "requests", "held_back"})
        held_back = root.get("held_back", False)
        if not isinstance(held_back, bool):
            raise file.fault(("held_back",), f"`held_back` is {held_back!r:.60}, expected true or false")
        tools = _tools(file, path, root)
        entries = root.get("requests")
        if not isinstance(entries, list) or not entries:
            raise file.fault(("requests",), "there is no request: expected a list of `say` and `calls`")
        pool = (POOL_VALID, HELD_BACK) if held_back else ()
        rows = [_row(file, number, entry, tools, path.stem, pool) for number, entry in enumerate(entries)]
    except YamlFault as fault:
        file.faults.append(fault)
        raise file.error() from fault
    return iter(rows)


def lacking(functions: Mapping[str, Any], example: Example) -> tuple[set[str], list[str]]:
    """The values that a request lacks, and the names of the functions that require them."""
    needs = {tag.removeprefix(NEEDED) for tag in example.tags if tag.startswith(NEEDED)}
    return needs, [name for name, one in functions.items() if needs <= set(required_of(one["parameters"]))]


def tool_sources(path: str | Path) -> list[str]:
    """The files that a file of requests takes its tools from."""
    path = Path(path)
    root = Document(path).value
    named = [root.get("toolset"), *(root.get("tools_from") or [])] if isinstance(root, dict) else []
    return [str(path.parent / name) for name in named if isinstance(name, str)]


def _tools(file: Document, path: Path, root: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    try:
        if isinstance(root.get("toolset"), str):
            found += [tool.definition for tool in load_toolset(path.parent / root["toolset"]).tools]
        for name in file.texts(("tools_from",), root.get("tools_from", [])):
            found += tools_from(path.parent / name)
    except CallwrightError as error:
        raise file.fault((), str(error)) from error
    if "tools" in root:
        found += _inline_tools(file, path, root["tools"])
    if not found:
        raise file.fault((), "no tools: name a `toolset` or files under `tools_from`, or list them under `tools`")
    return found


def _inline_tools(file: Document, path: Path, listed: Any) -> list[dict[str, Any]]:
    problems: list[str] = []
    try:
        found = described(path, listed, problems) if isinstance(listed, list) else []
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise file.fault(("tools",), f"not built as descriptions of tools are: {error}") from error
    if not found and not problems:
        problems.append("expected a list of tools with JSON Schema")
    if problems:
        raise file.fault(("tools",), problems[0].removeprefix(f"{path}: "))
    return found


def _row(
    file: Document, number: int, entry: Any, tools: list[dict[str, Any]], stem: str, pool: tuple[str, ...]
) -> Record:
    where = ("requests", number)
    entry = file.mapping(where, entry, {"say", "calls", "ask", "answer"})
    said, calls, answer = entry.get("say"), entry.get("calls", []), entry.get("answer")
    if not isinstance(said, str) or not said.strip():
        text = " (it stands under `say`; `ask` lists what is missing)" if isinstance(entry.get("ask"), str) else ""
        raise file.fault(where, f"`say` is {said!r:.60}, expected the text of a request{text}")
    if not isinstance(calls, list) or not all(isinstance(call, dict) and len(call) == 1 for call in calls):
        raise file.fault(where, "`calls` is a list of {tool: {argument: value}}")
    if answer is not None and (calls or not isinstance(answer, str)):
        raise file.fault(where, "`answer` is the text to say where there are no `calls`")
    needs = file.texts((*where, "ask"), entry.get("ask", []))
    reason = "missing" if needs else "no_tool"
    tags = [f"calls:{min(len(calls), 2)}{'+' * (len(calls) > 1)}"] if calls else ["calls:0", f"abstain:{reason}"]
    row = {
        "id": f"{stem}:{number + 1}",
        "messages": [{"role": "user", "content": said}],
        "tools": tools,
        "calls": [
            {"name": name, "arguments": {key: value for key, value in _first(given).items() if value is not None}}
            for call in calls
            for name, given in call.items()
        ],
        "possible": [
            {key: _alternatives(value) for key, value in (given or {}).items()}
            for call in calls
            for given in call.values()
        ],
        "answer": answer or (question(needs[0]) if needs else None),
        "source": f"requests:{stem}",
        "tags": [*tags, *(f"{NEEDED}{name}" for name in needs), *pool],
    }
    known = {tool["function"]["name"]: tool["function"]["parameters"]["properties"] for tool in tools}
    for call in row["calls"]:
        if call["name"] not in known:
            raise file.fault(where, f"there is no tool {call['name']!r}")
        if unknown := call["arguments"].keys() - known[call["name"]].keys():
            raise file.fault(where, f"the tool {call['name']!r} has no parameter {min(unknown)!r}")
    try:
        if calls:
            Example.from_row({key: part for key, part in row.items() if key != "possible"})  # by the tools' schemas
        else:
            del row["possible"]
        return row["id"], Example.from_row(row)
    except RecordError as error:
        raise file.fault(where, error.reason) from error


def _alternatives(value: Any) -> list[Any]:
    found = value["or"] if isinstance(value, dict) and value.keys() == {"or"} else [value]
    return ["" if item is None else item for item in found]


def _first(given: dict[str, Any] | None) -> dict[str, Any]:
    """The arguments with the first of the values that are right."""
    return {
        key: value["or"][0] if isinstance(value, dict) and value.keys() == {"or"} else value
        for key, value in (given or {}).items()
    }
