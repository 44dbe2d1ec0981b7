"""Rule score: each stored answer through the funnel; no model is loaded."""

from callsmith.runtime import job


def main(snakemake):
    from callsmith.data.records import Example
    from callsmith.evals.score import score_all, summarize
    from callsmith.runtime.files import read_jsonl, write_json, write_jsonl

    examples = map(Example.from_row, read_jsonl(snakemake.input.examples))
    scores = score_all(examples, read_jsonl(snakemake.input.generations))
    write_jsonl(snakemake.output.scores, scores)
    write_json(snakemake.output.summary, summarize(scores))


job.run(snakemake, main)
