"""Rule report: the run on one page; no model is loaded."""

from pathlib import Path

from callsmith.runtime import job


def main(snakemake):
    from callsmith.data.records import Example
    from callsmith.report.page import render
    from callsmith.report.summary import evaluation_rows
    from callsmith.runtime.files import atomic_write, read_json, read_jsonl

    summary = read_json(snakemake.input.summary)
    folder = Path("results", snakemake.wildcards.run)
    page = render(
        summary,
        figures={Path(path).stem: Path(path).read_text(encoding="utf-8") for path in snakemake.input.figures},
        examples={
            suite: [Example.from_row(row) for row in read_jsonl(folder / "data" / f"{suite}.jsonl")]
            for suite in summary["evaluation"]
        },
        scores=evaluation_rows(folder / "evaluation", summary["evaluation"], "scores.jsonl"),
        generations=evaluation_rows(folder / "evaluation", summary["evaluation"], "generations.jsonl"),
        rejections=list(read_jsonl(snakemake.input.rejections)),
    )
    with atomic_write(snakemake.output[0]) as stream:
        stream.write(page.encode())


job.run(snakemake, main)
