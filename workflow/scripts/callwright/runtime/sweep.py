"""A grid of settings as named runs, and which runs share data, base answers and the frozen prefix."""

import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_json

Run = dict[str, Any]
# What each shared product depends on: runs that agree on these keys share it.
DATA = ("model", "toolset", "corrections", "data", "split")
BASE = (*DATA, "evaluation")
PREFIX = tuple(
    f"training.{key}"
    for key in (
        "iterations", "batch_size", "accumulation", "examples", "lora.kind", "lora.layers", "lora.projections",
        "lora.dropout", "gradient_checkpointing", "prefix_cache", "share_prefix", "validate_every",
        "validation_batches",
    )
)  # fmt: skip
LONGEST_LABEL = 40


@dataclass(frozen=True)
class Sweep:
    """A grid: `keys` are the dotted config keys in order, `points` the runs with the values of these keys."""

    name: str
    keys: tuple[str, ...]
    points: dict[str, dict[str, Any]]


def keys_of(kind: str, run: Run) -> tuple[str, ...]:
    """The dotted config keys that the product `kind` (`data`, `base` or `frozen_prefix`) of `run` depends on."""
    if kind != "frozen_prefix":
        return DATA if kind == "data" else BASE
    drawn = run["training"]["examples"] is not None  # then the seed chooses the records
    return (*DATA, *PREFIX, *(["training.seed"] if drawn else []))


def get(run: Mapping[str, Any], dotted: str) -> Any:
    """The value of a dotted key."""
    value: Any = run
    for part in dotted.split("."):
        value = value[part]
    return value


def as_changes(values: Mapping[str, Any]) -> Run:
    """`{"training.lora.rank": 4}` as `{"training": {"lora": {"rank": 4}}}`."""
    changes: Run = {}
    for dotted, value in values.items():
        *path, last = dotted.split(".")
        at = changes
        for part in path:
            at = at.setdefault(part, {})
        at[last] = value
    return changes


def expand(
    entries: list[tuple[str, Run]], sweep: Mapping[str, Any], resolve: Callable[[str, Run, Run], Run]
) -> tuple[dict[str, Run], Sweep, dict[str, Run]]:
    """The runs of a grid: (the points, the sweep, all runs with those that only own what points share).

    `entries` are the config's `runs`, `sweep` its checked `sweep`; `resolve(name, changes, more)` completes a run's
    configuration. An owner's name and settings are those of a point without the keys that do not matter for what it
    owns, so a new value in the grid never changes who owns what.
    """
    grid = sweep["grid"]
    labels = _labels(grid)
    points: dict[str, Run] = {}
    values_of: dict[str, dict[str, Any]] = {}
    everything: dict[str, Run] = {}
    for entry, changes in entries:
        own: dict[str, Run] = {}
        owners: dict[str, Run] = {}
        for values in _product(grid):
            name = _name(entry, values, labels)
            if name in points or name in own:
                raise CallwrightError(f"config key sweep.grid: two of its points would both have the name {name!r}")
            own[name] = resolve(name, changes, as_changes(values))
            values_of[name] = values
            for kind in ("data", "base", "frozen_prefix"):
                matter = keys_of(kind, own[name])
                part = {key: value for key, value in values.items() if any(_within(key, other) for other in matter)}
                owner = _name(entry, part, labels)
                if owner not in owners and len(part) < len(values):
                    owners[owner] = resolve(owner, changes, as_changes(part))
        # those with fewer keys first: they own most
        everything |= dict(sorted(owners.items(), key=lambda item: item[0].count(".")))
        everything |= own
        points |= own
    return points, Sweep(sweep["name"] or entries[0][0], tuple(grid), values_of), everything


def owners(kind: str, runs: Mapping[str, Run]) -> dict[str, str]:
    """For each run the first one, in the runs' order, that the product `kind` is equal for."""
    first: dict[str, str] = {}
    return {
        name: first.setdefault(sha256_json([get(run, key) for key in keys_of(kind, run)]), name)
        for name, run in runs.items()
    }


def schema_part(schema: Mapping[str, Any], dotted: str) -> Mapping[str, Any]:
    """The part of the schema that describes a dotted key; raises CallwrightError for one that it does not know."""
    known = dict(_leaves(schema))
    if dotted.split(".")[0] in ("runs", "sweep", "device"):
        raise CallwrightError(f"config key sweep.grid.{dotted}: this key is the same for all runs and cannot be swept")
    if dotted not in known:
        close = difflib.get_close_matches(dotted, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "expected a dotted config key, as in `training.lora.rank`"
        raise CallwrightError(f"config key sweep.grid.{dotted} is not known; {hint}")
    return known[dotted]


def _leaves(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, part in schema.get("properties", {}).items():
        if "properties" in part:
            yield from _leaves(part, f"{prefix}{key}.")
        else:
            yield prefix + key, part


def _within(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


def _product(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _labels(grid: Mapping[str, Any]) -> dict[str, str]:
    """The shortest ends of the dotted keys that tell them apart: `rank` for `training.lora.rank`."""
    labels = {}
    for key in grid:
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            end = parts[-count:]
            if sum(other.split(".")[-count:] == end for other in grid) == 1:
                break
        labels[key] = "-".join(end)
    return labels


def _name(entry: str, values: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """`<run>.rank-8.seed-1`."""
    return ".".join([entry, *(f"{labels[key]}-{label(value)}" for key, value in values.items())])


def label(value: Any) -> str:
    """A value as part of a run's name: letters, digits, `.`, `_` and `-`; a long one ends in a hash."""
    if isinstance(value, list):
        text = "-".join(map(label, value))
    elif isinstance(value, bool) or value is None:
        text = {True: "true", False: "false", None: "null"}[value]
    else:
        text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    text = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 9]}-{sha256_json(value)[:8]}"
