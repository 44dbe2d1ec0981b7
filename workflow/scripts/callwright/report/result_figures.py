"""The figures of what was answered: correct ones, the funnel, every item, robustness."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from callwright.evals.scoring.score import STAGES
from callwright.report.drawing import GREY, INK, WIDTH, condition_styles, plt

Found = Mapping[str, Mapping[str, dict[str, Any]]]


def conditions_of(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The conditions of all suites, each once, in their order."""
    return list(dict.fromkeys(condition for by_condition in found.values() for condition in by_condition))


def accuracy_height(found: Found) -> float:
    """Inches that `accuracy` needs."""
    return 1.1 + sum(0.14 + 0.13 * max(2, len(by_condition)) for by_condition in found.values())


def accuracy(axes: Axes, found: Found) -> None:
    """Share of correct answers with its 95 % Wilson interval: a group of rows for each suite, a row for a condition."""
    conditions = conditions_of(found)
    styles = condition_styles(conditions)
    place, ticks, labels = 0.0, [], []
    for suite, by_condition in found.items():
        top = place
        place += 0.5 * (len(by_condition) == 1)  # room for the two lines of its name
        for condition, result in by_condition.items():
            share, (low, high) = 100 * result["ast"], (100 * bound for bound in result["ast_ci95"])
            style = styles[condition]
            axes.hlines(place, low, high, color=style["color"], linewidth=1.6)
            axes.plot([share], [place], linestyle="", markersize=5, markeredgewidth=0, **style)
            place += 1
        place = max(place, top + 2)
        ticks.append((top + place - 1) / 2)
        labels.append(f"{suite.replace('_', ' ')}\nn = {max(r['n'] for r in by_condition.values())}")
        axes.axhline(place - 0.1, color=INK, alpha=0.15, linewidth=0.6)
        place += 0.8
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set(xlim=(-2, 102), ylim=(place - 0.6, -0.8), xlabel="correct answers, AST match (%)", title="Accuracy")
    axes.grid(visible=False, axis="y")
    for condition in conditions:
        axes.plot([], [], markersize=5, linewidth=1.6, label=condition, **styles[condition])
    above = 1 + 0.25 / accuracy_height(found)  # the title
    axes.legend(fontsize=8, ncols=min(3, len(conditions)), loc="lower center", bbox_to_anchor=(0.4, above),
                columnspacing=1)  # fmt: skip


