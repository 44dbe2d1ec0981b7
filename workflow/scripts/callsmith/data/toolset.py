"""The toolset file: tools, and how people ask for them.

```yaml
name: home
values:                                   # pools and generators that tools share (callsmith.data.values)
  city: [Oslo, Rome, Lima]
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
        - Look up the weather in {city} {unit}
      twice:                              # requests that need two calls
        - How do {city.1} and {city.2} compare in weather right now?
      ask: {city: "Which city should I look up?"}
      missing:                            # requests that lack a required argument; the answer is its `ask`
        - What's the weather like?
      similar: [get_forecast]             # tools that could serve the same requests: never offered instead
    get_forecast:
      description: Weather forecast of a city.
      parameters:
        city: {type: string}
      phrasings:
        - How will the weather in {city} be tomorrow?
small_talk:                               # requests that no tool serves, with an answer of their own
  - [Thanks!, You're welcome!]
no_tool: [None of the available tools can do that.]
mixture: {one: 0.6, several: 0.22, no_tool: 0.09, missing: 0.09}
```

A phrasing without a mark at its end is an order ("Set an alarm for {time}"): it may be joined to others by
"and" or become "Can you set …?". With a mark it stands as it is. `a/an {slot}` takes the fitting article.
Slots that share a pool (`values: {source: currency, target: currency}`) get different values in one request.
A phrasing may fix arguments: `{say: Louder, please., arguments: {change: 10}}`. Words as in YAML 1.2: `on` and
`yes` are text. The parameters may also be one JSON Schema of type object.
"""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from callsmith.data import schema, values
from callsmith.data.records import RecordError, check_json
from callsmith.runtime.errors import CallsmithError

