"""The figures of a run, drawn from its stored numbers: SVG for the page, PNG beside it."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callwright.lora import convergence
from callwright.report import result_figures
from callwright.report.drawing import AMBER, BLUE, GREEN, GREY, INK, ORANGE, PINK, SKY, STYLE, WIDTH, plt
from callwright.report.tables import arranged

Rows = Sequence[dict[str, Any]]
Scores = Mapping[str, Mapping[str, Rows]]


def draw_all(
    summary: dict[str, Any],
    history: Rows,
    scores: Scores,
    save: Callable[[str, Figure], None],
    names: Sequence[str] | None = None,
) -> None:
    """Draw each figure and hand it to `save(name, figure)`.

    summary: `summary.json`. history: the rows of `history.jsonl`. scores: score rows by suite and condition.
    names: which ones; None: all that the run has numbers for.
    """
    trained, found = summary["training"], arranged(summary["evaluation"], summary["config"])
    scores = arranged(scores, summary["config"])
    robustness = summary.get("robustness") or []
    drawings: dict[str, Callable[[], Figure]] = {
        "training": lambda: training(trained, history),
        "convergence": lambda: converged(trained, history),
        "performance": lambda: performance(found, trained, history),
        "memory": lambda: memory(history, trained.get("plan")),
        "funnel": lambda: result_figures.funnel(found),
        "items": lambda: result_figures.items(scores),
        "robustness": lambda: result_figures.robustness(robustness),
        "decision": lambda: result_figures.decision(summary.get("decision")),
    }
    if names is None:
        absent = {"robustness": not robustness, "decision": not summary.get("decision")}
        names = [name for name in drawings if not absent.get(name)]
    with plt.rc_context(STYLE):
        for name in names:
            figure = drawings[name]()
            save(name, figure)
            plt.close(figure)


def of_event(history: Rows, event: str) -> Rows:
    """The history's rows of one kind: `step`, `validation` or `memory`."""
    return [row for row in history if row["event"] == event]


def column(rows: Rows, key: str) -> list[Any]:
    """One value of each row."""
    return [row[key] for row in rows]


def smoothed(steps: Rows) -> tuple[list[int], np.ndarray, int]:
    """The smoothed loss of the steps as (steps, values, window); see `lora.convergence`."""
    size = convergence.window(len(steps))
    values = convergence.smoothed(column(steps, "loss"), column(steps, "tokens"), size)
    return column(steps, "step")[size - 1 :], values, size


def training(summary: dict[str, Any], history: Rows) -> Figure:
    """Loss of training (each step, smoothed) and validation; below it learning rate and gradient norm."""
    steps, checks = of_event(history, "step"), of_event(history, "validation")
    x = column(steps, "step")
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(WIDTH, 6), sharex=True, height_ratios=(3.2, 1, 1), layout="constrained"
    )
    losses = np.array(column(steps, "loss"))
    at, mean, size = smoothed(steps)
    # A few steps of a small batch can be ten times the rest: they are marked at the edge instead of setting the scale.
    ceiling = 1.15 * max(np.quantile(losses, 0.98), mean.max(), *column(checks, "loss"))
    top.plot(x, losses, color=BLUE, alpha=0.3, linewidth=0.8, label="training, each step")
    top.plot(at, mean, color=BLUE, linewidth=1.8, label=f"training, mean of {size} steps")
    top.plot(column(checks, "step"), column(checks, "loss"), "o--", color=ORANGE, markersize=4.5, linewidth=1.2,
             label="validation")  # fmt: skip
    step = summary["kept"]["step"]
    top.axvline(step, color=PINK, linestyle=":", linewidth=1.4, label=f"adapter kept, step {step}")
    above = np.flatnonzero(losses > ceiling)
    if above.size:
        top.plot([x[i] for i in above], [0.985 * ceiling] * above.size, "^", color=BLUE, markersize=4, linestyle="",
                 label=f"steps above, up to {losses.max():.2f}")  # fmt: skip
    top.set(ylabel="loss (nats per trained token)", ylim=(0, ceiling), title="Cross-entropy")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    middle.plot(x, column(steps, "lr"), color=GREEN, linewidth=1.2)
    middle.set(ylabel="learning rate", ylim=(0, None))
    bottom.plot(x, column(steps, "grad_norm"), color=INK, linewidth=0.8)
    bottom.set(ylabel="gradient norm\n(before clipping)", xlabel="optimizer step", ylim=(0, None))
    figure.align_ylabels()
    return figure


