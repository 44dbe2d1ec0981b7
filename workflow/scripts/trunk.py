"""Rule trunk: the frozen blocks' outputs, once per record, into the store that runs share, where that pays."""

from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.lora import layers
    from callwright.lora.arithmetic import arithmetic
    from callwright.lora.trunk import prepare
    from callwright.models.load import load
    from callwright.runtime.files import read_jsonl, write_json

    settings, folder = snakemake.params[0]["training"], snakemake.input.model

    def open_arithmetic():
        model, _ = load(folder)
        layers.attach(model, settings["lora"])
        return arithmetic(model, settings)

    index = prepare(
        folder,
        list(read_jsonl(snakemake.input.train)),
        list(read_jsonl(snakemake.input.valid)),
        settings,
        parent=Path(folder).parent / "trunk",
        open_arithmetic=open_arithmetic,
        shared=snakemake.params[0]["shared"],
    )
    write_json(snakemake.output[0], index)


job.run(snakemake, main, device=True)
