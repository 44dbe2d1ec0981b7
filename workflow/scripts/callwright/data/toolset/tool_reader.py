"""One tool of a toolset file: its parameters, the values of its slots, and how people ask for it, all checked."""

import difflib
import random
import re
from collections.abc import Mapping
from typing import Any

from callwright.data import schema
from callwright.data.records import RecordError, check_json
from callwright.data.toolset import constraints, plain_phrasings, values
from callwright.data.toolset.parameter_values import guesses, recursive
from callwright.data.toolset.phrasing import OPTIONAL, SLOT, Phrasing, Tool
from callwright.data.toolset.yaml_lines import Document, YamlFault

Where = tuple[Any, ...]
GENERATED = 20  # values of a generator that are tried against the parameter's schema
TOOL_KEYS = {
    "constraints", "description", "parameters", "optional", "values", "phrasings", "indirect", "twice", "ask",
    "missing", "similar",
}  # fmt: skip


class RecursiveParameter(YamlFault):
    """A tool came without values for a required parameter whose schema contains itself: there are none to guess."""


class ToolReader:
    """Reads the tools of one file; faults go into `file.faults`.

    `named` are the shared pools, `broken` the names of those whose faults are told already, `imported` the
    tools of other files: name -> (file's stem, function object, place in the toolset file), `names` all
    tools. `plain` collects the names of tools whose phrasings were made from their descriptions.
    """

    def __init__(self, file: Document, named: dict[str, values.Pool]):
        self.file, self.named = file, named
        self.broken: set[str] = set()
        self.imported: dict[str, tuple[str, dict[str, Any], Where]] = {}
        self.names: set[str] = set()
        self.told: set[Where] = set()  # shared pools that were found not to fit
        self.plain: list[str] = []
        self.stand_ins: list[str] = []  # "tool.parameter" of those whose values say nothing of what people say

    def pool(self, where: Where, name: str, spec: Any) -> values.Pool:
        """A pool from its specification; raises YamlFault."""
        try:
            return values.pool(name, spec, self.named)
        except values.ValueSpecError as error:
            raise self.file.fault(where, str(error)) from error

    def tool(self, where: Where, domain: str, name: str, spec: Any) -> Tool:
        """The tool under `where`; raises YamlFault where nothing can be made of it."""
        spec = self.file.mapping(where, spec)
        for key in spec:
            if key not in TOOL_KEYS:
                message = f"this key is not known; known are {', '.join(sorted(TOOL_KEYS))}"
                self.file.faults.append(self.file.fault((*where, key), message))
        function = self.imported[name][1] if name in self.imported else None
        if self.imported and not function and spec.keys().isdisjoint({"description", "parameters"}):
            near = difflib.get_close_matches(name, self.imported, n=1)
            raise self.file.fault(
                where,
                f"the files of `tools_from` have no such tool{f', but {near[0]!r}' if near else ''}; one that is "
                "defined here needs a `description` and, where it takes any, `parameters`",
            )
        description = spec.get("description", function.get("description") if function else None)
        if not isinstance(description, str) and not function:
            self.file.faults.append(self.file.fault(where, "the tool has no `description` (one short sentence)"))
        if function and "parameters" not in spec:
            parameters = {"type": "object", "required": [], "properties": {}, **function["parameters"]}
        else:
            parameters = self.parameters(where, spec)
        slots = self.tool_pools(where, name, spec, parameters, guess=function is not None)
        if function and not spec.get("phrasings"):
            spec = {**self.plain_phrasings(where, name, description, parameters, slots), **spec}
        ask = None
        with self.file.collect():
            ask = self.file.mapping((*where, "ask"), spec.get("ask", {}), set(parameters["properties"]))
        phrasings = self.phrasings(where, name, "phrasings", spec, parameters, slots)
        if not spec.get("phrasings"):
            self.file.faults.append(self.file.fault(where, "the tool has no `phrasings`: write how people ask for it"))
        definition = {"name": name, "description": description or "", "parameters": parameters}
        similar: list[str] = []
        with self.file.collect():
            similar = self.file.texts((*where, "similar"), spec.get("similar", []))
            for index, other in enumerate(similar):
                if other not in self.names:
                    self.file.faults.append(self.file.fault((*where, "similar", index), f"there is no tool {other!r}"))
        return Tool(
            name=name,
            domain=domain,
            definition={"type": "function", "function": definition},
            pools=slots,
            phrasings=phrasings,
            twice=self.phrasings(where, name, "twice", spec, parameters, slots),
            indirect=self.phrasings(where, name, "indirect", spec, parameters, slots),
            missing=self.phrasings(where, name, "missing", spec, parameters, slots, ask),
            ask=ask or {},
            similar=frozenset(similar),
            constraints=self.constraints(where, spec, parameters["properties"], guess=function is not None),
        )

    def constraints(
        self, where: Where, spec: dict[str, Any], properties: dict[str, Any], guess: bool
    ) -> tuple[constraints.ArgumentConstraint, ...]:
        """What must hold between arguments: the tool's `constraints`; with `guess`, else what the names tell."""
        if "constraints" not in spec:
            return tuple(constraints.guess(properties)) if guess else ()
        read = []
        with self.file.collect():
            for index, text in enumerate(self.file.texts((*where, "constraints"), spec["constraints"])):
                with self.file.collect():
                    try:
                        read.append(constraints.read(text, set(properties)))
                    except ValueError as error:
                        raise self.file.fault((*where, "constraints", index), str(error)) from error
        return tuple(read)

    def plain_phrasings(
        self,
        where: Where,
        name: str,
        description: str | None,
        parameters: dict[str, Any],
        slots: dict[str, values.Pool],
    ) -> dict[str, Any]:
        """Phrasings from the description of a tool that came without any."""
        lacking = [key for key in parameters["required"] if key not in slots]
        if lacking:
            stem = self.imported[name][0] if where[0] == "tools_from" else where[1]
            itself = recursive(parameters["properties"].get(lacking[0]))
            fault = self.file.fault(
                where,
                f"the tool {name!r} needs values for its parameter {lacking[0]!r}, "
                f"{'which is recursive, ' if itself else ''}to make requests of: write "
                f"`domains: {{{stem}: {{{name}: {{values: {{{lacking[0]}: [some, values]}}}}}}}}`",
            )
            raise RecursiveParameter(fault.line, fault.message) if itself else fault
        self.plain.append(name)
        return plain_phrasings.phrasings(
            name, {"description": description, "parameters": parameters}, set(slots), self.names - {name}
        )

    def parameters(self, where: Where, spec: dict[str, Any]) -> dict[str, Any]:
        at = (*where, "parameters")
        found = self.file.mapping(at, spec.get("parameters", {}))
        if found.get("type") == "object" and isinstance(found.get("properties"), dict):
            parameters = {"required": [], **found}
            at = (*at, "properties")
        else:
            optional = self.file.texts((*where, "optional"), spec.get("optional", []))
            if unknown := [name for name in optional if name not in found]:
                raise self.file.fault((*where, "optional"), f"there is no parameter {unknown[0]!r}")
            required = [name for name in found if name not in optional]
            parameters = {"type": "object", "properties": found, "required": required}
        for name, part in parameters["properties"].items():
            self.file.mapping((*at, name), part)
        try:
            check_json(parameters)
        except RecordError as error:
            raise self.file.fault(at, error.reason) from error
        if wrong := schema.problem(parameters):
            bad = next((name for name, part in parameters["properties"].items() if schema.problem(part)), None)
            raise self.file.fault((*at, bad) if bad else at, f"not a JSON Schema: {wrong}")
        return parameters

    def tool_pools(
        self, where: Where, tool: str, spec: dict[str, Any], parameters: dict[str, Any], guess: bool
    ) -> dict[str, values.Pool]:
        """The pool of each parameter: from the tool's `values`, the shared pool of its name, or its enum.

        An enum's own values are taken where the shared pool has others, or the file defines none. With `guess` also
        what `parameter_values.guesses` finds for the parameter.
        """
        own, readable = {}, False
        with self.file.collect():
            own = self.file.mapping((*where, "values"), spec.get("values", {}), set(parameters["properties"]))
            readable = True
        found = {}
        for name, part in parameters["properties"].items():
            key = f"{'.'.join(map(str, where))}.{name}"
            if name in own:
                at, wanted = (*where, "values", name), own[name]
            elif isinstance(part.get("enum"), list) and not guess and not self.says_enum(name, parameters):
                at, wanted = (*where, "parameters", name), part["enum"]
            elif name in self.named and not guess:
                at, wanted = ("values", name) if name in (self.file.value.get("values") or {}) else where, name
            elif guess:
                if (fitting := self.guessed(tool, key, name, part, parameters)) is not None:
                    found[name] = fitting
                continue
            else:
                if name in self.broken or not readable:
                    found[name] = _stand_in(name)
                continue
            found[name] = _stand_in(name)
            if at in self.told or (isinstance(wanted, str) and wanted in self.broken):
                continue
            with self.file.collect():
                real = self.pool(at, key, wanted)
                if wrong := misfit(name, real, parameters):
                    self.told.add(at)
                    raise self.file.fault(
                        at, f"the value of {wrong[0]!r:.40} does not fit the parameter of {tool}: {wrong[1]}"
                    )
                found[name] = real
        return found

    def says_enum(self, name: str, parameters: dict[str, Any]) -> bool:
        """Whether the file itself defines a shared pool of this parameter's name that has the enum's values alone."""
        declared = name in (self.file.value.get("values") or {}) and name in self.named
        return declared and misfit(name, self.named[name], parameters) is None

    def guessed(
        self, tool: str, key: str, name: str, part: dict[str, Any], parameters: dict[str, Any]
    ) -> values.Pool | None:
        """The first pool that may be meant for this parameter and whose values fit it."""
        shared = [name] if name in self.named else []
        found = guesses(name, part)
        for wanted, source in [*((name, "name") for name in shared), *((guess.spec, guess.source) for guess in found)]:
            try:
                pool = values.pool(key, wanted, self.named)
            except values.ValueSpecError:
                continue
            if misfit(name, pool, parameters) is None:
                if source == "stand-in":
                    self.stand_ins.append(f"{tool}.{name}")
                return pool
        return None

    def phrasings(
        self,
        where: Where,
        tool: str,
        key: str,
        spec: dict[str, Any],
        parameters: dict[str, Any],
        slots: dict[str, values.Pool],
        ask: dict[str, Any] | None = None,
    ) -> tuple[Phrasing, ...]:
        """The phrasings under `key`: phrasings, indirect, twice, or missing, which takes the questions of `ask`."""
        entries = spec.get(key, [])
        read: list[Phrasing] = []
        with self.file.collect():
            if not isinstance(entries, list):
                raise self.file.fault((*where, key), f"found {entries!r:.60}, expected a list of phrasings")
            for index, entry in enumerate(entries):
                with self.file.collect():
                    at = (*where, key, index)
                    phrasing = self.phrasing(at, entry, f"{tool}/{key}/{index}", parameters, slots, key == "twice")
                    self.check_arguments(at, key, phrasing, parameters["required"], ask)
                    read.append(phrasing)
        return tuple(read)

    def phrasing(
        self, at: Where, entry: Any, name: str, parameters: dict[str, Any], slots: dict[str, values.Pool], twice: bool
    ) -> Phrasing:  # fmt: skip
        given: dict[str, Any] = {}
        if isinstance(entry, dict) and "say" in entry:
            given = self.file.mapping(at, entry, {"say", "arguments"}).get("arguments", {})
            given = self.file.mapping((*at, "arguments"), given, set(parameters["properties"]))
            if wrong := schema.validate(given, _one_by_one(parameters)):
                raise self.file.fault((*at, "arguments"), wrong)
            entry = entry["say"]
        if not isinstance(entry, str) or not entry.strip():
            raise self.file.fault(at, f"found {entry!r:.60}, expected text; quote it if it has a colon")
        remedy = "it must be a parameter of the tool, with an entry under `values`, here or at the top of the file"
        self.check_text(at, entry, slots, remedy, twice)
        return Phrasing(name, entry.strip(), given)

    def check_text(self, at: Where, text: str, slots: Mapping[str, Any], remedy: str, twice: bool) -> None:
        """Raise YamlFault for a brace or bracket that is none, and for a slot without values."""
        if re.search(r"[{}]", SLOT.sub("", text)):
            raise self.file.fault(at, f"{text!r:.60} has a brace that is no slot; slots are written {{city}}")
        if re.search(r"[\[\]]", OPTIONAL.sub("", text)) or not OPTIONAL.sub("", text).strip():
            raise self.file.fault(
                at,
                f"{text!r:.60} has a square bracket without its partner, or nothing outside of them: [ and ] enclose "
                "what may be left out",
            )
        for match in SLOT.finditer(text):
            if match.group(1) not in slots:
                raise self.file.fault(at, f"the slot {{{match.group(1)}}} has no values: {remedy}")
            if match.group(2) and not twice:
                raise self.file.fault(at, f"{match.group()} is for requests under `twice`")
            if match.group(2) not in (None, "1", "2"):
                raise self.file.fault(at, f"{match.group()}: the calls of a request under `twice` are 1 and 2")

    def check_arguments(
        self, at: Where, key: str, phrasing: Phrasing, required: list[str], ask: dict[str, Any] | None
    ) -> None:  # fmt: skip
        """Do the calls that the phrasing asks for have their required arguments, or lack one that can be asked for?"""
        certain = phrasing.certain
        if key in ("phrasings", "indirect"):
            given = {name for name, _ in certain} | phrasing.arguments.keys()
            if lacking := [name for name in required if name not in given]:
                raise self.file.fault(
                    at,
                    f"no value for the required parameter {lacking[0]!r}: add {{{lacking[0]}}}, or move the "
                    "phrasing to `missing`",
                )
        elif key == "twice":
            if not {1, 2} <= {number for _, number in certain}:
                raise self.file.fault(at, "expected a slot for each call, as {city.1} and {city.2}")
            for number in (1, 2):
                given = {name for name, call in certain if call in (0, number)} | phrasing.arguments.keys()
                if lacking := [name for name in required if name not in given]:
                    raise self.file.fault(at, f"call {number} lacks the required {lacking[0]!r}")
        else:
            given = {name for name, _ in phrasing.slots} | phrasing.arguments.keys()
            lacking = [name for name in required if name not in given]
            if not lacking:
                raise self.file.fault(at, "this phrasing lacks no required parameter")
            if ask is not None and not isinstance(ask.get(lacking[0]), str):
                raise self.file.fault(at, f"`ask` has no question for {lacking[0]!r}")


def _stand_in(name: str) -> values.Pool:
    """A pool in the place of one that is at fault, so that the slots that use it are not faults of their own."""
    return values.Pool(name, lambda rng: ("", ""))


def misfit(name: str, pool: values.Pool, parameters: dict[str, Any]) -> tuple[str, str] | None:
    """A value of the pool that the parameter's schema does not allow, as said, and why; None when all fit."""
    rng = random.Random(0)
    for said, value in pool.entries or [pool.draw(rng) for _ in range(GENERATED)]:
        if wrong := schema.validate({name: value}, _one_by_one(parameters)):
            return said, wrong
    return None


def _one_by_one(parameters: dict[str, Any]) -> dict[str, Any]:
    """The schema that checks some of the arguments, whichever they are."""
    return {"type": "object", "properties": parameters["properties"], "$defs": parameters.get("$defs", {})}
