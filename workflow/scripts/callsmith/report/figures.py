"""The figures of a run, drawn from its stored numbers: SVG for the page, PNG beside it.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart.
Lines and text of the SVG have the page's own text colour, so that they can be read on light and dark.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.colors import ListedColormap  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from callsmith.evals.score import KINDS, STAGES  # noqa: E402
from callsmith.evals.statistics import wilson  # noqa: E402
from callsmith.report.summary import SUITE_TITLES  # noqa: E402
from callsmith.runtime.files import atomic_write  # noqa: E402

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C"
CONDITION_COLOURS = {"base": GREY, "tuned": BLUE}
INK = "#262626"  # in the SVG it becomes the page's text colour
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: it can be searched and copied
    "svg.hashsalt": "callsmith",  # the same numbers give the same bytes
    **{
        key: INK
        for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    },
}

Rows = Sequence[dict[str, Any]]


def draw_all(
    summary: dict[str, Any],
    history: Rows,
    scores: Mapping[str, Mapping[str, Rows]],
    save: Callable[[str, Figure], None],
) -> None:
    """Draw each figure and hand it to `save(name, figure)`; `scores` are score rows by suite and condition."""
    with plt.rc_context(STYLE):
        for name, draw in (
            ("training", lambda: training(summary["training"], history)),
            ("memory", lambda: memory(history)),
            ("evaluation", lambda: evaluation(summary["evaluation"])),
            ("items", lambda: items(scores)),
        ):
            figure = draw()
            save(name, figure)
            plt.close(figure)


def save_as(figure: Figure, path: str | Path) -> None:
    """Write a figure as `.svg` (clear ground, the page's text colour) or `.png` (white ground, 150 dpi)."""
    path = Path(path)
    buffer = io.BytesIO()
    if path.suffix == ".svg":
        with plt.rc_context(STYLE):
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        content = buffer.getvalue().replace(INK.encode(), b"currentColor")
    else:
        figure.savefig(buffer, format="png", dpi=150, facecolor="white")
        content = buffer.getvalue()
    with atomic_write(path) as stream:
        stream.write(content)


def of_event(history: Rows, event: str) -> Rows:
    """The history's rows of one kind: `step` or `validation`."""
    return [row for row in history if row["event"] == event]


def smoothed(values: Sequence[float], weights: Sequence[float], window: int) -> np.ndarray:
    """The weighted mean of each value and the `window` - 1 before it (fewer at the start)."""
    v, w = np.asarray(values, float), np.asarray(weights, float)
    sums = np.cumsum(np.concatenate([[0], v * w]))
    totals = np.cumsum(np.concatenate([[0], w]))
    end = np.arange(1, v.size + 1)
    begin = np.maximum(end - window, 0)
    return (sums[end] - sums[begin]) / (totals[end] - totals[begin])


def training(summary: dict[str, Any], history: Rows) -> Figure:
    """Loss of training (each step, smoothed) and validation; below it learning rate and gradient norm."""
    steps, checks = of_event(history, "step"), of_event(history, "validation")
    x = [row["step"] for row in steps]
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(7, 6.2), sharex=True, height_ratios=(3, 1, 1), layout="constrained"
    )
    loss = [row["loss"] for row in steps]
    top.plot(x, loss, color=BLUE, alpha=0.25, linewidth=0.8, label="training, each step")
    mean = smoothed(loss, [row["tokens"] for row in steps], summary["window"])
    top.plot(x, mean, color=BLUE, linewidth=1.6, label=f"training, mean of {summary['window']} steps")
    top.plot([row["step"] for row in checks], [row["loss"] for row in checks], "o-", color=ORANGE, markersize=4,
             linewidth=1.2, label="validation")  # fmt: skip
    top.axvline(summary["best_iteration"], color=ORANGE, linestyle=":", linewidth=1)
    settled = summary.get("convergence_iteration")
    if settled is not None:
        top.axvline(settled, color=GREEN, linestyle="--", linewidth=1, label=f"converged at step {settled}")
    top.set(ylabel="cross-entropy per trained token (nats)", ylim=(0, None), title="Loss")
    top.legend()
    middle.plot(x, [row["lr"] for row in steps], color=GREEN, linewidth=1.2)
    middle.set(ylabel="learning rate", ylim=(0, None))
    bottom.plot(x, [row["grad_norm"] for row in steps], color=PINK, linewidth=0.8)
    bottom.set(ylabel="gradient norm", xlabel="optimizer step", ylim=(0, None))
    return figure


