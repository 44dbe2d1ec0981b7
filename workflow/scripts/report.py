"""Rule report: the run on one page; no model is loaded."""

from pathlib import Path

from callsmith.runtime import job


def main(snakemake):
    from callsmith.data.records import Example
    from callsmith.report.page import render
    from callsmith.runtime.files import atomic_write, read_json, read_jsonl

    summary = read_json(snakemake.input.summary)
    folder = Path("results", snakemake.wildcards.run)

    def rows_of(name):
        return {
            suite: {c: list(read_jsonl(folder / "evaluation" / suite / c / name)) for c in by_condition}
            for suite, by_condition in summary["evaluation"].items()
        }

    page = render(
        summary,
        figures={Path(path).stem: Path(path).read_text(encoding="utf-8") for path in snakemake.input.figures},
        examples={
            suite: [Example.from_row(row) for row in read_jsonl(folder / "data" / f"{suite}.jsonl")]
            for suite in summary["evaluation"]
        },
        scores=rows_of("scores.jsonl"),
        generations=rows_of("generations.jsonl"),
        rejections=list(read_jsonl(snakemake.input.rejections)),
    )
    with atomic_write(snakemake.output[0]) as stream:
        stream.write(page.encode())


job.run(snakemake, main)
