"""Rule audit: nothing is scored before a run's answers to a suite were looked at; only the tokenizer is loaded."""

from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples, read_suites
    from callwright.evals.trust.gate import report
    from callwright.models.load import load_tokenizer
    from callwright.runtime.errors import CallwrightError
    from callwright.runtime.files import read_json, read_jsonl, write_json

    given, out = snakemake.input, Path(snakemake.output[0])
    # Snakemake deletes the output of a job that failed; what it found is to be read.
    failed = out.with_name("audit-failed.json")
    failed.unlink(missing_ok=True)
    found = report(
        snakemake.wildcards.suite,
        read_examples(given.examples),
        [row for path in given.generations for row in read_jsonl(path)],
        load_tokenizer(given.model),
        read_suites(given.sets),
        read_json(given.split),
        snakemake.params[0],
    )
    write_json(failed if found["problem"] else out, found)
    if found["problem"]:
        raise CallwrightError(f"{found['problem']}. All findings: {failed}")


job.run(snakemake, main)
