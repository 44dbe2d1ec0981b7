"""What all figures share: colours, style, and how they are written.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart, and others
that stay apart from them and can be seen on light and dark ground.
Lines and text of the SVG have the page's own text colour, so that they can be read on light and dark.
"""

import io
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from callwright.runtime.files import atomic_write  # noqa: E402
from callwright.runtime.peers import peer_of  # noqa: E402

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C"
SKY, AMBER = "#56B4E9", "#E69F00"
OLIVE, WINE, VIOLET, BROWN = "#999933", "#8F2A5E", "#7A5CFF", "#8B4513"
WIDTH = 4.6  # inches: a column of a page, whose text a phone can show without zooming
Marker = str | tuple[int, int, int]  # of matplotlib: a name, or (points, 1: a star, degrees)
# A condition has its own colour and its own marker, so that it is known without the colour too. In the order of
# `evals.conditions`, which pages list them in.
CONDITION_STYLES: dict[str, tuple[str, Marker]] = {
    "base": (GREY, "o"),
    "base_own_rows": (OLIVE, "<"),
    "base_fewshot": (SKY, "s"),
    "base_grammar": (AMBER, "^"),
    "general": (WINE, ">"),
    "tuned": (BLUE, "D"),
    "tuned_grammar": (GREEN, "v"),
    "tuned_threshold": (VIOLET, "*"),
    "tuned_served": (BROWN, "p"),
    "fused": (PINK, "X"),
    "no_tools": (ORANGE, "P"),
}
# Peers, whatever their names: none of the colours and markers above.
PEER_MARKERS: tuple[Marker, ...] = ("h", "d", (3, 1, 0), (4, 1, 45))
PEER_COLOURS = ("#7B3294", "#C7A76C", "#00797A", "#546A7B")
PEER_STYLES = [(colour, marker) for marker in PEER_MARKERS for colour in PEER_COLOURS]
UNKNOWN_STYLE: tuple[str, Marker] = (GREY, (6, 1, 0))  # a condition of results that another version wrote
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
    "svg.hashsalt": "callwright",  # the same numbers give the same bytes
    **{
        key: INK
        for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    },
}


def condition_styles(conditions: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`color` and `marker`, for matplotlib, of each of the conditions that stand in one figure.

    A peer's style follows from its name, so that it looks alike in all figures; where two names lead to the same one,
    the later in the alphabet takes the next that is free. Only of more than sixteen peers some look alike.
    """
    found = {name: CONDITION_STYLES.get(name, UNKNOWN_STYLE) for name in conditions}
    left: list[tuple[str, Marker]] = []
    for name in sorted(filter(peer_of, found)):
        left = left or list(PEER_STYLES)
        first = zlib.crc32(name.encode()) % len(PEER_STYLES)
        found[name] = next(style for style in PEER_STYLES[first:] + PEER_STYLES[:first] if style in left)
        left.remove(found[name])
    return {name: {"color": colour, "marker": marker} for name, (colour, marker) in found.items()}


def svg_bytes(figure: Figure) -> bytes:
    """A figure as SVG with a clear ground and the page's text colour; the same numbers give the same bytes."""
    buffer = io.BytesIO()
    with plt.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue().replace(INK.encode(), b"currentColor")


def save_as(figure: Figure, path: str | Path) -> None:
    """Write a figure as `.svg` (`svg_bytes`) or `.png` (white ground, 150 dpi)."""
    path = Path(path)
    if path.suffix == ".svg":
        content = svg_bytes(figure)
    else:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, facecolor="white")
        content = buffer.getvalue()
    with atomic_write(path) as stream:
        stream.write(content)
