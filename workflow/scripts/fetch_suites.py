"""Rule fetch_suites: BFCL's questions and answers from its wheel on PyPI, the hash checked."""

from callwright.runtime import job


def main(snakemake):
    from callwright.evals.suites import fetch_bfcl
    from callwright.runtime.files import write_json

    write_json(snakemake.output.manifest, fetch_bfcl(snakemake.output.folder))


job.run(snakemake, main)
