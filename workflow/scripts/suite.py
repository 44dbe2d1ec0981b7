"""Rule suite: a test suite from elsewhere as examples, in the order in which they are answered."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.sources import read_records
    from callwright.evals.suites import bfcl_records, build
    from callwright.runtime.files import write_json, write_jsonl

    name, path = snakemake.wildcards.suite, snakemake.params[0]
    records = read_records(path) if path else bfcl_records(snakemake.input[0], name.removeprefix("bfcl_"))
    examples, about = build(name, records)
    write_jsonl(snakemake.output.examples, (example.to_row() for example in examples))
    write_json(snakemake.output.about, about)


job.run(snakemake, main)
