"""Rule figures: the run's figures from its stored numbers; no model is loaded."""

from pathlib import Path

from callsmith.runtime import job


def main(snakemake):
    from callsmith.report.figures import draw_all, save_as
    from callsmith.runtime.files import read_json, read_jsonl

    summary = read_json(snakemake.input.summary)
    folder = Path("results", snakemake.wildcards.run)
    scores = {
        suite: {c: list(read_jsonl(folder / "evaluation" / suite / c / "scores.jsonl")) for c in by_condition}
        for suite, by_condition in summary["evaluation"].items()
    }

    def save(name, figure):
        for path in (snakemake.output[f"{name}_svg"], snakemake.output[f"{name}_png"]):
            save_as(figure, path)

    draw_all(summary, list(read_jsonl(snakemake.input.history)), scores, save)


job.run(snakemake, main)
