"""Rule summarize: everything that the run measured, in one file; no model is loaded."""

from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import Example
    from callwright.report.summary import evaluation_rows, summarize
    from callwright.runtime.files import read_json, read_jsonl, write_json

    config, given = snakemake.params[0], snakemake.input
    scores, about = {}, {}
    for path in map(Path, given.scores):
        scores.setdefault(path.parts[-3], {})[path.parts[-2]] = read_json(path)
    for path in (Path(path).with_name("generate.json") for path in given.generations):
        if path.exists():  # older answers have none
            about.setdefault(path.parts[-3], {})[path.parts[-2]] = read_json(path)
    summary = summarize(
        config=config,
        model=read_json(f"{given.model}/model.json"),
        split=read_json(given.split),
        ledger=read_json(given.ledger),
        training=read_json(given.training),
        scores=scores,
        rows=evaluation_rows(given.rows),
        examples={Path(path).stem: list(map(Example.from_row, read_jsonl(path))) for path in given.examples},
        benchmarks=given.benchmarks,
        generations=evaluation_rows(given.generations),
        about=about,
        audits={Path(path).parts[-2]: read_json(path) for path in given.get("audits", ())},
    )
    for key in ("judge", "executed", "taught"):
        if given[key]:
            summary[key] = read_json(given[key])
    write_json(snakemake.output[0], summary)


job.run(snakemake, main)
