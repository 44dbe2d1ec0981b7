"""Better words for a toolset: phrasings that a language model writes, or that lie in logs, kept only where they fit.

A proposal is one line of text. Kept is what has the slots that its kind asks for, no value of its own, and nothing like
it among the phrasings; everything else is counted under its reason:

| reason | the line |
|---|---|
| no_request | is talk about the task, code, or no sentence |
| too_long | has more than 200 characters |
| unknown_slot | has a slot that is no parameter |
| missing_slot | lacks a required parameter (phrasings) |
| nothing_missing | has all required parameters (`missing`) |
| own_value | has a value, as a number or in quotes, where a slot belongs |
| has_slot | has a slot where none belongs (near misses) |
| duplicate | is a phrasing that there is already, or was proposed before |
| test_wording | is nearly a wording that only tests use |
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from callwright.data.records import Example, normalize
from callwright.data.similarity import Index
from callwright.data.toolset.phrasing import SLOT, Tool, Toolset, slots_of
from callwright.data.toolset.toolset import load_toolset
from callwright.data.toolset.writer import Wordings
from callwright.data.toolset.yaml_lines import Document, YamlFault
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import atomic_write, sha256_json

KINDS = ("phrasings", "missing", "near_misses")
LONGEST = 200
SEED = 42  # of the workflow's default: which wordings are for tests
_TALK = re.compile(
    r"^(here (are|is)|sure\b|certainly|of course|below|note:|example|i hope|let me know|these (are|requests)|as an ai|"
    r"request \d|phrasing|output|answer:|```|\{\s*\"|import |def |<)", re.I,
)  # fmt: skip
ASK = {
    "phrasings": "Write {count} different ways in which people ask an assistant for this tool: orders, questions, "
    "hints, short and long ones. Use {slots} exactly so, with the braces, in the place of values, each in every line.",
    "missing": "Write {count} requests for this tool in which something required is left out, as people do. Where a "
    "value would stand, write its slot with the braces; of {slots} leave out at least one in every line.",
    "near_misses": "Write {count} requests that sound as if they were for this tool, but that it cannot do. No braces.",
}

Ask = Callable[[str], str]


@dataclass(slots=True)
class Proposals:
    """What was kept, by tool and kind, and the counts of what was not, by kind and reason."""

    kept: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    rejected: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})

    def count(self, kind: str) -> int:
        """How many were kept of a kind."""
        return sum(len(found[kind]) for found in self.kept.values())


class Filter:
    """Tells what may be kept for a toolset."""

    def __init__(self, toolset: Toolset):
        self.toolset = toolset
        held_back = Wordings(toolset, SEED).for_tests
        self.known: set[str] = set()
        self.tests = Index()
        for tool in toolset.tools:
            for phrasing in (*tool.phrasings, *tool.twice, *tool.missing):
                self.known.add(shape(phrasing.text))
                if phrasing.id in held_back:
                    self.tests.add(shape(phrasing.text), phrasing.id)
        self.known |= {shape(phrasing.text) for phrasing, _ in toolset.small_talk}
        self.proposals = Proposals({tool.name: {kind: [] for kind in KINDS} for tool in toolset.tools})

    def take(self, tool: Tool, kind: str, line: str) -> str | None:
        """Keep a proposal, or count it; returns the reason, None for one that is kept.

        Where a value of the tool's lists stands in the place of a slot, as small models write it, it becomes the slot.
        """
        if kind != "near_misses":
            line = with_known_values(tool, line)
        reason = self.reason(tool, kind, line)
        if reason is None:
            self.known.add(shape(line))
            self.proposals.kept[tool.name][kind].append(line)
        else:
            self.proposals.rejected[kind][reason] += 1
        return reason

    def reason(self, tool: Tool, kind: str, line: str) -> str | None:
        """Why a line cannot be kept; None when it can."""
        if len(line) > LONGEST:
            return "too_long"
        if _TALK.match(line) or line.endswith(":") or not re.search(r"[^\W\d_]{2}", SLOT.sub(" ", line)):
            return "no_request"
        given = {name for name, _ in slots_of(line)}
        bare = SLOT.sub("", line)
        if kind == "near_misses":
            if given or re.search(r"[{}\[\]]", line):
                return "has_slot"
        else:
            if given - set(tool.pools) or re.search(r"[{}\[\]<>]", bare) or re.search(r"\{\w+\.[12]\}", line):
                return "unknown_slot"
            if re.search(r"\d", bare) or re.search(r"[\"“][^\"”]+[\"”]", bare):
                return "own_value"
            lacking = tool.lacks(given)
            if kind == "phrasings" and lacking:
                return "missing_slot"
            if kind == "missing" and (not lacking or not isinstance(tool.ask.get(lacking[0]), str)):
                return "nothing_missing"
        if shape(line) in self.known:
            return "duplicate"
        if next(self.tests.near(shape(line)), None):
            return "test_wording"
        return None


def shape(text: str) -> str:
    """A phrasing without case and punctuation, its slots kept."""
    return normalize(SLOT.sub(lambda match: f" slot {match.group(1)} ", text))


def prompt(tool: Tool, kind: str, count: int, examples: int = 0) -> str:
    """What the language model is asked: the tool's description, and with `examples` some of its phrasings."""
    function = tool.definition["function"]
    lines = [f"Tool: {function['name']}", f"What it does: {function.get('description') or '-'}", "Parameters:"]
    for name, part in tool.parameters["properties"].items():
        wanted = "required" if name in tool.required else "optional"
        sort = (
            "one of " + ", ".join(map(str, part["enum"]))
            if isinstance(part.get("enum"), list)
            else part.get("type", "any")
        )
        lines.append(f"- {{{name}}} ({wanted}; {sort}) {part.get('description') or ''}".rstrip())
    slots = ", ".join(f"{{{name}}}" for name in tool.required) or "no slot"
    lines += ["", ASK[kind].replace("{count}", str(count)).replace("{slots}", slots)]
    if examples and kind != "near_misses" and (known := getattr(tool, kind)[:examples]):
        lines += ["For example:", *(phrasing.text for phrasing in known)]
    lines.append("One request on each line, without numbers, quotes or explanation.")
    return "\n".join(lines)


