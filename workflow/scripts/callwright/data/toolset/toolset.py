"""The toolset file: tools, and how people ask for them.

```yaml
name: home
values:                                   # pools and generators that tools share (callwright.data.toolset.values);
  city: [Oslo, Rome, Lima]                # a file's own come before those of callwright.data.toolset.pools
domains:
  weather:
    get_weather:
      description: Current weather in a city.
      parameters:                         # JSON Schema of each parameter
        city: {type: string}
        unit: {type: string, enum: [celsius, fahrenheit]}
      optional: [unit]                    # the others are required
      values:                             # where slots get their values, if not from the pool of the same name
        unit: [{say: in Celsius, value: celsius}, {say: in Fahrenheit, value: fahrenheit}]
      phrasings:
        - What's the weather in {city}?
        - Look up the weather in {city}[ {unit}]
      indirect:                           # a need instead of an order; asked in training as data.variety says
        - I'm off to {city}. Will I need an umbrella?
      twice:                              # requests that need two calls
        - How do {city.1} and {city.2} compare in weather right now?
      ask: {city: "I need one more detail. Which city should I look up?"}
      missing:                            # requests that lack a required argument; the answer is its `ask`
        - What's the weather like?
      constraints: []                     # between arguments, as `start < end` (callwright.data.toolset.constraints)
      similar: [get_forecast]             # tools that could serve the same requests: never offered instead
    get_forecast:
      description: Weather forecast of a city.
      parameters:
        city: {type: string}
      phrasings:
        - How will the weather in {city} be tomorrow?
examples: []                              # real requests with their calls (callwright.data.toolset.own_examples)
small_talk:                               # requests that no tool serves, with an answer of their own; on top of
  - ["Thanks, you did well!", "I'm glad."]    # callwright.data.toolset.pools.CHIT_CHAT
  - How far is it from {city} to the moon?
no_tool: [I can't do that with the tools I have.]
mixture: {one: 0.6, several: 0.22, no_tool: 0.09, missing: 0.09}
```

A phrasing without a mark at its end is an order ("Set an alarm for {time}"): it may be joined to others by
"and" or become "Can you set …?". With a mark it stands as it is. What stands in square brackets is said in half
of the requests. `a/an {slot}` takes the fitting article. Slots that share a pool (`values: {source: currency,
target: currency}`) get different values in one request. A phrasing may fix arguments:
`{say: Louder, please., arguments: {change: 10}}`. Words as in YAML 1.2: `on` and `yes` are text. The parameters
may also be one JSON Schema of type object.

`tools_from: [my_tools.py]` takes names, descriptions and parameters from Python functions, an OpenAPI document,
an MCP server's tools/list answer or a JSON file of tools (`data.tool_sources`), relative to the toolset file.
Such a tool is named under `domains` only to give it phrasings or values; without phrasings it gets plain ones,
made from its description (`callwright.data.toolset.plain_phrasings`).
"""

import logging
from pathlib import Path
from typing import Any

from callwright.chat.formats import NO_CALL
from callwright.data.tool_sources.sources import tools_from
from callwright.data.toolset import pools
from callwright.data.toolset.own_examples import read_own
from callwright.data.toolset.phrasing import OwnExample, Phrasing, Tool, Toolset
from callwright.data.toolset.tool_reader import RecursiveParameter, ToolReader
from callwright.data.toolset.yaml_lines import Document, YamlFault
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

MIXTURE = {"one": 0.6, "several": 0.22, "no_tool": 0.09, "missing": 0.09}
NO_TOOL = (NO_CALL,)
KEYS = {"name", "values", "domains", "tools_from", "examples", "small_talk", "no_tool", "mixture"}


def load_toolset(path: str | Path, text: str | None = None) -> Toolset:
    """Read and check a toolset file; raises CallwrightError that lists up to ten faults with line, key and remedy.

    text: what is to be written to the file, read in the place of what it holds.
    """
    return _ToolsetReader(Path(path), text).toolset()


