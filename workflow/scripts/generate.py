"""Rule generate: greedy answers of one condition to one suite's items, kept as they came."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.evals.generate import generate
    from callwright.lora.adapted import open_model

    settings = snakemake.params[0]
    adapter = next(iter(snakemake.input.get("adapter", [])), None)
    model, tokenizer = open_model(snakemake.input.model, adapter)
    generate(
        model,
        tokenizer,
        read_examples(snakemake.input.examples),
        suite=snakemake.wildcards.suite,
        condition=snakemake.wildcards.condition,
        settings=settings["evaluation"],
        out_path=snakemake.output.generations,
        style=settings["data"]["format"],
        fit_limit=not settings["own"],
        train=read_examples(*snakemake.input.get("train", [])),
        about_path=snakemake.output.about,
    )


job.run(snakemake, main, device=True)
