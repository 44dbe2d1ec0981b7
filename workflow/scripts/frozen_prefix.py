"""Rule frozen_prefix: the frozen blocks' outputs, once per record, into the store that runs share, where that pays."""

from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.lora import layers
    from callwright.lora.backend import backend
    from callwright.lora.frozen_prefix import prepare
    from callwright.models.load import load
    from callwright.runtime.files import read_jsonl, write_json

    settings, folder = snakemake.params[0]["training"], snakemake.input.model

    def open_backend():
        model, _ = load(folder)
        layers.attach(model, settings["lora"])
        return backend(model, settings)

    index = prepare(
        folder,
        list(read_jsonl(snakemake.input.train)),
        list(read_jsonl(snakemake.input.valid)),
        settings,
        parent=Path(folder).parent / "frozen_prefix",
        open_backend=open_backend,
        shared=snakemake.params[0]["shared"],
    )
    write_json(snakemake.output[0], index)


job.run(snakemake, main, device=True)
