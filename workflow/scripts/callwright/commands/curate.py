"""Turn records into checked examples; every record left out is counted under one rule.

FILE is a file or folder of records: xLAM, OpenAI, ShareGPT/Hermes, BFCL or example format, as JSON,
JSON Lines, Parquet or Arrow, compressed or not; the format of each record is found by its fields.
DIR gets examples.jsonl, rejections.jsonl (each with its reason) and ledger.json. Lengths are only
checked with --model, since they depend on its tokenizer.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

from callwright.commands import shared

EXAMPLES = """examples:
  callwright curate my-records.jsonl --out curated
  callwright curate a.jsonl.gz folder-of-parquet --out curated --examples 1000 --seed 7
  callwright curate xlam.json --out curated --model results/models/smollm2-135m-instruct/mlx --max-tokens 1024

Any other key of the configuration's `data` part (workflow/schemas/config.schema.yaml) can be set too. As in
the workflow, a tenth of the examples are without a call; what the records lack of these is made:
  callwright curate my-records.jsonl --out curated --set negatives=0 --set languages='[en, de]'
"""
SCHEMA = Path(__file__).resolve().parents[3] / "schemas" / "config.schema.yaml"
ALL = 10**9  # more examples than any file has


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="files or folders of records")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder that the three files are written to")
    parser.add_argument("--examples", metavar="N", help="keep a sample of N, chosen for coverage (default: all)")
    parser.add_argument("--seed", help="of the sample (default 42)")
    parser.add_argument("--model", metavar="FOLDER", help="model folder whose tokenizer measures lengths")
    parser.add_argument("--max-tokens", metavar="N", help="with --model: reject longer examples (default 512)")
    parser.add_argument("--format", metavar="NAME", help="the records' format, where it is not recognized")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="any other key of `data`")


def run(options: argparse.Namespace) -> int:
    """Curate, write the three files and print the ledger."""
    from callwright.chat.tokens import token_counter
    from callwright.data.curate import curate
    from callwright.data.sources import read_records
    from callwright.runtime.files import write_json, write_jsonl

    shared.quiet_logs()
    if options.max_tokens and not options.model:
        options.usage_error("--max-tokens needs --model: a length in tokens depends on the tokenizer")
    files = shared.existing(options.files)
    settings = settings_of(options)
    records = read_records(files, settings["data"]["source"])
    counter = None
    if options.model:
        counter = token_counter(shared.open_tokenizer(options.model), settings["data"]["format"])
    if not options.examples:  # then it is no shortage that all are fewer than any number
        logging.getLogger("callwright.data.curate").setLevel(logging.ERROR)
    examples, rejections, ledger = curate(records, settings, counter)
    out = Path(options.out)
    write_jsonl(out / "examples.jsonl", (example.to_row() for example in examples))
    write_jsonl(out / "rejections.jsonl", rejections)
    write_json(out / "ledger.json", ledger)
    print(ledger_text(ledger, rejections))
    if counter is None:
        print("\nLengths were not checked: that needs a tokenizer (--model FOLDER).")
    print(f"\n{len(examples)} examples in {out / 'examples.jsonl'}, reasons in {out / 'rejections.jsonl'}")
    return 0


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What rule curate takes from the configuration, from the options and the schema's defaults, checked."""
    import yaml

    from callwright.runtime.config import check, fill_defaults, read_words

    whole = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    parts = ("toolset", "data", "split")
    schema = {**whole, "properties": {key: whole["properties"][key] for key in parts}, "required": list(parts)}
    given = {"examples": options.examples or ALL, "seed": options.seed, "max_tokens": options.max_tokens}
    for pair in options.set:
        key, equals, value = pair.partition("=")
        if not equals:
            options.usage_error(f"--set {pair!r}: expected KEY=VALUE")
        try:
            given[key.removeprefix("data.")] = yaml.load(value, Loader=yaml.BaseLoader)  # as Snakemake's --config
        except yaml.YAMLError as error:
            options.usage_error(f"--set {pair!r}: the value is no YAML: {error}")
    data = {key: value for key, value in given.items() if value is not None}
    settings = read_words(fill_defaults({"data": data, "split": {"unseen_tools": 0}}, schema), schema)
    check(settings, schema)
    settings["data"] |= {"source": shared.record_format(options) or "files", "path": options.files}
    return settings


def ledger_text(ledger: dict[str, Any], rejections: list[dict[str, str]]) -> str:
    """The ledger as a table: each rule that left records out, in the order of the rules, and what it left."""
    first: dict[str, str] = {}
    for row in rejections:
        first.setdefault(row["rule"], f"{row['id']}: {row['reason']}")
    total, kept = ledger["records_in"], ledger["kept"]
    rows = [("records in", "", total, "", "")]
    rows += [
        (step["rule"], step["rejected"], step["left"], share(step["rejected"], total), cut(first.get(step["rule"], "")))
        for step in ledger["rules"]
        if step["rejected"]
    ]
    rows.append(("kept", "", kept, share(kept, total), ""))
    text = shared.table(("", "left out", "left", "share", "the first of them"), rows, right=(1, 2, 3))
    if len(files := ledger.get("files", {})) > 1:
        of = [
            (cut(name, 40), row["records_in"], row["kept"],
             ", ".join(f"{rule} {count}" for rule, count in sorted(row["rejected"].items(), key=lambda one: -one[1])))
            for name, row in files.items()
        ]  # fmt: skip
        text += "\n\n" + shared.table(("file", "records in", "kept", "left out"), of, right=(1, 2))
    for name in ("flags", "negatives"):
        if counts := ledger[name]:
            text += f"\n\n{name}: " + ", ".join(f"{key.replace('_', ' ')} {count}" for key, count in counts.items())
    return text


def share(count: int, total: int) -> str:
    """A share in per cent."""
    return f"{count / total:.1%}" if total else ""


def cut(text: str, limit: int = 90) -> str:
    """The text on one line, harmless for a terminal, cut to a limit."""
    from callwright.chat.view import visible

    text = " ".join(visible(text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
