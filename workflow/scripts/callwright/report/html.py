"""What all pages share: the templates, figures as markup, and records with their trained parts marked."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from callwright.chat.view import visible
from callwright.runtime.logs import duration

TEMPLATES = Path(__file__).with_name("templates")
REJECTIONS_SHOWN = 3

Rows = Sequence[dict[str, Any]]


def environment() -> jinja2.Environment:
    """Jinja with the pages' templates and filters; whatever a model or a user wrote is escaped."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "percent": percent, "duration": duration, "figure": figure_markup, "visible": visible, "text": text_node,
    }  # fmt: skip
    return found


def percent(share: float | None, digits: int = 1) -> str:
    """`0.625` -> `62.5 %`; a dash where nothing was measured."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def text_node(text: str) -> Markup:
    """Text between tags (never within one), harmless and short: quotes stay as they are, as JSON is full of them."""
    return Markup(visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def figure_markup(svg: str, name: str = "", label: str = "") -> Markup:
    """An SVG file as an element of a page: without XML declaration and document type, its size left to the style.

    name: put before all ids, so that the figures of a page have none in common. label: what a screen reader says.
    """
    svg = svg[svg.index("<svg") :]
    if name:
        svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", svg)
    head = f'<svg role="img" aria-label="{escape(label)}"' if label else "<svg"
    return Markup(head + re.sub(r'^<svg([^>]*?) width="[^"]*"', r"\1", svg, count=1))


def rejection_rows(ledger: dict[str, Any], rejections: Rows) -> list[dict[str, Any]]:
    """Each rule that rejected records: how many, and the first few with their reasons."""
    rows = []
    for rule, count in sorted(ledger["rejected"].items(), key=lambda item: (-item[1], item[0])):
        shown = [row for row in rejections if row["rule"] == rule][:REJECTIONS_SHOWN]
        rows.append({"rule": rule, "count": count, "shown": shown})
    return rows


def records_page(title: str, records: Rows) -> str:
    """A page of records as the model sees them; see `chat.view.describe` for a record's keys."""
    return environment().get_template("records.html.jinja").render(title=title, records=records)
