"""Rule generate: greedy answers of one condition to one suite's items, kept as they came."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import Example
    from callwright.evals.generate import generate
    from callwright.lora import layers
    from callwright.models.load import load
    from callwright.runtime import device
    from callwright.runtime.files import read_jsonl

    settings = snakemake.params[0]
    adapter = next(iter(snakemake.input.get("adapter", [])), None)
    model, tokenizer = load(snakemake.input.model)
    if adapter is not None:
        layers.load_adapter(model, adapter)
        if device.on_cpu():
            layers.merge(model)
    generate(
        model,
        tokenizer,
        [Example.from_row(row) for row in read_jsonl(snakemake.input.examples)],
        suite=snakemake.wildcards.suite,
        condition=snakemake.wildcards.condition,
        settings=settings["evaluation"],
        out_path=snakemake.output.generations,
        style=settings["data"]["format"],
        fit_limit=not settings["own"],
        train=[Example.from_row(row) for path in snakemake.input.get("train", []) for row in read_jsonl(path)],
        about_path=snakemake.output.about,
    )


job.run(snakemake, main, device=True)
