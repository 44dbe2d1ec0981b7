"""Rule generate: greedy answers of one condition to one suite's items, kept as they came."""

from snakemake.script import snakemake

from callsmith.runtime import job


def main(snakemake):
    from itertools import islice

    from callsmith.data.records import Example
    from callsmith.evals.generate import generate
    from callsmith.models.load import load
    from callsmith.runtime.files import read_jsonl

    settings = snakemake.params[0]["evaluation"]
    adapter = next(iter(snakemake.input.get("adapter", [])), None)
    model, tokenizer = load(snakemake.input.model, adapter)
    rows = islice(read_jsonl(snakemake.input.examples), settings["items"])
    generate(
        model,
        tokenizer,
        [Example.from_row(row) for row in rows],
        suite=snakemake.wildcards.suite,
        condition=snakemake.wildcards.condition,
        settings=settings,
        out_path=snakemake.output[0],
    )


job.run(snakemake, main, device=True)