def lines_of(text: str) -> Iterator[str]:
    """The proposals in a language model's answer: its lines, without list marks and quotation marks around them."""
    for line in text.splitlines():
        line = re.sub(r"^\s*(?:[-*•]|\(?\d+[.):]|[a-z]\))\s*", "", line).strip()
        line = re.sub(r"^[\"“'`](.*)[\"”'`]([,.]?)$", r"\1\2", line).strip().rstrip(",").strip()
        line = re.sub(r"\s+", " ", line)
        if line:
            yield line


class Cache:
    """Answers by content, one JSON object a line: what was asked once is not asked again."""

    def __init__(self, path: Path):
        self.path, self.found = path, {}
        if path.is_file():
            for line in path.read_bytes().split(b"\n"):
                try:
                    row = orjson.loads(line)
                    self.found[row["key"]] = row["text"]
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    continue  # the last line of an interrupted run

    def answer(self, model: str, text: str, ask: Ask) -> tuple[str, bool]:
        """The answer to a prompt, and whether it was asked now."""
        key = sha256_json([model, text])
        if key in self.found:
            return self.found[key], False
        self.found[key] = ask(text)
        with open(self.path, "ab") as stream:
            stream.write(b"\n" + orjson.dumps({"key": key, "text": self.found[key]}) + b"\n")
        return self.found[key], True


def from_logs(found: Filter, examples: Iterable[Example]) -> Proposals:
    """Proposals from conversations: the words of calls as phrasings, those that were declined as near misses.

    A request becomes a phrasing where each value of its one call stands in it word by word.
    """
    tools = {tool.name: tool for tool in found.toolset.tools}
    for example in examples:
        if len(example.calls) == 1 and example.calls[0]["name"] in tools:
            tool = tools[example.calls[0]["name"]]
            found.take(tool, "phrasings", with_slots(example.query, example.calls[0]["arguments"]))
        elif not example.calls and found.toolset.tools:
            found.take(found.toolset.tools[0], "near_misses", example.query.strip())
    return found.proposals


def with_slots(text: str, arguments: dict[str, Any]) -> str:
    """A request with slots in the place of its values, the longest first."""
    for name, value in sorted(arguments.items(), key=lambda item: -len(str(item[1]))):
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            text = re.sub(rf"(?<![\w{{]){re.escape(str(value))}(?![\w}}])", f"{{{name}}}", text, count=1, flags=re.I)
    return " ".join(text.split())


def with_known_values(tool: Tool, line: str) -> str:
    """A line with slots in the place of the values that the tool's pools list, the longest first."""
    there = {name for name, _ in slots_of(line)}
    known = [(said, name) for name, pool in tool.pools.items() if name not in there for said, _ in pool.entries or ()]
    for said, name in sorted(known, key=lambda pair: -len(pair[0])):
        if name not in there and len(said) > 2:
            line, count = re.subn(rf"(?<![\w{{]){re.escape(said)}(?![\w}}])", f"{{{name}}}", line, count=1, flags=re.I)
            there |= {name} if count else set()
    return line