def converged(summary: dict[str, Any], history: Rows) -> Figure:
    """The smoothed loss with the convergence iteration, and the losses behind the coefficient of variation.

    The definitions stand below; they are those of `lora.convergence.measure`.
    """
    steps = of_event(history, "step")
    x, losses = np.array(column(steps, "step")), np.array(column(steps, "loss"))
    at, mean, size = smoothed(steps)
    settled = summary["convergence_iteration"]
    bound = convergence.threshold(summary["initial_loss"], summary["final_loss"])
    figure, (top, bottom, words) = plt.subplots(
        3, 1, figsize=(WIDTH, 7), height_ratios=(2.4, 2, 1.1), layout="constrained"
    )
    top.plot(at, mean, color=BLUE, linewidth=1.8, label=f"mean of {size} steps")
    top.plot([at[0], at[-1]], [mean[0], mean[-1]], linestyle="", marker="s", color=BLUE, label="initial, final")
    top.axhline(bound, color=ORANGE, linestyle="--", linewidth=1.2, label=f"final + 10 % = {bound:.3f}")
    top.axvspan(x[0], at[0], color=GREY, alpha=0.18, linewidth=0)
    top.axvspan(x[-size], x[-1], color=GREY, alpha=0.18, linewidth=0, label="first and last window")
    if settled is not None:
        top.axvline(settled, color=GREEN, linestyle="-.", linewidth=1.4, label=f"converged at step {settled}")
    top.set(ylabel="loss (nats per token)", title="Smoothed training loss", ylim=(0, None))
    top.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.45, -0.1), ncols=2)

    rest = x >= (settled or x[0])
    level, spread = losses[rest].mean(), losses[rest].std()
    bottom.axhspan(level - spread, level + spread, color=GREY, alpha=0.18, linewidth=0, label="± standard deviation")
    bottom.plot(x[rest], losses[rest], "o", color=BLUE, markersize=2.5, label="each step")
    bottom.axhline(level, color=ORANGE, linestyle="--", linewidth=1.2, label=f"mean {level:.3f}")
    which = f"from step {settled} on" if settled is not None else "of all steps"
    bottom.set(ylabel="loss (nats per token)", xlabel="optimizer step", ylim=(0, None),
               title=f"Losses {which}: coefficient of variation {100 * spread / level:.1f} %")  # fmt: skip
    bottom.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.45, -0.24), ncols=3)

    found = f"step {settled}" if settled is not None else "not reached in this run"
    text = (
        f"Convergence iteration ({found}): the first step from which on the smoothed loss stays within 10 % of the "
        f"total reduction above its final value, if that is before the last window. Smoothed: mean over the "
        f"trained tokens of {size} steps.",
        "Coefficient of variation: standard deviation over mean of the single steps' losses from there on "
        "(of all steps, if there is no such step).",
    )
    words.axis("off")
    words.text(0, 1, "\n".join(fill(part, 72) for part in text), va="top", fontsize=8, transform=words.transAxes)
    return figure


