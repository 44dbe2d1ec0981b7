"""Rule taught: what the corrections taught, and whether anything else got worse; no model is loaded."""

from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_suites
    from callwright.evals.stored import evaluation_rows
    from callwright.report.taught import taught
    from callwright.runtime.files import read_json, read_jsonl, write_json

    given, kept = snakemake.input, Path(snakemake.output[0]).with_name("previous") / "scores"
    went_on = read_json(given.training)["went_on"]
    found = taught(
        read_json(given.ledger),
        examples=read_suites(given.examples),
        after={suite: of["tuned"] for suite, of in evaluation_rows(given.rows).items() if "tuned" in of},
        before={path.stem: list(read_jsonl(path)) for path in sorted(kept.glob("*.jsonl"))} if went_on else {},
    )
    write_json(snakemake.output[0], found)


job.run(snakemake, main)
