"""Rule summarize: everything that the run measured, in one file; no model is loaded."""

from pathlib import Path

from callsmith.runtime import job


def main(snakemake):
    from callsmith.data.records import Example
    from callsmith.report.summary import evaluation_rows, summarize
    from callsmith.runtime.files import read_json, read_jsonl, write_json

    config, given = snakemake.params[0], snakemake.input
    suites, conditions = config["evaluation"]["suites"], config["evaluation"]["conditions"]
    folder = Path("results", snakemake.wildcards.run)
    scores = {s: {c: folder / "evaluation" / s / c for c in conditions} for s in suites}
    summary = summarize(
        config=config,
        model=read_json(f"{given.model}/model.json"),
        split=read_json(given.split),
        ledger=read_json(given.ledger),
        training=read_json(given.training),
        scores={s: {c: read_json(at / "scores.json") for c, at in of.items()} for s, of in scores.items()},
        rows=evaluation_rows(folder / "evaluation", scores, "scores.jsonl"),
        examples={s: [Example.from_row(row) for row in read_jsonl(folder / "data" / f"{s}.jsonl")] for s in suites},
        benchmarks=given.benchmarks,
    )
    write_json(snakemake.output[0], summary)


job.run(snakemake, main)