def performance(found: Mapping[str, Mapping[str, dict[str, Any]]], trained: dict[str, Any], history: Rows) -> Figure:
    """Correct answers by suite and condition with intervals; peak memory by phase against the plan; throughput."""
    steps = of_event(history, "step")
    accuracy = result_figures.accuracy_height(found)
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(WIDTH, accuracy + 4.6), height_ratios=(accuracy, 2, 1.7), layout="constrained"
    )
    result_figures.accuracy(top, found)
    phases(middle, history, trained.get("plan"))
    x = column(steps, "step")
    speed = [row["processed_tokens"] / row["seconds"] for row in steps]
    bottom.plot(x, speed, ".", color=BLUE, markersize=3, label="each step")
    mean = trained["tokens_per_second"]
    bottom.axhline(mean, color=ORANGE, linestyle="--", linewidth=1.2, label=f"mean {mean:,.0f}")
    bottom.set(title="Training throughput", xlabel="optimizer step", ylabel="tokens per second", ylim=(0, None))
    bottom.legend(fontsize=8, ncols=2, loc="lower right")
    return figure


def phases(axes: Axes, history: Rows, plan: dict[str, Any] | None) -> None:
    """Peak of MLX's arrays in each phase, when first measured, and the plan's forecast as a line."""
    first = {row["phase"]: row for row in reversed(of_event(history, "memory"))}
    names = list(first)[::-1]
    axes.barh(names, [first[name]["peak_gb"] for name in names], color=SKY, edgecolor=INK, linewidth=0.6,
              label="peak in the phase")  # fmt: skip
    axes.barh(names, [first[name]["active_gb"] for name in names], height=0.35, color=BLUE, hatch="////",
              edgecolor="white", linewidth=0, label="left after it")  # fmt: skip
    predicted = plan["rows"][-1]["predicted_gb"] if plan and plan.get("rows") else None
    if predicted:
        axes.axvline(predicted, color=ORANGE, linestyle="--", linewidth=1.4, label=f"plan: at most {predicted:.2f} GB")
    axes.set(xlabel="MLX arrays (GB)", title="Memory by phase of the first step")
    axes.grid(visible=False, axis="y")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.45, -0.28), ncols=3, handlelength=1.2,
                columnspacing=0.8)  # fmt: skip


def memory(history: Rows, plan: dict[str, Any] | None = None) -> Figure:
    """GB over the steps: process, MLX's arrays, buffers kept for reuse; below, the plan beside what was measured."""
    steps = of_event(history, "step")
    planned = [row for row in (plan or {}).get("rows", []) if row["predicted_gb"]]
    figure, panels = plt.subplots(
        1 + bool(planned), 1, figsize=(WIDTH, 2.9 + (0.7 + 0.36 * len(planned) if planned else 0)), squeeze=False,
        height_ratios=(2.9, 0.7 + 0.36 * len(planned)) if planned else (1,), layout="constrained",
    )  # fmt: skip
    axes = panels[0, 0]
    lines = (
        ("process_gb", INK, "-", "process (resident)"),
        ("peak_gb", ORANGE, "--", "arrays, peak of the step"),
        ("active_gb", BLUE, "-", "arrays after the step"),
        ("cache_gb", GREEN, ":", "buffers kept for reuse"),
    )
    x = column(steps, "step")
    for key, colour, dashes, label in lines:
        axes.plot(x, column(steps, key), color=colour, linestyle=dashes, linewidth=1.4, label=label)
    axes.set(xlabel="optimizer step", ylabel="memory (GB)", ylim=(0, None), title="Memory over the training")
    axes.legend(
        fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=2, handlelength=1.4, columnspacing=0.8
    )
    if planned:
        bars, places = panels[1, 0], np.arange(len(planned))
        bars.barh(places - 0.2, column(planned, "predicted_gb"), 0.38, color=AMBER, hatch="////", edgecolor="white",
                  linewidth=0, label="planned")  # fmt: skip
        bars.barh(places + 0.2, [row["measured_gb"] or 0 for row in planned], 0.38, color=BLUE, label="measured")
        bars.set_yticks(places, [fill(row["what"], 22) for row in planned], fontsize=8)
        bars.invert_yaxis()
        bars.grid(visible=False, axis="y")
        bars.set(xlabel="MLX arrays (GB)", title="Plan and measurement")
        bars.legend(fontsize=8)
    return figure
