"""What all figures share: colours, style, and how they are written.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart.
Lines and text of the SVG have the page's own text colour, so that they can be read on light and dark.
"""

import io
import zlib
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from callwright.runtime.files import atomic_write  # noqa: E402
from callwright.runtime.peers import peer_of  # noqa: E402

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C"
SKY, AMBER = "#56B4E9", "#E69F00"
WIDTH = 4.6  # inches: a column of a page, whose text a phone can show without zooming
# A condition has its own colour and its own marker, so that it is known without the colour too.
CONDITION_STYLES = {
    "base": (GREY, "o"),
    "base_fewshot": (SKY, "s"),
    "base_grammar": (AMBER, "^"),
    "tuned": (BLUE, "D"),
    "tuned_grammar": (GREEN, "v"),
    "fused": (PINK, "X"),
    "no_tools": (ORANGE, "P"),
}
# Peers, whatever their names: none of the colours and markers above.
PEER_STYLES = [(colour, marker) for colour in ("#B8860B", "#7B3294", "#222222") for marker in ("p", "h", "<", ">", "d")]
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


def condition_style(condition: str) -> dict[str, str]:
    """`color` and `marker` of a condition, for matplotlib; one that is not known gets a green star, a peer its own."""
    colour, marker = CONDITION_STYLES.get(condition, (GREEN, "*"))
    if peer_of(condition):  # by its name alone, so that it looks alike in all figures
        colour, marker = PEER_STYLES[zlib.crc32(condition.encode()) % len(PEER_STYLES)]
    return {"color": colour, "marker": marker}


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
