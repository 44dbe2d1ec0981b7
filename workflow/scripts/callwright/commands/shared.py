"""What the commands share: models found, files read, tables and text for a terminal."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from callwright.runtime.errors import CallwrightError

SHOWN = 8  # ids in a message


def quiet_logs() -> None:
    """Warnings of the library go to standard error; what a command has to say it prints itself."""
    from callwright.runtime import logs

    logs.setup()
    logging.getLogger("callwright").setLevel(logging.WARNING)


def find_model(given: str | None, near: str | Path = ".", adapter: Path | None = None) -> Path:
    """The model folder that the user named, or the only one of the results in which `near` or this folder lies.

    adapter: of several models the only one whose shape it has. Raises CallwrightError when there is none to be found,
    or more than one.
    """
    if given:
        return Path(given)
    here = Path(near).resolve()
    places = [Path("results"), *(folder for folder in here.parents if (folder / "models").is_dir())]
    found: list[Path] = []
    for place in places:
        found = sorted(place.glob("models/*/mlx"))
        if found:
            break
    if adapter is not None and len(found) > 1:
        found = [folder for folder in found if _fits(adapter, folder)] or found
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(map(str, found))
        raise CallwrightError(f"there are {len(found)} models ({names}): name one with --model")
    raise CallwrightError(
        "no model is here (results/models/*/mlx): name a model folder with --model, or make the "
        "default one: `snakemake --cores 1 --until convert_model`"
    )


def _fits(adapter: Path, folder: Path) -> bool:
    """Whether an adapter's inputs are as wide as a model, and its blocks there; False where this cannot be read."""
    import mlx.core as mx

    from callwright.lora.layers import WEIGHTS
    from callwright.runtime.files import read_json

    try:
        config = read_json(folder / "config.json")
        shapes = {name: array.shape for name, array in mx.load(str(adapter / WEIGHTS)).items() if "lora_a" in name}
        wide = {shape[0] for name, shape in shapes.items() if "q_proj" in name}
        blocks = [int(number) for name in shapes for number in re.findall(r"layers\.(\d+)\.", name)]
        return wide <= {config["hidden_size"]} and max(blocks, default=0) < config["num_hidden_layers"]
    except (CallwrightError, OSError, RuntimeError, KeyError, TypeError, ValueError):
        return False


def existing(paths: Sequence[str | Path]) -> list[Path]:
    """The paths; raises CallwrightError for one that does not exist."""
    for path in map(Path, paths):
        if not path.exists():
            raise CallwrightError(f"{path} does not exist")
    return list(map(Path, paths))


def record_format(options: argparse.Namespace) -> str | None:
    """The format that the user named with --format, if any; another than the known ones is wrong usage."""
    from callwright.data.formats.detect import FORMATS

    if options.format and options.format not in FORMATS:
        options.usage_error(f"--format {options.format!r}: expected one of {', '.join(FORMATS)}")
    return options.format


def open_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a model folder; no weight is read."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from callwright.models.load import load_tokenizer

    return load_tokenizer(folder)


def use_colour() -> bool:
    """True for a terminal whose user has not asked for plain text (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> str:
    """Rows under a head, in aligned columns; the columns numbered in `right` are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        parts = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def note(text: str) -> None:
    """Say something beside the result, on standard error."""
    print(f"note: {text}", file=sys.stderr)


def name_of(path: str | Path) -> str:
    """The name of a suite, after its file: the part before the first dot, with plain characters only."""
    return re.sub(r"[^A-Za-z0-9_\-]+", "_", Path(path).name.split(".")[0]) or "items"


def counted(number: int, noun: str) -> str:
    """A number of things: 1 tool, 3 tools."""
    return f"{number} {noun}{'s' * (number != 1)}"


def some(ids: Sequence[str]) -> str:
    """The first few ids, for a message."""
    rest = len(ids) - SHOWN
    return ", ".join(map(str, ids[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")


def json_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file (or array) of somebody else's, with `<file>:<line>`.

    Raises CallwrightError that names the line when one is no JSON object.
    """
    from callwright.data.formats.readers import read_values
    from callwright.data.records import RecordError, kind

    existing([path])
    for place, value in read_values(path):
        if isinstance(value, RecordError):
            raise CallwrightError(f"{place}: {value.reason} ({value.rule})")
        if not isinstance(value, dict):
            raise CallwrightError(f"{place}: expected an object, found {kind(value)}")
        yield place, value
