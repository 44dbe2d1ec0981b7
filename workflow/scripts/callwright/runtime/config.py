"""The configuration: defaults filled in, every key checked, errors that name the key."""

import contextlib
import copy
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from callwright.runtime import sweep as sweeps
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import listed
from callwright.runtime.peers import PREFIX, peer_of

# Keys by their former names; each is refused with the name that it has now.
RENAMED = {"recompute": "gradient_checkpointing", "trunk_cache": "prefix_cache"}

# Folders below results/ that belong to no run.
SHARED = ("models", "suites")

TRUTH = {"true": True, "True": True, "false": False, "False": False}
NULL = {"null": None, "~": None, "": None}


@dataclass(frozen=True)
class Plan:
    """What a configuration asks for.

    - `runs`: the complete configuration of each run, by name, in the order of `runs`;
    - `everything`: these and, before them, the runs that only own what points of a sweep share;
    - `sweep`: the grid that the runs came from, or None.
    """

    runs: dict[str, dict[str, Any]]
    everything: dict[str, dict[str, Any]]
    sweep: sweeps.Sweep | None


def resolve(config: dict[str, Any], schema_path: str | Path) -> dict[str, dict[str, Any]]:
    """The runs of `plan`: one complete configuration for each, in the order of `runs`."""
    return plan(config, schema_path).runs


