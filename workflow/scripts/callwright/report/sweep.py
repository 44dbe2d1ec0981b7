"""A sweep's points side by side: rows, tables and one figure, from the points' summaries."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callwright.report.drawing import BLUE, GREEN, GREY, ORANGE, PINK, STYLE
from callwright.report.html import percent
from callwright.report.scaling import correct, tuned
from callwright.report.seeds import SEEDS, spread
from callwright.runtime.logs import duration

EXAMPLES = "training.examples"
TITLES = {
    EXAMPLES: "training records",
    "training.seed": "seed",
    "data.seed": "seed of the data",
    "split.seed": "seed of the split",
    "training.iterations": "optimizer steps",
    "training.batch_size": "records per batch",
    "training.learning_rate": "peak learning rate",
    "training.lora.rank": "rank of the update",
    "training.lora.layers": "adapted blocks",
    "training.lora.scale": "scale of the update",
}
TRAINING = (
    "iterations", "initial_loss", "final_loss", "initial_validation_loss", "final_validation_loss",
    "best_validation_loss", "best_iteration", "trained_tokens", "tokens_per_second", "peak_memory_gb", "seconds",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PINK, "#56B4E9", "#E69F00")
MARKERS = "osD^vP"

Row = dict[str, Any]


def collect(
    name: str, keys: Sequence[str], points: Mapping[str, Mapping[str, Any]], summaries: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """`sweep.json`: `name`, `keys`, a row for each of `points`, and where a seed was swept `seeds` (`seeds.spread`).

    points: the values of the swept keys by run. summaries: each run's `summary.json`.
    A row has `run`, `settings` (the values), `records` (how many were trained on), what `TRAINING` names (losses in
    nats per trained token, GB, seconds), `evaluation[suite][condition]` with `n`, `ast` and `ast_ci95`, and
    `gains[suite]`, the difference that the primary comparison's conditions make there.
    """
    rows = []
    for run, values in points.items():
        summary = summaries[run]
        records = summary["config"]["training"]["examples"]
        rows.append(
            {
                "run": run,
                "settings": {key: values[key] for key in keys},
                "records": summary["data"]["sizes"]["train"] if records is None else records,
                **{key: summary["training"].get(key) for key in TRAINING},
                "evaluation": {
                    suite: {c: {key: found[key] for key in ("n", "ast", "ast_ci95")} for c, found in by.items()}
                    for suite, by in summary["evaluation"].items()
                },
                "gains": _gains(summary),
            }
        )
    return {"name": name, "keys": list(keys), "points": rows, **spread(keys, rows)}


def _gains(summary: Mapping[str, Any]) -> dict[str, float]:
    """The difference between the primary comparison's conditions, by suite."""
    aim = summary["primary"]
    return {
        found["suite"]: found["difference"]
        for found in summary["comparisons"]
        if (found["from"], found["to"]) == (aim["from"], aim["to"])
    }


def as_csv(sweep: Mapping[str, Any]) -> str:
    """A line for each point, the evaluation as columns `<suite>_<condition>_ast` with its interval."""
    lines = []
    for row in sweep["points"]:
        line = {"run": row["run"], **row["settings"], "records": row["records"], **{key: row[key] for key in TRAINING}}
        for suite, by_condition in row["evaluation"].items():
            for condition, found in by_condition.items():
                low, high = found["ast_ci95"]
                at = f"{suite}_{condition}"
                line |= {f"{at}_n": found["n"], f"{at}_ast": found["ast"], f"{at}_low": low, f"{at}_high": high}
        lines.append(line)
    return written(lines)