def is_toolset(path: str | Path) -> bool:
    """Whether a file is a toolset, and not a file of tools alone: YAML with `domains` or `tools_from`."""
    path = Path(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False
    value = Document(path).value
    return isinstance(value, dict) and not value.keys().isdisjoint({"domains", "tools_from"})


class _ToolsetReader:
    """Reads one file; collects what is wrong with it."""

    def __init__(self, path: Path, text: str | None = None):
        self.path = path
        self.file = Document(path, text)
        self.tools = ToolReader(self.file, pools.builtin())

    def toolset(self) -> Toolset:
        try:
            found = self.read()
        except YamlFault as fault:
            self.file.faults.append(fault)
        if self.file.faults:
            raise self.file.error()
        if self.tools.plain:
            log.warning(
                "%s: plain phrasings are made from the descriptions of %s; own ones under `domains` teach better, "
                "and a test of generated wordings says little about those of people",
                self.path, ", ".join(self.tools.plain),
            )  # fmt: skip
        if self.tools.stand_ins:
            log.warning(
                "%s: nothing is known of the values of %s, so stand-ins are used: write what people say under `values`",
                self.path, ", ".join(self.tools.stand_ins),
            )  # fmt: skip
        return found

    def read(self) -> Toolset:
        root = self.file.mapping((), self.file.value)
        for key in root:
            if key not in KEYS:
                self.file.faults.append(
                    self.file.fault((key,), f"this key is not known; known are {', '.join(sorted(KEYS))}")
                )
        shared = {}
        with self.file.collect():
            shared = self.file.mapping(("values",), root.get("values", {}))
        for name, spec in shared.items():
            with self.file.collect():
                self.tools.broken.add(name)
                self.tools.named[name] = self.tools.pool(("values", name), name, spec)
                self.tools.broken.discard(name)
        self.read_imported(root)  # without these tools all that is said of them would be a fault
        tools: dict[str, Tool] = {}
        domains = self.domains(root)
        self.tools.names = {name for entries in domains.values() for name in entries} | self.tools.imported.keys()
        for domain, entries in domains.items():
            for name, spec in entries.items():
                where = ("domains", domain, name)
                with self.file.collect():
                    if name in tools:
                        raise self.file.fault(
                            where, f"a tool of this name stands in the domain {tools[name].domain!r} already"
                        )
                    tools[name] = self.tools.tool(where, domain, name, spec)
        listed = {name for entries in domains.values() for name in entries}
        left_out = []
        for name, (stem, _, where) in self.tools.imported.items():
            if name not in listed:
                with self.file.collect():
                    try:
                        tools[name] = self.tools.tool(where, stem, name, {})
                    except RecursiveParameter as fault:
                        left_out.append(fault)
        if not tools and not self.file.faults:
            raise left_out[0] if left_out else self.file.fault(("domains",), "there is no tool")
        for fault in left_out:
            log.warning("%s: left out: %s", self.path, fault.message)
        small_talk, no_tool, mixture = [], NO_TOOL, MIXTURE
        with self.file.collect():
            small_talk = self.small_talk(root.get("small_talk", []))
        with self.file.collect():
            no_tool = tuple(self.file.texts(("no_tool",), root.get("no_tool", list(NO_TOOL)))) or NO_TOOL
        with self.file.collect():
            mixture = self.mixture(root.get("mixture", {}))
        own: tuple[OwnExample, ...] = ()
        with self.file.collect():
            own = read_own(self.file, self.path.parent, root.get("examples", []), tools)
        return Toolset(
            name=str(root.get("name", self.path.stem)),
            tools=tuple(tools.values()),
            small_talk=tuple(small_talk),
            no_tool=no_tool,
            mixture=mixture,
            pools=self.tools.named,
            examples=own,
        )

    def domains(self, root: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The `domains` that are mappings; needed unless tools come from other files."""
        found = {} if "tools_from" in root and "domains" not in root else root.get("domains")
        good = {}
        with self.file.collect():
            for key, entries in self.file.mapping(("domains",), found).items():
                with self.file.collect():
                    good[key] = self.file.mapping(("domains", key), entries)
        return good

    def read_imported(self, root: dict[str, Any]) -> None:
        for index, name in enumerate(self.file.texts(("tools_from",), root.get("tools_from", []))):
            where = ("tools_from", index)
            path = self.path.parent / name
            try:
                tools = tools_from(path)
            except CallwrightError as error:
                raise self.file.fault(where, str(error)) from error
            for tool in tools:
                function = tool["function"]
                if function["name"] in self.tools.imported:
                    raise self.file.fault(
                        where, f"{name}: the tool {function['name']!r} came from another file already"
                    )
                self.tools.imported[function["name"]] = (path.stem, function, where)

    def small_talk(self, entries: Any) -> list[tuple[Phrasing, str | None]]:
        if not isinstance(entries, list):
            raise self.file.fault(("small_talk",), f"found {entries!r:.60}, expected a list")
        pairs = [(Phrasing(f"small_talk/built-in/{at}", text), said) for at, (text, said) in enumerate(pools.CHIT_CHAT)]
        for index, entry in enumerate(entries):
            at = ("small_talk", index)
            with self.file.collect():
                pair = entry if isinstance(entry, list) else [entry, None]
                if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], str | None):
                    raise self.file.fault(at, "expected a request, or [request, answer]; quote commas")
                self.tools.check_text(
                    at, pair[0], self.tools.named, "the request needs a pool of this name under `values`", False
                )
                pairs.append((Phrasing(f"small_talk/{index}", pair[0].strip()), pair[1]))
        return pairs

    def mixture(self, found: Any) -> dict[str, float]:
        for key, share in self.file.mapping(("mixture",), found, set(MIXTURE)).items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise self.file.fault(("mixture", key), f"found {share!r}, expected a share from 0 to 1")
        mixture = {**MIXTURE, **found}
        total = sum(mixture.values())
        if total <= 0:
            raise self.file.fault(("mixture",), "the shares are all 0")
        return {key: share / total for key, share in mixture.items()}
