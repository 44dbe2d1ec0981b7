"""Rule convert_model: a folder that mlx_lm.load opens, with a chat template that renders tools."""

from callwright.runtime import job


def main(snakemake):
    from callwright.models.convert import convert
    from callwright.runtime.files import read_json

    convert(snakemake.input.folder, read_json(snakemake.input.manifest), snakemake.output.folder)


job.run(snakemake, main, device=True)
