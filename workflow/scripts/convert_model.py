"""Rule convert_model: a folder that mlx_lm.load opens, with a chat template that renders tools."""

from callwright.runtime import job


def main(snakemake):
    from callwright.models.convert import convert
    from callwright.runtime.files import read_json

    manifest, settings = read_json(snakemake.input.manifest), snakemake.params[0]
    convert(
        snakemake.input.folder,
        manifest,
        snakemake.output.folder,
        inexact=settings["inexact"],
        call_format=settings["call_format"],
        rows=settings["marker_rows"],
    )


job.run(snakemake, main, device=True)
