"""Rule report: the run on one page; no model is loaded."""

import os
from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_suites
    from callwright.evals.stored import evaluation_rows
    from callwright.report.page import render
    from callwright.runtime.files import atomic_write, read_json, read_jsonl

    summary = read_json(snakemake.input.summary)
    page = render(
        summary,
        figures={Path(path).stem: Path(path).read_text(encoding="utf-8") for path in snakemake.input.figures},
        examples=read_suites(snakemake.input.examples),
        scores=evaluation_rows(snakemake.input.rows),
        generations=evaluation_rows(snakemake.input.generations),
        rejections=list(read_jsonl(snakemake.input.rejections)),
        data_page=os.path.relpath(snakemake.input.data_page, os.path.dirname(snakemake.output[0])),
    )
    with atomic_write(snakemake.output[0]) as stream:
        stream.write(page.encode())


job.run(snakemake, main)
