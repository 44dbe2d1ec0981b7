"""Rule execute: stored answers to the tasks, executed in the built-in world; no model is loaded."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.evals.executed.execute import execute_all, summarize
    from callwright.evals.stored import evaluation_rows
    from callwright.runtime.files import write_json, write_jsonl

    tasks = read_examples(snakemake.input.tasks)
    answers = next(iter(evaluation_rows(snakemake.input.generations).values()))
    rows = {condition: execute_all(tasks, found) for condition, found in answers.items()}
    write_jsonl(snakemake.output.rows, (row for of in rows.values() for row in of))
    write_json(snakemake.output.summary, summarize(rows))


job.run(snakemake, main)
