"""The figures of a run, drawn from its stored numbers: SVG for the page, PNG beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from callsmith.evals.score import STAGES
from callsmith.evals.statistics import wilson
from callsmith.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, PINK, STYLE, plt
from callsmith.report.summary import SUITE_TITLES

CONDITION_COLOURS = {"base": GREY, "tuned": BLUE}

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
            ("memory", lambda: memory(history, summary["training"].get("plan"))),
            ("evaluation", lambda: evaluation(summary["evaluation"])),
            ("items", lambda: items(scores)),
        ):
            figure = draw()
            save(name, figure)
            plt.close(figure)


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
    step = summary["kept"]["step"]
    top.axvline(step, color=ORANGE, linestyle=":", linewidth=1, label=f"adapter kept, step {step}")
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


def memory(history: Rows, plan: dict[str, Any] | None = None) -> Figure:
    """GB over the steps and, of the first step, by phase: process, MLX's arrays, and buffers that it keeps for reuse.

    `plan` is the training summary's, whose prediction is drawn as a line.
    """
    steps, phases = of_event(history, "step"), {row["phase"]: row for row in reversed(of_event(history, "memory"))}
    figure, (axes, bars) = plt.subplots(1, 2, figsize=(8, 2.8), width_ratios=(3, 2), layout="constrained")
    lines = (
        ("process_gb", INK, "process (resident)"),
        ("peak_gb", ORANGE, "MLX arrays, peak of the step"),
        ("active_gb", BLUE, "MLX arrays after the step"),
        ("cache_gb", GREEN, "MLX buffers kept for reuse"),
    )
    for key, colour, label in lines:
        axes.plot([row["step"] for row in steps], [row[key] for row in steps], color=colour, linewidth=1.2, label=label)
    predicted = plan["rows"][-1]["predicted_gb"] if plan else None
    if predicted:
        axes.axhline(predicted, color=ORANGE, linestyle="--", linewidth=1, label="MLX arrays, most predicted")
        bars.axvline(predicted, color=ORANGE, linestyle="--", linewidth=1)
    axes.set(xlabel="optimizer step", ylabel="memory (GB)", ylim=(0, None), title="Memory during training")
    axes.legend(fontsize=7)
    names = list(phases)[::-1]
    bars.barh(names, [phases[name]["peak_gb"] for name in names], color=ORANGE, label="peak")
    bars.barh(names, [phases[name]["active_gb"] for name in names], height=0.4, color=BLUE, label="after it")
    bars.set(xlabel="MLX arrays (GB)", title="Phases, when first measured")
    bars.grid(visible=False, axis="y")
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
        title = f"{suite}: {SUITE_TITLES[suite]}" if suite in SUITE_TITLES else suite
        left.set(title=f"{title} (n = {n})", ylabel="share of items (%)")
        some = next(iter(by_condition.values()))["kinds"]
        kinds = [kind for kind, part in some.items() if part["n"]]
        by_kind = {condition: [result["kinds"][kind] for kind in kinds] for condition, result in results}
        sizes = [max(part["n"] for part in parts) for parts in zip(*by_kind.values(), strict=True)]
        _bars(
            right,
            [f"{kind}\n(n = {size})" for kind, size in zip(kinds, sizes, strict=True)],
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
