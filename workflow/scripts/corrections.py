"""Rule corrections: what a model was told it should have answered, as training examples and as a test."""

from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.chat.tokens import token_counter
    from callwright.data import corrections
    from callwright.data.limits import resolved
    from callwright.data.records import read_examples
    from callwright.models.load import load_tokenizer
    from callwright.runtime.files import write_json, write_jsonl

    settings, given, out = resolved(snakemake.params[0], snakemake.input.model), snakemake.input, snakemake.output
    count = token_counter(load_tokenizer(given.model), settings["data"]["format"])
    wanted = corrections.settings_of(settings)
    found = corrections.read(wanted["path"])
    tests = read_examples(*given.tests)
    trained, kept, rejected = corrections.curated(found, tests, lambda e: count(e) <= settings["data"]["max_tokens"])
    write_jsonl(out.train, (e.to_row() for e in corrections.repeated(trained, wanted["repeat"])))
    write_jsonl(out.test, (example.to_row() for example in kept))
    write_json(out.ledger, corrections.ledger(found, trained, rejected, Path(wanted["path"]).name, wanted["repeat"]))


job.run(snakemake, main, device=True)
