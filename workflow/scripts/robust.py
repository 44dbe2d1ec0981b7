"""Rule robust: the items of test_seen that are answered, changed so that the right answer stays the same."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.evals.robustness.changes import build, pool_of
    from callwright.runtime.files import write_json, write_jsonl

    names = ("test_seen", "valid")
    sets = {name: read_examples(snakemake.input[name]) for name in names}
    examples, about = build(snakemake.wildcards.suite, sets["test_seen"][: snakemake.params[0]], pool_of(sets))
    write_jsonl(snakemake.output.examples, (example.to_row() for example in examples))
    write_json(snakemake.output.about, about)


job.run(snakemake, main)
