"""Rule figures: the run's figures from its stored numbers; no model is loaded."""

from callsmith.runtime import job


def main(snakemake):
    from callsmith.report.drawing import save_as
    from callsmith.report.figures import draw_all
    from callsmith.report.summary import evaluation_rows
    from callsmith.runtime.files import read_json, read_jsonl

    summary = read_json(snakemake.input.summary)
    scores = evaluation_rows(snakemake.input.rows)

    def save(name, figure):
        for path in (snakemake.output[f"{name}_svg"], snakemake.output[f"{name}_png"]):
            save_as(figure, path)

    draw_all(summary, list(read_jsonl(snakemake.input.history)), scores, save)


job.run(snakemake, main)