def plan(config: dict[str, Any], schema_path: str | Path, root: str | Path = ".") -> Plan:
    """Turn Snakemake's config into complete configurations of runs, a sweep's grid expanded.

    An entry of `runs` is a name, or a mapping of a name to the keys that differ for that run. A toolset, a tool
    encoder, what is mixed in or an adapter to begin with that is not in the working directory is looked for in `root`,
    the project's folder.
    Raises CallwrightError that names the first wrong key, what was found and what was expected.
    """
    schema = yaml.safe_load(Path(schema_path).read_text(encoding="utf-8"))
    common = copy.deepcopy({key: value for key, value in config.items() if key not in ("runs", "sweep")})

    def resolve_run(name: str, changes: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        run = fill_defaults({**merge(merge(common, changes), more), "runs": [name]}, schema)
        run = read_words(run, schema)
        check(run, schema)
        if run["sweep"] is not None:
            raise CallwrightError(f"config key runs: run {name!r} has a `sweep` of its own; it is a key for all runs")
        mixed = [(entry, "path") for entry in run["data"]["mix"]]
        for part, key in (
            (run, "toolset"), (run["evaluation"], "tool_encoder"), (run["training"], "from"), *mixed
        ):  # fmt: skip
            part[key] = _found(part.get(key), Path(root))
        check_peers(run)
        check_paths(run)
        check_lists(run)
        check_exports(run)
        run["model"] = {**run["model"], "source": _own_keys(run["model"]["source"], schema)}
        return run

    entries = []
    for entry in _run_entries(config.get("runs", ["default"])):
        for name, changes in entry.items():
            if name in dict(entries):
                raise CallwrightError(f"config key runs: the name {name!r} stands there twice")
            entries.append((name, changes or {}))
    sweep = _sweep(config.get("sweep"), schema)
    if sweep is None:
        runs = {name: resolve_run(name, changes, {}) for name, changes in entries}
        found = Plan(runs, runs, None)
    else:
        runs, described, everything = sweeps.expand(entries, sweep, resolve_run)
        found = Plan(runs, everything, described)
    models: dict[str, Any] = {}
    files: dict[str, str] = {}
    for name, run in found.everything.items():
        if name in SHARED:
            raise CallwrightError(f"config key runs: a run cannot be called {name!r}: results/{name} is all runs' own")
        for suite, path in suites(run).items():
            if path is not None and files.setdefault(suite, path) != path:
                raise CallwrightError(
                    f"config key evaluation.suites: run {name!r} gives the name {suite!r} to another file than the "
                    "runs before it: give each file a name of its own"
                )
        if models.setdefault(run["model"]["name"], run["model"]) != run["model"]:
            raise CallwrightError(
                f"config key model: run {name!r} gives the name {run['model']['name']!r} to another source "
                "than the runs before it: give each source a name of its own"
            )
    return found


def suites(run: dict[str, Any]) -> dict[str, str | None]:
    """The suites that a run is evaluated on, in order; with its file for one that is a file."""
    found: dict[str, str | None] = {}
    for entry in run["evaluation"]["suites"]:
        for name, path in entry.items() if isinstance(entry, dict) else [(entry, None)]:
            if name in found:
                raise CallwrightError(f"config key evaluation.suites: the name {name!r} stands there twice")
            found[name] = path
    return found


def _found(given: Any, root: Path) -> Any:
    """A path, or each of a list, in `root` where it is only there."""
    if isinstance(given, list):
        return [_found(one, root) for one in given]
    if isinstance(given, str) and not Path(given).exists() and (root / given).exists():
        return str(root / given)
    return given


def starts(training: dict[str, Any]) -> tuple[bool, str | None]:
    """What `training.from` says: whether to go on from the run's last adapter; the folder of another to begin with."""
    given = training["from"] if isinstance(training["from"], list) else [training["from"]]
    return "previous" in given, next((entry for entry in given if entry not in (None, "previous")), None)


def conditions(run: dict[str, Any], suite: str) -> list[str]:
    """The conditions under which a run answers a suite: those of the longest prefix of its name in `only`, or all.

    All are those of `conditions` and, after them, one for each peer.
    """
    evaluation = run["evaluation"]
    prefixes = [prefix for prefix in evaluation["only"] if suite.startswith(prefix)]
    if prefixes:
        return evaluation["only"][max(prefixes, key=len)]
    return [*evaluation["conditions"], *(PREFIX + name for name in evaluation["peers"])]


def _sweep(given: Any, schema: dict[str, Any]) -> dict[str, Any] | None:
    """The config's `sweep`, checked, its values read as their keys' types."""
    given = read_words(given, schema["properties"]["sweep"])
    check({"sweep": given}, {"properties": {"sweep": schema["properties"]["sweep"]}})
    if given is None:
        return None
    grid = {}
    for key, values in given["grid"].items():
        part = sweeps.schema_part(schema, key)
        grid[key] = read_words(values, {"items": part})
        for value in grid[key]:
            for error in jsonschema.Draft202012Validator(part).iter_errors(value):
                raise CallwrightError(f"config key sweep.grid.{key} holds {value!r}: {_expectation(error)}")
        if len({sweeps.label(value) for value in grid[key]}) < len(grid[key]):
            raise CallwrightError(f"config key sweep.grid.{key} is {grid[key]!r}: expected each value once")
    return {"name": given.get("name"), "grid": grid}


def _run_entries(runs: Any) -> list[dict[str, Any]]:
    if not isinstance(runs, list) or not runs:
        raise CallwrightError(f"config key runs is {runs!r}: expected a list of names, as in `runs: [default]`")
    entries = [{entry: {}} if isinstance(entry, str) else entry for entry in runs]
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(changes, dict | None) for changes in entry.values()):
            raise CallwrightError(f"config key runs: {entry!r} is neither a name nor `name: {{key: value, …}}`")
    return entries


