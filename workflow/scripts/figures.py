"""Rule figures: the run's figures from its stored numbers; no model is loaded."""

from pathlib import Path

from callsmith.runtime import job


def main(snakemake):
    from callsmith.report.figures import draw_all, save_as
    from callsmith.report.summary import evaluation_rows
    from callsmith.runtime.files import read_json, read_jsonl

    summary = read_json(snakemake.input.summary)
    folder = Path("results", snakemake.wildcards.run, "evaluation")
    scores = evaluation_rows(folder, summary["evaluation"], "scores.jsonl")

    def save(name, figure):
        for path in (snakemake.output[f"{name}_svg"], snakemake.output[f"{name}_png"]):
            save_as(figure, path)

    draw_all(summary, list(read_jsonl(snakemake.input.history)), scores, save)


job.run(snakemake, main)
