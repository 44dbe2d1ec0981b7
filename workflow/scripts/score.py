"""Rule score: each stored answer through the funnel; no model is loaded."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.evals.scoring.score import score_all, summarize
    from callwright.runtime.files import read_jsonl, write_json, write_jsonl

    given, made = snakemake.input, snakemake.output
    examples = read_examples(given.examples)
    for answers, scores_path, summary_path in zip(given.generations, made.scores, made.summaries, strict=True):
        scores = score_all(examples, read_jsonl(answers))
        write_jsonl(scores_path, scores)
        write_json(summary_path, summarize(scores))


job.run(snakemake, main)
