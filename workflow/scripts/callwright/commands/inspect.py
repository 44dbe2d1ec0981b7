"""Show records as the model sees them: the rendered conversation, the trained tokens marked.

FILE holds examples, records of any format that `callwright curate` reads, or token rows
(results/<run>/tokens/*.jsonl). In a terminal the trained tokens are in reverse video; elsewhere,
or with NO_COLOR set, they stand in ⟦ ⟧.
"""

import argparse
import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from callwright.chat.formats import STYLES
from callwright.commands import shared
from callwright.runtime.errors import CallwrightError

EXAMPLES = """examples:
  callwright inspect results/default/data/train.jsonl
  callwright inspect results/default/tokens/train.jsonl -n 20 --html train.html
  callwright inspect my-xlam.jsonl --model results/models/smollm2-135m-instruct/mlx --random 5
  callwright inspect results/default/data/train.jsonl --id everyday-00095
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", metavar="FILE", help="a file of examples, records or token rows")
    parser.add_argument("--model", metavar="FOLDER", help="whose tokenizer and chat template; default: the only one")
    parser.add_argument("-n", type=natural, default=5, metavar="N", help="the first N records (default 5)")
    parser.add_argument("--random", type=natural, metavar="N", help="N records drawn at random instead")
    parser.add_argument("--seed", type=int, default=42, help="of the draw (default 42)")
    parser.add_argument(
        "--id", action="append", default=[], metavar="ID", help="the record of this id; may be repeated"
    )
    parser.add_argument("--format", metavar="NAME", help="the records' format, where it is not recognized")
    parser.add_argument("--style", choices=STYLES, default="hermes", help="how calls are written")
    parser.add_argument("--html", metavar="OUT", help="write a page instead of printing")


def natural(text: str) -> int:
    """A number from 1 on."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def run(options: argparse.Namespace) -> int:
    """Print, or write as HTML, the records that were asked for."""
    from callwright.chat.view import describe, marked, visible

    shared.quiet_logs()
    records = choose(read(options.file, shared.record_format(options)), options)
    tokenizer = shared.open_tokenizer(shared.find_model(options.model, options.file))
    shown, colour = [], shared.use_colour()
    for place, record in records:
        row = token_row(tokenizer, record, options.style)
        if isinstance(row, Exception):  # a record that cannot be used is shown as that, between the others
            print(f"── {visible(place)}: cannot be used: {visible(str(row))}\n", file=sys.stderr)
            continue
        found = describe(tokenizer, row)
        shown.append(found)
        if not options.html:
            share = found["trained"] / max(found["tokens"], 1)
            counts = f"{found['tokens']} tokens, {found['trained']} trained ({share:.0%})"
            print(f"── {visible(place)}, id {visible(found['id'])}: {counts}")
            print(marked(found["pieces"], colour) + "\n")
    if options.html:
        from callwright.report.html import records_page
        from callwright.runtime.files import atomic_write

        with atomic_write(options.html) as stream:
            stream.write(records_page(Path(options.file).name, shown).encode())
        print(f"{len(shown)} records in {options.html}")
    return 0 if shown else 1


def read(path: str, format: str | None) -> Iterator[tuple[str, Any]]:
    """`(place, record)` of each record: an Example, a token row (dict), or what is wrong with it (RecordError)."""
    from callwright.data.formats.detect import to_records
    from callwright.data.formats.inputs import list_files, read_rows

    for name, file in list_files(shared.existing([path])):
        for place, value in read_rows(file, name):
            if isinstance(value, dict) and "input_ids" in value:
                yield place, value
            else:
                yield from to_records(place, value, format)


def choose(records: Iterator[tuple[str, Any]], options: argparse.Namespace) -> list[tuple[str, Any]]:
    """The records that the options name; raises CallwrightError when there is none, or an id is missing."""
    if options.id:
        wanted = dict.fromkeys(options.id)
        found = {}
        for place, record in records:
            if (name := identifier(record)) in wanted or place in wanted:
                found.setdefault(name if name in wanted else place, (place, record))
                if len(found) == len(wanted):
                    break
        if missing := [name for name in wanted if name not in found]:
            raise CallwrightError(f"{options.file} has no record with the id {shared.some(missing)}")
        return [found[name] for name in wanted]
    if options.random:
        drawn = draw(records, options.random, random.Random(options.seed))
    else:
        drawn = list(itertools.islice(records, options.n))
    if not drawn:
        raise CallwrightError(f"{options.file} holds no record")
    return drawn


def draw(records: Iterator[Any], count: int, rng: random.Random) -> list[Any]:
    """`count` of the records, each as likely as any other, in their order; one pass (reservoir sampling)."""
    kept: list[tuple[int, Any]] = []
    for number, record in enumerate(records):
        if number < count:
            kept.append((number, record))
        elif (at := rng.randrange(number + 1)) < count:
            kept[at] = (number, record)
    return [record for _, record in sorted(kept, key=lambda pair: pair[0])]


def identifier(record: Any) -> str | None:
    """The id of an Example or a token row."""
    return record.get("id") if isinstance(record, dict) else getattr(record, "id", None)


def token_row(tokenizer: Any, record: Any, style: str) -> Any:
    """The record as a token row, or the exception that says why it is none."""
    from callwright.chat.tokens import TokenizeError, tokenize_example

    if isinstance(record, dict | Exception):
        return record
    try:
        return tokenize_example(tokenizer, record, style)
    except TokenizeError as error:
        return error