def written(lines: Sequence[Mapping[str, Any]]) -> str:
    """Rows of named values as CSV, the columns in the order in which they first occur."""
    columns = list(dict.fromkeys(column for line in lines for column in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def as_markdown(sweep: Mapping[str, Any]) -> str:
    """The table for people: settings, losses, correct answers with 95 % Wilson intervals, speed, memory and time."""
    answered = list(dict.fromkeys((s, c) for row in sweep["points"] for s, by in row["evaluation"].items() for c in by))
    head = [TITLES.get(key, key) for key in sweep["keys"]]
    head += ["training loss", "best validation loss", *(f"{suite}, {condition}" for suite, condition in answered)]
    head += ["tokens/s", "peak memory (GB)", "training time"]
    lines = [head, ["---"] * len(head)]
    for row in sweep["points"]:
        line = [_text(row["settings"][key]) for key in sweep["keys"]]
        line += [f"{row['final_loss']:.3f}", f"{row['best_validation_loss']:.3f}"]
        for suite, condition in answered:
            found = row["evaluation"].get(suite, {}).get(condition)
            line.append("" if found is None else _share(found))
        line += [f"{row['tokens_per_second']:.0f}", f"{row['peak_memory_gb']:.2f}", duration(row["seconds"])]
        lines.append(line)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"# Sweep {sweep['name']}\n\nLosses in nats per trained token. Answers: share of correct ones (AST match) "
        f"with its 95 % Wilson interval.\n\n{table}\n{_seeds_text(sweep)}"
    )


def _seeds_text(sweep: Mapping[str, Any]) -> str:
    """The second table: each combination of the other keys, summed up over its seeds; nothing where no seed varies."""
    if "seeds" not in sweep:
        return ""
    others, groups = sweep["seeds"]["others"], sweep["seeds"]["groups"]
    names = list(dict.fromkeys(name for group in groups for name in group["metrics"]))
    head = [*(TITLES.get(key, key) for key in others), "runs", *(name.replace("_", " ") for name in names)]
    lines = [head, ["---"] * len(head)]
    for group in groups:
        cells = [_spread_text(name, group["metrics"].get(name)) for name in names]
        lines.append([*(_text(group["settings"][key]) for key in others), str(group["runs"]), *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    swept = " and ".join(TITLES.get(key, key) for key in sweep["seeds"]["keys"])
    return (
        f"\n## Over the values of {swept}\n\nMean ± standard deviation (lowest to highest) of the runs that differ in "
        f"nothing else; a spread of trainings, which the intervals above know nothing of.\n\n{table}\n"
    )


def _spread_text(name: str, found: Mapping[str, Any] | None) -> str:
    """`41.0 ± 2.1 % (39.0 to 43.0)`; losses with three digits, gains in points."""
    if found is None:
        return ""
    share, gain = name.endswith("_ast"), name.endswith("_gain")
    factor, digits = (100, 1) if share or gain else (1, 3)
    sign = "+" if gain else ""
    mean, low, high = (f"{factor * found[key]:{sign}.{digits}f}" for key in ("mean", "min", "max"))
    sd = "" if found["sd"] is None else f" ± {factor * found['sd']:.{digits}f}"
    unit = " %" if share else " points" if gain else ""
    return f"{mean}{sd}{unit} ({low} to {high})"


def draw(sweep: Mapping[str, Any]) -> Figure:
    """Correct answers by suite, and the validation loss, against the swept key; see `axis` for which one that is.

    Each combination of the other keys is a line through the means of its seeds. Seeds are points, with a bar
    from the lowest to the highest; where there is one seed only, the bar is the 95 % Wilson interval. Where nothing
    but a seed varies, each run is a point with its interval, and line and band are mean and standard deviation.
    """
    rows, x_key = sweep["points"], axis(sweep)
    suites = [suite for suite, by in rows[0]["evaluation"].items() if tuned(by)]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        others = {key: value for key, value in row["settings"].items() if key not in (x_key, *SEEDS)}
        title = ", ".join(f"{TITLES.get(key, key)} {_text(value)}" for key, value in others.items())
        lines.setdefault(title, []).append(row)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(suites) + 1, figsize=(1 + 3.4 * (len(suites) + 1), 3.4), squeeze=False, layout="constrained"
        )
        places, names = _places(x_key, rows)
        for axes, suite in zip(panels[0], suites, strict=False):
            _panel(axes, lines, places, lambda row, suite=suite: correct(row["evaluation"][suite]), x_key in SEEDS)
            base = rows[0]["evaluation"][suite].get("base")
            if base is not None:
                axes.axhline(100 * base["ast"], color=GREY, linestyle="--", linewidth=1, label="base model")
            n = rows[0]["evaluation"][suite][tuned(rows[0]["evaluation"][suite])]["n"]
            axes.set(title=f"{suite} (n = {n})", ylabel="correct answers, AST match (%)", ylim=(0, None))
        _panel(panels[0][-1], lines, places, lambda row: (row["best_validation_loss"], None), x_key in SEEDS)
        panels[0][-1].set(title="validation", ylabel="best loss (nats per trained token)")
        numbers = np.array(sorted(set(places.values())))
        for axes in panels[0]:
            if len(numbers) > 1 and not names and numbers[0] > 0 and numbers[-1] / numbers[0] >= 4:
                axes.set_xscale("log")
            axes.set_xticks(numbers, names or [f"{number:g}" for number in numbers])
            axes.minorticks_off()
            axes.set_xlabel(TITLES.get(x_key, x_key))
        panels[0][0].legend(fontsize=7)
    return figure


def axis(sweep: Mapping[str, Any]) -> str:
    """The swept key that lies along the figure: data size, else the first one with several numbers, seeds last."""
    varied = [key for key in sweep["keys"] if len({str(row["settings"][key]) for row in sweep["points"]}) > 1]
    if EXAMPLES in varied:
        return EXAMPLES
    others = [key for key in varied if key not in SEEDS]
    numeric = [key for key in others if all(_is_number(row["settings"][key]) for row in sweep["points"])]
    return next(iter([*numeric, *others, *varied, *sweep["keys"]]))


def _panel(
    axes: Axes, lines: Mapping[str, list[Row]], places: Mapping[str, float], value: Any, seeds: bool = False
) -> None:
    """A line with points and bars for each entry of `lines`; `value(row)` is (y, its interval or None).

    seeds: what lies along the axis is a seed; no line leads from one to the next.
    """
    for number, (title, rows) in enumerate(lines.items()):
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        by_x: dict[float, list[Any]] = {}
        for row in rows:
            by_x.setdefault(places[row["run"]], []).append(value(row))
        xs = sorted(by_x)
        means = [float(np.mean([y for y, _ in by_x[x]])) for x in xs]
        if seeds:
            every = [value(row)[0] for row in rows]
            mean, sd = float(np.mean(every)), float(np.std(every, ddof=1)) if len(every) > 1 else 0.0
            axes.axhline(mean, linewidth=1.3, color=style["color"])
            axes.axhspan(mean - sd, mean + sd, color=style["color"], alpha=0.15, linewidth=0)
        else:
            axes.plot(xs, means, linewidth=1.3, color=style["color"])
        for x in xs:
            found = by_x[x]
            ys = [y for y, _ in found]
            axes.plot([x] * len(ys), ys, linestyle="", markersize=4, **style)
            bar = (min(ys), max(ys)) if len(ys) > 1 else found[0][1]
            if bar is not None:
                axes.vlines(x, *bar, color=style["color"], linewidth=1, alpha=0.6)
        axes.plot([], [], linewidth=1.3, markersize=4, label=title or "fine-tuned", **style)  # for the legend


def _places(x_key: str, rows: Sequence[Row]) -> tuple[dict[str, float], list[str]]:
    """Where each run lies along the axis, and the ticks' names where the values are words."""
    if x_key == EXAMPLES:
        return {row["run"]: float(row["records"]) for row in rows}, []
    values = [row["settings"][x_key] for row in rows]
    if all(map(_is_number, values)):
        return {row["run"]: float(value) for row, value in zip(rows, values, strict=True)}, []
    names = list(dict.fromkeys(map(_text, values)))
    return {row["run"]: float(names.index(_text(v))) for row, v in zip(rows, values, strict=True)}, names


def _share(found: Mapping[str, Any]) -> str:
    low, high = (100 * bound for bound in found["ast_ci95"])
    return f"{percent(found['ast'])} [{low:.1f}, {high:.1f}]"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return "all" if value is None else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