def review_text(proposals: Proposals, name: str) -> str:
    """The proposals as YAML, to be read and thinned out before `accept` puts them into the toolset."""
    lines = [
        f"# Proposals for {name}. Remove what nobody would say, then: callwright paraphrase {name} --accept THIS_FILE"
    ]
    for kind in KINDS:
        left_out = proposals.rejected[kind]
        why = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common()) or "none"
        lines.append(f"# {kind}: {proposals.count(kind)} kept; left out: {why}")
    kept = {tool: {kind: texts for kind, texts in found.items() if texts} for tool, found in proposals.kept.items()}
    kept = {tool: found for tool, found in kept.items() if found}
    return "\n".join(lines) + "\n" + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=10**9)


def accept(toolset: Path, review: Path) -> dict[str, int]:
    """Put the reviewed proposals into the toolset file, behind the lists that they belong to; counts them by kind.

    Comments and everything else of the file stay as they are. Raises CallwrightError for proposals that cannot be read,
    that name a list which the file does not have, or that would break it; the file is untouched then.
    """
    before = load_toolset(toolset)
    proposals = Document(review)
    try:
        found = _reviewed(proposals, before)
    except YamlFault as fault:
        proposals.faults.append(fault)
        raise proposals.error() from fault
    file, domains = Document(toolset), {tool.name: tool.domain for tool in before.tools}
    inserts: list[tuple[int, str]] = []
    counts: Counter[str] = Counter()
    for tool, kind, texts in found:
        where = ("small_talk",) if kind == "near_misses" else ("domains", domains[tool], tool, kind)
        at, indent = last_item(file, where)
        if not at:
            raise CallwrightError(
                f"{toolset} has no list {'.'.join(where)} to add to: `callwright new` writes one for each tool"
            )
        inserts += [(at, f"{indent}- {quoted(text)}") for text in texts]
        counts[kind] += len(texts)
    lines = toolset.read_text(encoding="utf-8").splitlines()
    for at, line in reversed(sorted(inserts, key=lambda insert: insert[0])):  # from the end: no other place moves
        lines.insert(at, line)
    text = "\n".join(lines) + "\n"
    try:
        load_toolset(toolset, text)
    except CallwrightError as error:
        raise CallwrightError(f"{review}: nothing was added, since the toolset would be broken: {error}") from error
    with atomic_write(toolset) as stream:
        stream.write(text.encode())
    return dict(counts)


def _reviewed(file: Document, toolset: Toolset) -> list[tuple[str, str, list[str]]]:
    """The proposals of a reviewed file by tool and kind; a list that was thinned out to nothing is none.

    Raises YamlFault for what is no list of texts, and for a tool or a slot that the toolset does not have.
    """
    tools = {tool.name: tool for tool in toolset.tools}
    found = []
    for name, kinds in file.mapping((), {} if file.value is None else file.value).items():
        if name not in tools:
            raise file.fault((name,), f"the toolset has no such tool; it has {', '.join(tools)}")
        for kind, texts in file.mapping((name,), {} if kinds is None else kinds, set(KINDS)).items():
            known = toolset.pools if kind == "near_misses" else tools[name].pools
            texts = file.texts((name, kind), [] if texts is None else texts)
            for index, text in enumerate(texts):
                if unknown := [slot for slot, _ in slots_of(text) if slot not in known]:
                    raise file.fault((name, kind, index), f"the slot {{{unknown[0]}}} is no parameter with values")
            if texts:
                found.append((name, kind, texts))
    return found


def last_item(file: Document, where: tuple[str, ...]) -> tuple[int, str]:
    """The line (from 1) on which the block list at a path ends, and its indentation; 0 where there is none."""
    node = file.node
    for step in where:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in pairs if key.value == step), None)
    if not isinstance(node, yaml.SequenceNode) or not node.value or node.flow_style:
        return 0, ""
    last = node.value[-1]
    while isinstance(last, yaml.CollectionNode) and not last.flow_style and last.value:  # it ends with what is in it
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    end = last.end_mark.line + (1 if last.end_mark.column else 0)
    return end, " " * node.start_mark.column


def quoted(text: str) -> str:
    """A text as a YAML string on one line."""
    text = " ".join(text.split())
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