MIXTURE = {"one": 0.6, "several": 0.22, "no_tool": 0.09, "missing": 0.09}
GENERATED = 20  # values of a generator that are tried against the parameter's schema
NO_TOOL = ("None of the available tools can do that.",)
SLOT = re.compile(r"\{(\w+)(?:\.([12]))?\}")
KEYS = {"name", "values", "domains", "small_talk", "no_tool", "mixture"}
TOOL_KEYS = {
    "description", "parameters", "optional", "values", "phrasings", "twice", "ask", "missing", "similar",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Phrasing:
    """One way to ask. `slots`: (parameter, number of the call or 0 for all calls) in order of the text."""

    id: str
    text: str
    slots: tuple[tuple[str, int], ...]
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> bool:
        """True for an order, which has no mark at its end and may be joined to others."""
        return self.text[-1] not in ".?!"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool, its OpenAI definition, and how people ask for it."""

    name: str
    domain: str
    definition: dict[str, Any]
    pools: dict[str, values.Pool]
    phrasings: tuple[Phrasing, ...]
    twice: tuple[Phrasing, ...]
    missing: tuple[Phrasing, ...]
    ask: dict[str, str]
    similar: frozenset[str]

    @property
    def required(self) -> list[str]:
        """Names of the required parameters."""
        return self.definition["function"]["parameters"]["required"]


@dataclass(frozen=True, slots=True)
class Toolset:
    """What `load_toolset` returns."""

    name: str
    tools: tuple[Tool, ...]
    small_talk: tuple[tuple[str, str | None], ...]
    no_tool: tuple[str, ...]
    mixture: dict[str, float]

    @property
    def domains(self) -> list[str]:
        """Names of the domains, in the file's order."""
        return list(dict.fromkeys(tool.domain for tool in self.tools))


def load_toolset(path: str | Path) -> Toolset:
    """Read and check a toolset file; raises CallsmithError with file, line, key and what is wrong."""
    return _Reader(Path(path)).toolset()


class _Loader(yaml.SafeLoader):
    """YAML with the words of version 1.2: only true and false are booleans, 7:30 and 2026-01-31 are text."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in [
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$", "-+0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


class _Reader:
    """Reads one file; knows the line of every key, so that each complaint can name it."""

    def __init__(self, path: Path):
        self.path = path
        try:
            text = path.read_text(encoding="utf-8-sig")
            loader = _Loader(text)
            self.node = loader.get_single_node()
            self._reject_double_keys(self.node)
            self.root = loader.construct_document(self.node) if self.node else None
        except FileNotFoundError as error:
            raise CallsmithError(f"the toolset {path} does not exist: name a file by `toolset:`") from error
        except OSError as error:
            raise CallsmithError(f"the toolset {path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CallsmithError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
            raise CallsmithError(f"{where}: not valid YAML: {error.problem or error.context}") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise CallsmithError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from error
        self.names: set[str] = set()

    def _reject_double_keys(self, node: Any) -> None:
        open_nodes = [node]
        seen: set[int] = set()
        while open_nodes:
            node = open_nodes.pop()
            if id(node) in seen or node is None:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                open_nodes += node.value
            elif isinstance(node, yaml.MappingNode):
                keys = set()
                for key, value in node.value:
                    open_nodes.append(value)
                    if not isinstance(key, yaml.ScalarNode):
                        continue
                    if key.value in keys:
                        raise yaml.constructor.ConstructorError(
                            problem=f"the key {key.value!r} stands here twice", problem_mark=key.start_mark
                        )
                    keys.add(key.value)

    def fail(self, where: tuple[Any, ...], message: str) -> CallsmithError:
        """An error about the value at this path of keys and indices, with its line."""
        node, mark = self.node, self.node.start_mark if self.node else None
        for step in where:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == str(step)), None)
                if pair is None:
                    break
                mark, node = pair[0].start_mark, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                mark = node.start_mark
            else:
                break
        line = f", line {mark.line + 1}" if mark else ""
        key = ".".join(map(str, where))
        return CallsmithError(f"{self.path}{line}: {f'{key}: ' if key else ''}{message}")

    def mapping(self, where: tuple[Any, ...], value: Any, keys: set[str] | None = None) -> dict[str, Any]:
        """`value` if it is a mapping with text keys, all of them in `keys`."""
        if not isinstance(value, dict):
            raise self.fail(where, f"found {value!r:.60}, expected a mapping (`key: value`)")
        for key in value:
            if not isinstance(key, str):
                raise self.fail(where, f"the key {key!r} is not text; put it in quotes")
            if keys is not None and key not in keys:
                raise self.fail((*where, key), f"this key is not known; known are {', '.join(sorted(keys))}")
        return value

    def texts(self, where: tuple[Any, ...], value: Any) -> list[str]:
        """`value` if it is a list of non-empty texts."""
        if not isinstance(value, list):
            raise self.fail(where, f"found {value!r:.60}, expected a list (`- text`)")
        for index, item in enumerate(value):
            if not isinstance(item, str) or not item.strip():
                raise self.fail((*where, index), f"found {item!r:.60}, expected text; quote it if it has a colon")
        return value

    def toolset(self) -> Toolset:
        root = self.mapping((), self.root, KEYS)
        pools: dict[str, values.Pool] = {}
        for name, spec in self.mapping(("values",), root.get("values", {})).items():
            pools[name] = self.pool(("values", name), name, spec, pools)
        domains = self.mapping(("domains",), root.get("domains"))
        self.names = {
            name for key, tools in domains.items() for name in self.mapping(("domains", key), tools)
        }  # fmt: skip
        tools: dict[str, Tool] = {}
        for domain, entries in domains.items():
            for name, spec in entries.items():
                where = ("domains", domain, name)
                if name in tools:
                    raise self.fail(where, f"a tool of this name stands in the domain {tools[name].domain!r} already")
                tools[name] = self.tool(where, domain, name, spec, pools)
        if not tools:
            raise self.fail(("domains",), "there is no tool")
        return Toolset(
            name=str(root.get("name", self.path.stem)),
            tools=tuple(tools.values()),
            small_talk=tuple(self.small_talk(root.get("small_talk", []))),
            no_tool=tuple(self.texts(("no_tool",), root.get("no_tool", list(NO_TOOL)))) or NO_TOOL,
            mixture=self.mixture(root.get("mixture", {})),
        )

    def pool(self, where: tuple[Any, ...], name: str, spec: Any, named: dict[str, values.Pool]) -> values.Pool:
        try:
            return values.pool(name, spec, named)
        except values.ValueSpecError as error:
            raise self.fail(where, str(error)) from error

    def small_talk(self, entries: Any) -> list[tuple[str, str | None]]:
        if not isinstance(entries, list):
            raise self.fail(("small_talk",), f"found {entries!r:.60}, expected a list")
        pairs = []
        for index, entry in enumerate(entries):
            pair = entry if isinstance(entry, list) else [entry, None]
            if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], str | None):
                raise self.fail(("small_talk", index), "expected a request, or [request, answer]; quote commas")
            pairs.append((pair[0], pair[1]))
        return pairs

    def mixture(self, found: Any) -> dict[str, float]:
        for key, share in self.mapping(("mixture",), found, set(MIXTURE)).items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise self.fail(("mixture", key), f"found {share!r}, expected a share from 0 to 1")
        mixture = {**MIXTURE, **found}
        total = sum(mixture.values())
        if total <= 0:
            raise self.fail(("mixture",), "the shares are all 0")
        return {key: share / total for key, share in mixture.items()}

    def tool(
        self, where: tuple[Any, ...], domain: str, name: str, spec: Any, named: dict[str, values.Pool]
    ) -> Tool:  # fmt: skip
        spec = self.mapping(where, spec, TOOL_KEYS)
        if not isinstance(spec.get("description"), str):
            raise self.fail(where, "the tool has no `description` (one short sentence)")
        parameters = self.parameters(where, spec)
        pools = self.tool_pools(where, spec, parameters, named)
        phrasings = self.phrasings(where, "phrasings", spec, parameters, pools)
        if not phrasings:
            raise self.fail(where, "the tool has no `phrasings`")
        required = parameters["required"]
        for index, phrasing in enumerate(phrasings):
            given = {parameter for parameter, _ in phrasing.slots} | phrasing.arguments.keys()
            if lacking := [parameter for parameter in required if parameter not in given]:
                raise self.fail(
                    (*where, "phrasings", index),
                    f"no value for the required parameter {lacking[0]!r}: add {{{lacking[0]}}}, or move the "
                    "phrasing to `missing`",
                )
        twice = self.phrasings(where, "twice", spec, parameters, pools)
        for index, phrasing in enumerate(twice):
            if not {1, 2} <= {number for _, number in phrasing.slots}:
                raise self.fail((*where, "twice", index), "expected a slot for each call, as {city.1} and {city.2}")
            for number in (1, 2):
                given = {p for p, n in phrasing.slots if n in (0, number)} | phrasing.arguments.keys()
                if lacking := [parameter for parameter in required if parameter not in given]:
                    raise self.fail((*where, "twice", index), f"call {number} lacks the required {lacking[0]!r}")
        ask = self.mapping((*where, "ask"), spec.get("ask", {}), set(parameters["properties"]))
        missing = self.phrasings(where, "missing", spec, parameters, pools)
        for index, phrasing in enumerate(missing):
            given = {parameter for parameter, _ in phrasing.slots} | phrasing.arguments.keys()
            lacking = [parameter for parameter in required if parameter not in given]
            if not lacking:
                raise self.fail((*where, "missing", index), "this phrasing lacks no required parameter")
            if not isinstance(ask.get(lacking[0]), str):
                raise self.fail((*where, "missing", index), f"`ask` has no question for {lacking[0]!r}")
        similar = self.texts((*where, "similar"), spec.get("similar", []))
        for index, other in enumerate(similar):
            if other not in self.names:
                raise self.fail((*where, "similar", index), f"there is no tool {other!r}")
        return Tool(
            name=name,
            domain=domain,
            definition={
                "type": "function",
                "function": {"name": name, "description": spec["description"], "parameters": parameters},
            },
            pools=pools,
            phrasings=phrasings,
            twice=twice,
            missing=missing,
            ask=ask,
            similar=frozenset(similar),
        )

    def parameters(self, where: tuple[Any, ...], spec: dict[str, Any]) -> dict[str, Any]:
        at = (*where, "parameters")
        found = self.mapping(at, spec.get("parameters", {}))
        if found.get("type") == "object" and isinstance(found.get("properties"), dict):
            parameters = {"required": [], **found}
            at = (*at, "properties")
        else:
            optional = self.texts((*where, "optional"), spec.get("optional", []))
            if unknown := [name for name in optional if name not in found]:
                raise self.fail((*where, "optional"), f"there is no parameter {unknown[0]!r}")
            required = [name for name in found if name not in optional]
            parameters = {"type": "object", "properties": found, "required": required}
        for name, part in parameters["properties"].items():
            self.mapping((*at, name), part)
        try:
            check_json(parameters)
        except RecordError as error:
            raise self.fail(at, error.reason) from error
        if wrong := schema.problem(parameters):
            raise self.fail(at, f"not a JSON Schema: {wrong}")
        return parameters

    def tool_pools(
        self, where: tuple[Any, ...], spec: dict[str, Any], parameters: dict[str, Any], named: dict[str, values.Pool]
    ) -> dict[str, values.Pool]:
        """The pool of each parameter: from the tool's `values`, its enum, or the shared pool of its name."""
        own = self.mapping((*where, "values"), spec.get("values", {}), set(parameters["properties"]))
        pools = {}
        for name, part in parameters["properties"].items():
            if name in own:
                at = (*where, "values", name)
                pools[name] = self.pool(at, f"{'.'.join(where)}.{name}", own[name], named)
            elif isinstance(part.get("enum"), list):
                at = (*where, "parameters", name)
                pools[name] = self.pool(at, f"{'.'.join(where)}.{name}", part["enum"], named)
            elif name in named:
                at = ("values", name)
                pools[name] = named[name]
            else:
                continue
            rng = random.Random(0)
            for said, value in pools[name].entries or [pools[name].draw(rng) for _ in range(GENERATED)]:
                if wrong := schema.validate({name: value}, _one_by_one(parameters)):
                    raise self.fail(at, f"the value of {said!r:.40} does not fit the parameter of {where[-1]}: {wrong}")
        return pools

    def phrasings(
        self,
        where: tuple[Any, ...],
        key: str,
        spec: dict[str, Any],
        parameters: dict[str, Any],
        pools: dict[str, values.Pool],
    ) -> tuple[Phrasing, ...]:
        entries = spec.get(key, [])
        if not isinstance(entries, list):
            raise self.fail((*where, key), f"found {entries!r:.60}, expected a list of phrasings")
        read = []
        for index, entry in enumerate(entries):
            at = (*where, key, index)
            given: dict[str, Any] = {}
            if isinstance(entry, dict) and "say" in entry:
                given = self.mapping(at, entry, {"say", "arguments"}).get("arguments", {})
                given = self.mapping((*at, "arguments"), given, set(parameters["properties"]))
                if wrong := schema.validate(given, _one_by_one(parameters)):
                    raise self.fail((*at, "arguments"), wrong)
                entry = entry["say"]
            if not isinstance(entry, str) or not entry.strip():
                raise self.fail(at, f"found {entry!r:.60}, expected text; quote it if it has a colon")
            slots = tuple((match.group(1), int(match.group(2) or 0)) for match in SLOT.finditer(entry))
            if re.search(r"[{}]", SLOT.sub("", entry)):
                raise self.fail(at, f"{entry!r:.60} has a brace that is no slot; slots are written {{city}}")
            for name, number in slots:
                if name not in pools:
                    raise self.fail(
                        at,
                        f"the slot {{{name}}} has no values: it must be a parameter of the tool, with an entry under "
                        "`values`, here or at the top of the file",
                    )
                if number and key != "twice":
                    raise self.fail(at, f"{{{name}.{number}}} is for requests under `twice`")
            read.append(Phrasing(f"{where[-1]}/{key}/{index}", entry.strip(), slots, given))
        return tuple(read)


def _one_by_one(parameters: dict[str, Any]) -> dict[str, Any]:
    """The schema that checks some of the arguments, whichever they are."""
    return {"type": "object", "properties": parameters["properties"], "$defs": parameters.get("$defs", {})}
