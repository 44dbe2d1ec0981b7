"""How correct answers and loss grow with the training data, from a sweep over `training.examples`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from callwright.report.drawing import AMBER, BLUE, GREEN, GREY, ORANGE, PINK, STYLE, WIDTH, plt

EXAMPLES, SEED = "training.examples", "training.seed"
LINES = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "D", ":"), (PINK, "^", "-."), (AMBER, "v", "-"))
FITTED = 3  # sizes from which on a power law is fitted

Row = Mapping[str, Any]


def draw(sweep: Mapping[str, Any]) -> Figure:
    """A panel for each suite and one for the best validation loss, all against the number of training records.

    sweep: `sweep.json` (`report.sweep.collect`). Each combination of the other swept settings is a line through the
    means of its seeds; seeds are points, with a bar over their range, or over the 95 % Wilson interval where there
    is one seed. A line of the loss over at least `FITTED` sizes has its power law a * records^-b, fitted to the
    means by least squares of the logarithms.
    """
    rows = sweep["points"]
    suites = [suite for suite, by in rows[0]["evaluation"].items() if tuned(by)]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        others = {key: value for key, value in row["settings"].items() if key not in (EXAMPLES, SEED)}
        title = ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in others.items())
        lines.setdefault(title or "fine-tuned", []).append(row)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            len(suites) + 1, 1, figsize=(WIDTH, 0.7 + 2.3 * (len(suites) + 1)), squeeze=False, sharex=True,
            layout="constrained",
        )  # fmt: skip
        for axes, suite in zip(panels[:, 0], suites, strict=False):
            for number, (title, of) in enumerate(lines.items()):
                points = [(row["records"], *correct(row["evaluation"][suite])) for row in of]
                line(axes, points, title, number)
            base = next((row["evaluation"][suite]["base"] for row in rows if "base" in row["evaluation"][suite]), None)
            if base:
                axes.axhline(100 * base["ast"], color=GREY, linestyle=(0, (1, 1)), linewidth=1.4, label="base model")
            n = rows[0]["evaluation"][suite][tuned(rows[0]["evaluation"][suite])]["n"]
            axes.set(title=f"{suite.replace('_', ' ')} (n = {n})", ylabel="correct answers (%)", ylim=(0, None))
            axes.legend(fontsize=8)
        loss = panels[-1, 0]
        for number, (title, of) in enumerate(lines.items()):
            points = [(row["records"], row["best_validation_loss"], None) for row in of]
            means = line(loss, points, title, number)
            if len(means) >= FITTED:
                a, b = power_law(*zip(*means, strict=True))
                x = np.geomspace(means[0][0], means[-1][0], 50)
                label = f"{a:.3g} · records^{-b:.3f}"
                loss.plot(x, a * x**-b, color=LINES[number % len(LINES)][0], linewidth=0.8, alpha=0.7, label=label)
        loss.set(title="validation", ylabel="best loss (nats per token)", xlabel="training records", yscale="log")
        loss.legend(fontsize=8)
        sizes = sorted({row["records"] for row in rows})
        if len(sizes) > 1:
            loss.set_xscale("log")
        loss.set_xticks(sizes, [f"{size:,}" for size in sizes])
        loss.minorticks_off()
        loss.yaxis.set_major_locator(MaxNLocator(5))  # a log axis of less than a decade has no labels of its own
        loss.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
    return figure


def line(axes: Axes, points: Sequence[tuple[float, float, Any]], title: str, number: int) -> list[tuple[float, float]]:
    """Points (x, y, interval or None) with their bars and the line through the means, which are returned."""
    colour, marker, dashes = LINES[number % len(LINES)]
    by_x: dict[float, list[tuple[float, Any]]] = {}
    for x, y, bounds in points:
        by_x.setdefault(x, []).append((y, bounds))
    means = []
    for x, found in sorted(by_x.items()):
        ys = [y for y, _ in found]
        means.append((x, float(np.mean(ys))))
        axes.plot([x] * len(ys), ys, linestyle="", marker=marker, markersize=4, color=colour)
        bar = (min(ys), max(ys)) if len(ys) > 1 else found[0][1]
        if bar is not None:
            axes.vlines(x, *bar, color=colour, linewidth=1.2, alpha=0.6)
    axes.plot(*zip(*means, strict=True), color=colour, linestyle=dashes, linewidth=1.4)
    axes.plot([], [], color=colour, linestyle=dashes, marker=marker, markersize=4, label=title)  # for the legend
    return means


def power_law(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(a, b) of y = a * x^-b by least squares of the logarithms; x and y above 0."""
    slope, height = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(height)), float(-slope)


def tuned(by_condition: Mapping[str, Any]) -> str | None:
    """The fine-tuned condition that is drawn."""
    return next((condition for condition in by_condition if condition.startswith("tuned")), None)


def correct(by_condition: Mapping[str, Any]) -> tuple[float, tuple[float, float]]:
    """Correct answers of the fine-tuned condition in per cent, with their interval."""
    found = by_condition[tuned(by_condition)]
    low, high = found["ast_ci95"]
    return 100 * found["ast"], (100 * low, 100 * high)
