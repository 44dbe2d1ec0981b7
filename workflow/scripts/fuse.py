"""Rule fuse: the adapter in the model's own weights, each touched layer as light as held-out examples allow."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.package.fuse import fuse
    from callwright.runtime.files import write_json

    given, settings = snakemake.input, snakemake.params[0]
    found = fuse(
        given.model,
        given.adapter,
        read_examples(given.examples),
        settings["package"],
        settings["style"],
        snakemake.output.folder,
    )
    write_json(snakemake.output.report, found)


job.run(snakemake, main, device=True)
