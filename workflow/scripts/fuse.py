"""Rule fuse: the adapter in the model's own weights, each touched layer as light as held-out examples allow."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import Example
    from callwright.package.fuse import fuse
    from callwright.runtime.files import read_jsonl, write_json

    given, settings = snakemake.input, snakemake.params[0]
    found = fuse(
        given.model,
        given.adapter,
        [Example.from_row(row) for row in read_jsonl(given.examples)],
        settings["package"],
        settings["style"],
        snakemake.output.folder,
    )
    write_json(snakemake.output.report, found)


job.run(snakemake, main, device=True)