def funnel(found: Found) -> Figure:
    """The share of items that pass each stage of the funnel; a panel for each suite, a line for each condition."""
    styles = condition_styles(conditions_of(found))
    rows = (len(found) + 1) // 2
    figure, panels = plt.subplots(
        rows, 2, figsize=(WIDTH, 1.2 + 1.55 * rows), squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    for axes in panels.flat[len(found) :]:
        axes.axis("off")
    for axes, (suite, by_condition) in zip(panels.flat, found.items(), strict=False):
        for condition, result in by_condition.items():
            shares = [100 * result["counts"][stage] / result["n"] for stage in STAGES]
            axes.plot(range(len(STAGES)), shares, markersize=4, linewidth=1.2, markeredgewidth=0, **styles[condition])
        axes.set_title(fill(suite.replace("_", " "), 22), fontsize=9)
        axes.set_xticks(range(len(STAGES)), [stage.replace("_", " ") for stage in STAGES], rotation=90, fontsize=8)
        axes.tick_params(labelbottom=True)
        axes.set_ylim(-3, 103)
    for axes in panels.flat[: max(0, len(found) - 2)]:
        axes.tick_params(labelbottom=False)
    figure.supylabel("share of items (%)", fontsize=9)
    for condition, style in styles.items():
        panels[0, 0].plot([], [], markersize=4, linewidth=1.2, label=condition, **style)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


def items(scores: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]) -> Figure:
    """Every item's last stage in the funnel, a column each, ordered by the fine-tuned model's outcome."""
    order = ["started", *STAGES]
    colours = ListedColormap(plt.get_cmap("cividis")(np.linspace(0, 1, len(order))))
    heights = [0.28 + 0.17 * len(by_condition) for by_condition in scores.values()]
    figure, panels = plt.subplots(
        len(scores), 1, figsize=(WIDTH, 0.9 + sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axes, (suite, by_condition) in zip(panels[:, 0], scores.items(), strict=True):
        reached = {
            condition: {row["id"]: order.index(row["stage"]) for row in rows}
            for condition, rows in by_condition.items()
        }
        # The fine-tuned model's outcome orders the items, then those of the other conditions.
        ordering = sorted(reached.items(), key=lambda found: found[0] != "tuned")
        ids = sorted(
            {row["id"] for rows in by_condition.values() for row in rows},
            key=lambda item: ([-of.get(item, 0) for _, of in ordering], item),  # noqa: B023
        )
        grid = [[of.get(item, 0) for item in ids] for of in reached.values()]
        axes.imshow(grid, aspect="auto", cmap=colours, vmin=-0.5, vmax=len(order) - 0.5, interpolation="none")
        axes.set_yticks(range(len(reached)), list(reached), fontsize=8)
        axes.set_title(f"{suite.replace('_', ' ')} (n = {len(ids)})", fontsize=9)
        axes.set_xticks([])
        axes.grid(visible=False)
    panels[-1, 0].set_xlabel("items, the best answered first")
    names = ["none", *(stage.replace("_", " ") for stage in STAGES)]
    patches = [Patch(facecolor=colours(at), label=name) for at, name in enumerate(names)]
    figure.legend(handles=patches, title="last stage reached", title_fontsize=8, fontsize=8, ncols=4,
                  loc="outside lower center")  # fmt: skip
    return figure


def decision(found: dict[str, Any] | None) -> Figure:
    """Calls kept against false calls for every threshold, with the one that was taken and one of a half.

    found: `decision.json`; a figure that says so where nothing was fitted.
    """
    if not found or not found["curve"]:
        return unmeasured("no threshold was fitted in this run")
    figure, axes = plt.subplots(figsize=(WIDTH, 3), layout="constrained")
    curve = found["curve"]
    false, kept = ([100 * point[key] for point in curve] for key in ("false_calls", "calls_kept"))
    style = condition_styles(["tuned_served"])["tuned_served"]
    axes.plot(false, kept, color=style["color"], linewidth=1.4)
    half = min(curve, key=lambda point: abs(point["threshold"] - 0.5))
    axes.plot([100 * half["false_calls"]], [100 * half["calls_kept"]], "o", color=GREY, markersize=6, label="0.5")
    taken = f"taken: {found['threshold']:.2f}"
    axes.plot(
        [100 * found["false_calls"]], [100 * found["calls_kept"]], linestyle="", markersize=8, label=taken, **style
    )
    axes.plot([0, 100], [0, 100], color=INK, alpha=0.25, linewidth=0.8)
    wanted = found["calls"]
    axes.set(xlim=(-3, 103), ylim=(-3, 103), xlabel=f"called where no call is wanted (% of {found['items'] - wanted})",
             ylabel=f"called where one is (% of {wanted})")  # fmt: skip
    axes.legend(title="threshold", fontsize=8, title_fontsize=8, loc="lower right")
    return figure


def unmeasured(text: str) -> Figure:
    """A figure that says that there is nothing to see."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1), layout="constrained")
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes)
    return figure


def robustness(rows: Sequence[dict[str, Any]]) -> Figure:
    """How many points of accuracy each change costs, with intervals, and how often answers stay right or wrong.

    rows: `summary.json`'s `robustness`; a figure that says so where there are none.
    """
    if not rows:
        return unmeasured("robustness was not measured in this run")
    styles = condition_styles(dict.fromkeys(row["condition"] for row in rows))
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["change"], []).append(row)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH, 1.4 + 0.18 * len(rows) + 0.16 * len(groups)), sharey=True, width_ratios=(3, 2),
        layout="constrained",
    )  # fmt: skip
    place, ticks = 0.0, []
    for found in groups.values():
        ticks.append(place + (len(found) - 1) / 2)
        for row in found:
            style = styles[row["condition"]]
            left.hlines(place, *(100 * bound for bound in row["ci95"]), color=style["color"], linewidth=1.6)
            left.plot([100 * row["drop"]], [place], linestyle="", markersize=5, markeredgewidth=0, **style)
            right.plot([100 * row["consistency"]], [place], linestyle="", markersize=5, markeredgewidth=0, **style)
            place += 1
        place += 0.7
    left.axvline(0, color=GREY, linewidth=1)
    left.set_yticks(ticks, [fill(change.replace("_", " "), 14) for change in groups], fontsize=8)
    left.set(ylim=(place - 0.5, -0.7), xlabel="drop in accuracy (points)")
    right.set(xlim=(0, 106), xticks=(0, 50, 100), xlabel="consistent (%)")
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
    for condition, style in styles.items():
        left.plot([], [], markersize=5, linewidth=1.6, label=condition, **style)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure
