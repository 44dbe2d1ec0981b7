"""Rule convert_model: a folder that mlx_lm.load opens, with a chat template that renders tools."""

from callsmith.runtime import job


def main(snakemake):
    from callsmith.models.convert import convert
    from callsmith.runtime.files import read_json

    convert(snakemake.input.folder, read_json(snakemake.input.manifest), snakemake.output.folder)


job.run(snakemake, main, device=True)