def memory(history: Rows) -> Figure:
    """GB over the steps: the process, MLX's peak and live arrays, and the buffers that it keeps for reuse."""
    steps = of_event(history, "step")
    figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
    lines = (
        ("process_gb", INK, "process (resident)"),
        ("peak_gb", ORANGE, "MLX arrays, peak of the step"),
        ("active_gb", BLUE, "MLX arrays after the step"),
        ("cache_gb", GREEN, "MLX buffers kept for reuse"),
    )
    for key, colour, label in lines:
        axes.plot([row["step"] for row in steps], [row[key] for row in steps], color=colour, linewidth=1.2, label=label)
    axes.set(xlabel="optimizer step", ylabel="memory (GB)", ylim=(0, None), title="Memory during training")
    axes.legend(ncols=2)
    return figure


def evaluation(found: Mapping[str, Mapping[str, dict[str, Any]]]) -> Figure:
    """Shares of the items by stage of the funnel, and of correct ones by kind of item, with 95 % Wilson intervals."""
    figure, panels = plt.subplots(
        len(found), 2, figsize=(8, 0.6 + 2.6 * len(found)), squeeze=False, width_ratios=(5, 3), layout="constrained"
    )
    for (suite, by_condition), (left, right) in zip(found.items(), panels, strict=True):
        results = by_condition.items()
        stages = [stage for stage in STAGES if stage != "terminated"]
        _bars(
            left,
            [stage.replace("_", "\n") for stage in stages],
            {condition: [(result["counts"][stage], result["n"]) for stage in stages] for condition, result in results},
        )
        n = max(result["n"] for result in by_condition.values())
        left.set(title=f"{suite}: {SUITE_TITLES.get(suite, suite)} (n = {n})", ylabel="share of items (%)")
        by_kind = {condition: [result["kinds"][kind] for kind in KINDS] for condition, result in results}
        sizes = [max(part["n"] for part in parts) for parts in zip(*by_kind.values(), strict=True)]
        _bars(
            right,
            [f"{kind}\n(n = {size})" for kind, size in zip(KINDS, sizes, strict=True)],
            {condition: [(part["counts"]["ast"], part["n"]) for part in parts] for condition, parts in by_kind.items()},
        )
        right.set(title="ast by number of calls")
    panels[0][0].legend(*panels[0][0].get_legend_handles_labels(), loc="upper right")
    return figure


def _bars(axes: Axes, labels: Sequence[str], counts: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    """A bar per label and condition, of the share k/n with its Wilson interval; `counts`: (k, n) by condition."""
    width = 0.8 / len(counts)
    for number, (condition, pairs) in enumerate(counts.items()):
        measured = [(at + (number - (len(counts) - 1) / 2) * width, k, n) for at, (k, n) in enumerate(pairs) if n]
        x = [at for at, _, _ in measured]
        shares = np.array([100 * k / n for _, k, n in measured])
        bounds = np.array([wilson(k, n) for _, k, n in measured]).reshape(-1, 2).T * 100
        colour = CONDITION_COLOURS.get(condition, GREEN)
        axes.bar(x, shares, width * 0.92, color=colour, label=condition)
        axes.errorbar(x, shares, [shares - bounds[0], bounds[1] - shares], fmt="none", ecolor=INK, elinewidth=0.9,
                      capsize=2)  # fmt: skip
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(0, 104)
    axes.grid(visible=False, axis="x")


def items(scores: Mapping[str, Mapping[str, Rows]]) -> Figure:
    """Every item's last stage in the funnel, a column each, ordered by the last condition's outcome."""
    order = ["started", *STAGES]
    colours = ListedColormap(plt.get_cmap("cividis")(np.linspace(0, 1, len(order))))
    figure, panels = plt.subplots(
        len(scores), 1, figsize=(8, 0.9 + 1.15 * len(scores)), squeeze=False, layout="constrained"
    )
    for axes, (suite, by_condition) in zip(panels[:, 0], scores.items(), strict=True):
        reached = {
            condition: {row["id"]: order.index(row["stage"]) for row in rows}
            for condition, rows in by_condition.items()
        }
        *_, last = reached.values()
        ids = sorted(last, key=lambda item: [of[item] for of in reversed(reached.values())], reverse=True)  # noqa: B023
        grid = [[of.get(item, 0) for item in ids] for of in reached.values()]
        image = axes.imshow(grid, aspect="auto", cmap=colours, vmin=-0.5, vmax=len(order) - 0.5, interpolation="none")
        axes.set_yticks(range(len(reached)), list(reached))
        axes.set(title=suite, xlabel="item, the best answered first", xticks=[])
        axes.grid(visible=False)
    bar = figure.colorbar(image, ax=panels[:, 0], ticks=range(len(order)))
    bar.ax.set_yticklabels(["none", *(stage.replace("_", " ") for stage in STAGES)], fontsize=7)
    bar.set_label("last stage reached")
    return figure
