"""Rule summarize: everything that the run measured, in one file; no model is loaded."""

from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_suites
    from callwright.evals.stored import evaluation_facts, evaluation_rows
    from callwright.report.summary import summarize
    from callwright.runtime.files import read_json, write_json

    config, given = snakemake.params[0], snakemake.input
    about = [Path(path).with_name("generate.json") for path in given.generations]
    summary = summarize(
        config=config,
        model=read_json(f"{given.model}/model.json"),
        split=read_json(given.split),
        ledger=read_json(given.ledger),
        training=read_json(given.training),
        scores=evaluation_facts(given.scores),
        rows=evaluation_rows(given.rows),
        examples=read_suites(given.examples),
        benchmarks=given.benchmarks,
        generations=evaluation_rows(given.generations),
        about=evaluation_facts(about),
        audits={Path(path).parts[-2]: read_json(path) for path in given.get("audits", ())},
    )
    for key in ("judge", "executed", "taught", "decision"):
        if given[key]:
            summary[key] = read_json(given[key])
    write_json(snakemake.output[0], summary)


job.run(snakemake, main)
