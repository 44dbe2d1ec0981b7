"""Rule abstain: requests in pairs, of which one wants a call and its twin none; the suite `abstain`."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.data.toolset.toolset import load_toolset
    from callwright.evals.abstain import make_pairs
    from callwright.runtime.files import write_jsonl

    given = snakemake.input
    learned = read_examples(given.train, given.valid)
    pairs = make_pairs(load_toolset(given.toolset), snakemake.params[0]["data"]["seed"], learned)
    write_jsonl(snakemake.output[0], (example.to_row() for example in pairs))


job.run(snakemake, main)