def _own_keys(source: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The keys of a model source that belong to its kind; others are left over from a config file below."""
    cases = schema["properties"]["model"]["properties"]["source"]["allOf"]
    own = next(
        case["then"]["required"] for case in cases if case["if"]["properties"]["kind"]["const"] == source["kind"]
    )
    return {key: source[key] for key in ["kind", *own]}


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, mapping by mapping; lists and values are replaced. Neither is altered."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else copy.deepcopy(value)
    return merged


def fill_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """`value` with the schema's defaults where a key is absent; other values are left as they are."""
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    further = schema.get("additionalProperties")
    parts = dict.fromkeys(filled, further) if isinstance(further, dict) else {}
    for key, part in {**parts, **schema.get("properties", {})}.items():
        if key not in filled and "default" in part:
            filled[key] = copy.deepcopy(part["default"])
        if key in filled:
            filled[key] = fill_defaults(filled[key], part)
    return filled


def read_words(value: Any, schema: dict[str, Any]) -> Any:
    """`value` with each word that stands for a number, a truth value or null read as such where the schema wants one.

    YAML reads 1e-4 as text, Snakemake's `--config training='{iterations: 20}'` gives nothing but texts, and
    YAML 1.1 reads `off` as false where the schema has the word.
    """
    if isinstance(value, dict):
        parts, further = schema.get("properties", {}), schema.get("additionalProperties")
        further = further if isinstance(further, dict) else {}
        return {key: read_words(inner, parts.get(key, further)) for key, inner in value.items()}
    if isinstance(value, list):
        return [read_words(inner, schema.get("items", {})) for inner in value]
    kinds = schema.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(value, bool) and "boolean" not in kinds and "string" in kinds:
        return "on" if value else "off"
    if isinstance(value, str):
        for kind, read in (
            ("integer", int),
            ("number", float),
            ("boolean", TRUTH.__getitem__),
            ("null", NULL.__getitem__),
        ):
            if kind in kinds:
                with contextlib.suppress(ValueError, KeyError):
                    return read(value)
    return value


def check_paths(run: dict[str, Any]) -> None:
    """Raise CallwrightError when a file that the run reads is not there, or two of its keys contradict each other.

    Snakemake itself would go on with the results of another file, where it finds them.
    """
    data, source = run["data"], run["model"]["source"]
    if run["model"]["call_format"] == "own" and data["format"] != "hermes":
        raise CallwrightError(
            f"config keys model.call_format (`own`) and data.format (`{data['format']}`) ask for two forms of an "
            "answer: leave one of them out"
        )
    if data["source"] not in ("toolset", "xlam") and not data["path"]:
        raise CallwrightError(f"config key data.path is missing: `source: {data['source']}` needs a file of records")
    if "executed" in suites(run) and data["source"] != "toolset":
        raise CallwrightError(
            "config key evaluation.suites has `executed`, whose tasks are made from a toolset that the built-in world "
            f"knows, but data.source is {data['source']!r}: leave `executed` out, or use `source: toolset`"
        )
    if "abstain" in suites(run) and data["source"] != "toolset":
        raise CallwrightError(
            f"config key evaluation.suites has `abstain`, whose pairs are made from a toolset, but data.source is "
            f"{data['source']!r}: leave `abstain` out, or use `source: toolset`"
        )
    _, start = starts(run["training"])
    if isinstance(given := run["training"]["from"], list) and len(given) == 2 and "previous" not in given:
        raise CallwrightError(
            f"config key training.from is {given!r}: a training begins with one adapter; expected one folder, or "
            "[previous, FOLDER]"
        )
    if any("general" in conditions(run, suite) for suite in suites(run)) and start is None:
        raise CallwrightError(
            "config key evaluation.conditions has `general`, the adapter that training begins with, but training.from "
            "names none: give its folder, or leave `general` out"
        )
    if start is not None and Path(start).parts[:1] != ("results",) and not Path(start).is_dir():
        where = f"there is no such folder (looked in {Path.cwd()})"
        raise CallwrightError(f"config key training.from is {start!r}: {where}")
    for key, path in (
        ("toolset", run["toolset"] if data["source"] == "toolset" else None),
        *(("data.path", path) for path in listed(data["path"]) if data["source"] != "toolset"),
        ("model.source.path", source.get("path") if source["kind"] == "folder" else None),
        ("evaluation.tool_encoder", run["evaluation"].get("tool_encoder")),
        *((f"evaluation.peers.{n}.weights", peer.get("weights")) for n, peer in run["evaluation"]["peers"].items()),
        *((f"evaluation.suites ({name})", path) for name, path in suites(run).items()),
    ):
        if path and not Path(path).expanduser().exists():
            raise CallwrightError(f"config key {key} is {path!r}: there is no such file (looked in {Path.cwd()})")


def check_lists(run: dict[str, Any]) -> None:
    """Raise CallwrightError where `data.lists` cannot be what it asks for."""
    data = run["data"]
    if data["lists"] is None:
        return
    least, most = data["lists"]["tokens"]
    if least > most:
        raise CallwrightError(
            f"config key data.lists.tokens is [{least}, {most}]: expected the least before the most, [{most}, {least}]"
        )
    if used := next((key for key, value in data["augment"].items() if value), None):
        raise CallwrightError(
            f"config key data.augment.{used} is {data['augment'][used]!r}, which gives each record a list of its own, "
            "but data.lists puts several requests under one: set one of the two to null or 0"
        )


def check_exports(run: dict[str, Any]) -> None:
    """Raise CallwrightError for an export that the model's source rules out, before anything is trained."""
    source, exports = run["model"]["source"], run["package"]["exports"]
    key = {"pypi": "member", "hub": "id", "folder": "path", "file": "file"}[source["kind"]]
    needle = str(source[key]).endswith(".cact")
    if "cact" in exports and not needle:
        raise CallwrightError(
            "config key package.exports has `cact`, the file of Needle's engine, which is made from the one that the "
            f"base came from, but model.source.{key} is {source[key]!r}: take `cact` out, or train Needle "
            "(config/needle3.yaml)"
        )
    if needle and (others := [name for name in exports if name != "cact"]):
        raise CallwrightError(
            f"config key package.exports has `{others[0]}`, a form that knows no model like Needle "
            f"(model.source.{key} is {source[key]!r}): take it out; `cact` is the form for Needle's own engine"
        )


def check_peers(run: dict[str, Any]) -> None:
    """Raise CallwrightError for a peer that cannot be asked, and where a condition names one that is not there."""
    evaluation = run["evaluation"]
    peers = evaluation["peers"]
    for name, peer in peers.items():
        if not isinstance(name, str):
            raise CallwrightError(f"config key evaluation.peers has the name {name!r}: expected a word, as in `needle`")
        given = {key for key in ("engine", "weights", "url", "model") if key in peer}
        if given not in ({"engine"}, {"engine", "weights"}, {"url", "model"}):
            found = f"has {', '.join(sorted(given))}" if given else "is empty"
            raise CallwrightError(
                f"config key evaluation.peers.{name} {found}: expected `engine: needle`, with `weights` or without, or "
                "`url` and `model` of a server"
            )
    named = [("only", name) for names in evaluation["only"].values() for name in names]
    named += [("primary", evaluation["primary"][key]) for key in ("from", "to")]
    named += [("comparisons", name) for pair in evaluation["comparisons"] for name in pair]
    for key, condition in named:
        if (name := peer_of(condition)) is not None and name not in peers:
            known = f"it has {', '.join(peers)}" if peers else "it is empty"
            raise CallwrightError(
                f"config key evaluation.{key} names {condition!r}, but evaluation.peers has no {name!r} ({known})"
            )


def check(config: dict[str, Any], schema: dict[str, Any]) -> None:
    """Raise CallwrightError for the first value that breaks the schema, in the order of the keys."""
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(config), key=lambda e: list(map(str, e.path)))
    if not errors:
        return
    error = jsonschema.exceptions.best_match(errors[:1])
    key = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = next(name for name in error.instance if name not in known)
        close = difflib.get_close_matches(str(unknown), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        if RENAMED.get(unknown) in known:
            hint = f"it is called {RENAMED[unknown]!r} now"
        raise CallwrightError(f"config key {'.'.join(filter(None, [key, str(unknown)]))} is not known; {hint}")
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        raise CallwrightError(f"config key {'.'.join(filter(None, [key, missing]))} is missing")
    raise CallwrightError(f"config key {key} is {error.instance!r}: {_expectation(error)}")


def _expectation(error: jsonschema.ValidationError) -> str:
    texts = {
        "type": lambda v: f"expected {' or '.join([v] if isinstance(v, str) else v)}",
        "enum": lambda v: f"expected one of {', '.join(map(str, v))}",
        "minimum": lambda v: f"expected at least {v}",
        "maximum": lambda v: f"expected at most {v}",
        "exclusiveMinimum": lambda v: f"expected more than {v}",
        "exclusiveMaximum": lambda v: f"expected less than {v}",
        "minItems": lambda v: f"expected at least {v} entries",
        "maxItems": lambda v: f"expected at most {v} entries",
        "uniqueItems": lambda v: "expected each entry once",
        "not": lambda v: f"expected anything but {v['const']}",
        "pattern": lambda v: f"expected text of the form {v}",
    }
    if error.validator == "anyOf" and "description" in error.schema:
        return f"expected {error.schema['description']}"
    explain = texts.get(error.validator)
    return explain(error.validator_value) if explain else error.message
