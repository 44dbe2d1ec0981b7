"""How much results differ from seed to seed: runs of a sweep that differ in nothing else, summed up."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

SEEDS = ("training.seed", "data.seed", "split.seed")
LOSSES = ("final_loss", "best_validation_loss")


def spread(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`{"seeds": {"keys", "others", "groups"}}` of a sweep's rows (`sweep.collect`); {} where no seed is swept.

    A group is the runs with equal values of the other keys: `{"settings", "runs", "metrics"}`. Metrics are losses
    (nats per trained token), `<suite>_<condition>_ast` and `<suite>_gain` (from 0 to 1), each with `mean`, `sd` (the
    sample's standard deviation; None of one run), `min` and `max`. Only what all runs of the group have is there.
    """
    seeds = [key for key in keys if key in SEEDS]
    if not seeds:
        return {}
    others = [key for key in keys if key not in SEEDS]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str([row["settings"][key] for key in others]), []).append(row)
    return {
        "seeds": {
            "keys": seeds,
            "others": others,
            "groups": [
                {
                    "settings": {key: found[0]["settings"][key] for key in others},
                    "runs": len(found),
                    "metrics": _metrics(found),
                }
                for found in groups.values()
            ],
        }
    }


def as_rows(seeds: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups as flat rows: settings, `runs`, and `<metric>_mean`, `_sd`, `_min`, `_max`."""
    return [
        {
            **group["settings"],
            "runs": group["runs"],
            **{f"{name}_{part}": value for name, of in group["metrics"].items() for part, value in of.items()},
        }
        for group in seeds["groups"]
    ]


def _metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    measured = [_values(row) for row in rows]
    names = [name for name in measured[0] if all(of.get(name) is not None for of in measured)]
    return {name: _summed_up([of[name] for of in measured]) for name in names}


def _values(row: Mapping[str, Any]) -> dict[str, float | None]:
    answered = {
        f"{suite}_{condition}_ast": found["ast"]
        for suite, by_condition in row["evaluation"].items()
        for condition, found in by_condition.items()
    }
    gains = {f"{suite}_gain": gain for suite, gain in row["gains"].items()}
    return {**{key: row[key] for key in LOSSES}, **answered, **gains}


def _summed_up(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }
