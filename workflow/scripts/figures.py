"""Rule figures: the run's figures from its stored numbers; no model is loaded."""

from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.evals.stored import evaluation_rows
    from callwright.report.drawing import save_as
    from callwright.report.figures import draw_all
    from callwright.runtime.files import read_json, read_jsonl

    summary = read_json(snakemake.input.summary)
    scores = evaluation_rows(snakemake.input.rows)

    names = [Path(path).stem for path in snakemake.output if path.endswith(".svg")]

    def save(name, figure):
        for path in (snakemake.output[f"{name}_svg"], snakemake.output[f"{name}_png"]):
            save_as(figure, path)

    draw_all(summary, list(read_jsonl(snakemake.input.history)), scores, save, names)


job.run(snakemake, main)
