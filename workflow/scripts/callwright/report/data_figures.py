"""The figures of the data page: small ones, so that they can be read on a phone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from callwright.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, PINK, STYLE, plt, svg_bytes

SET_COLOURS = {"train": BLUE, "valid": GREEN, "test_seen": ORANGE, "test_unseen_tools": PINK}
SIZE = (4.2, 2.7)  # inches
BINS = 30
# What `coverage.Distribution` counts, and what one example or argument adds to it.
DISTRIBUTIONS = {
    "kinds": "examples by kind",
    "calls": "calls per example",
    "tools": "tools on offer per example",
    "argument_types": "types of the arguments",
}


def draw_all(
    lengths: Mapping[str, Sequence[int]],
    trained: Mapping[str, Sequence[int]],
    limit: int,
    before: Mapping[str, Mapping[str, int]],
    after: Mapping[str, Mapping[str, int]],
) -> dict[str, str]:
    """Each figure as SVG text by name: `lengths`, `trained` and the names of DISTRIBUTIONS.

    lengths, trained: tokens of each example by set, all and the trained ones. limit: data.max_tokens. before,
    after: the ledger's distributions of the usable records and of the sample.
    """
    with plt.rc_context(STYLE):
        drawn = {
            "lengths": histogram(lengths, "tokens of prompt and answer", limit),
            "trained": histogram(trained, "trained tokens (the answer)"),
        }
        drawn |= {name: shares(before[name], after[name], title) for name, title in DISTRIBUTIONS.items()}
        texts = {name: svg_bytes(figure).decode() for name, figure in drawn.items()}
        for figure in drawn.values():
            plt.close(figure)
    return texts


def histogram(numbers: Mapping[str, Sequence[int]], title: str, limit: int | None = None) -> Figure:
    """How many examples have so many tokens, the sets on top of each other; a line where the limit is."""
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    filled = {name: found for name, found in numbers.items() if found}
    longest = max((max(found) for found in filled.values()), default=1)
    if filled:
        axes.hist(
            [np.asarray(found) for found in filled.values()],
            bins=np.linspace(0, longest, min(BINS, longest) + 1),
            stacked=True,
            color=[SET_COLOURS.get(name, GREY) for name in filled],
            label=list(filled),
        )
    axes.set_axisbelow(True)
    if limit and limit < 1.5 * longest:
        axes.axvline(limit, color=INK, linestyle="--", linewidth=1, label=f"limit {limit}")
    axes.set(title=title, ylabel="examples")
    if filled:
        figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    return figure


def shares(before: Mapping[str, int], after: Mapping[str, int], title: str) -> Figure:
    """The share of each value among the usable records and in the sample, in per cent."""
    names = sorted({*before, *after})
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    places = np.arange(len(names))
    for offset, counts, colour, label in ((0.2, before, GREY, "usable records"), (-0.2, after, BLUE, "examples kept")):
        total = sum(counts.values()) or 1
        values = [100 * counts.get(name, 0) / total for name in names]
        axes.barh(places + offset, values, 0.38, color=colour, label=label)
    axes.set_yticks(places, [name.removeprefix("abstain:") for name in names])
    axes.invert_yaxis()
    axes.set_axisbelow(True)
    axes.set(title=title, xlabel="share (%)")
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return figure


def summary_of(numbers: Sequence[int]) -> dict[str, Any]:
    """Smallest, median, 95th percentile, largest and sum of some counts; None for none."""
    if not numbers:
        return dict.fromkeys(("least", "median", "p95", "most", "total"))
    ordered = sorted(numbers)
    at = {"least": 0, "median": len(ordered) // 2, "p95": min(len(ordered) - 1, int(0.95 * len(ordered))), "most": -1}
    return {name: ordered[place] for name, place in at.items()} | {"total": sum(ordered)}
