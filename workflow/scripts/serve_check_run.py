"""Rule serve_check_run: the packaged model behind two servers, held against answers that were generated offline."""

from callwright.runtime import job


def main(snakemake):
    from pathlib import Path

    from callwright.data.records import read_examples
    from callwright.runtime.errors import CallwrightError
    from callwright.runtime.files import atomic_write, read_jsonl, write_json
    from callwright.serve.check.compare import as_text
    from callwright.serve.check.verify import verify

    given, settings = snakemake.input, snakemake.params[0]
    found = verify(
        Path(given.package) / "model",
        read_examples(given.examples),
        settings,
        Path(snakemake.output.json).parent / "serve_check",
        [row for path in given.get("generations", []) for row in read_jsonl(path)],
    )
    found |= {"run": snakemake.wildcards.run, "suite": settings["suite"]}
    text = as_text(found)
    job.log.info("%s", text)  # a rule that fails loses its outputs, its log stays
    write_json(snakemake.output.json, found)
    with atomic_write(snakemake.output.table) as stream:
        stream.write(text.encode())
    if not found["ok"]:
        raise CallwrightError("what is served is not what was evaluated: see the checks that failed in the log")


job.run(snakemake, main, device=True)
