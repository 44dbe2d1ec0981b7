"""Rule generate: greedy answers of one condition to one suite's items, kept as they came."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.evals.conditions import CONDITIONS
    from callwright.evals.generate import generate
    from callwright.evals.tool_reading import open_reading
    from callwright.lora.adapted import open_model
    from callwright.models.marker_rows import put_rows
    from callwright.runtime.files import read_json, read_jsonl

    settings = snakemake.params[0]
    adapter = next(iter(snakemake.input.get("adapter", [])), None)
    model, tokenizer = open_model(snakemake.input.model, adapter)
    if CONDITIONS[snakemake.wildcards.condition].own_rows:
        put_rows(model, snakemake.input.model, "original")
    decided = next((read_json(path) for path in snakemake.input.get("decision", [])), None)
    reading = None
    if CONDITIONS[snakemake.wildcards.condition].threshold:
        reading = open_reading(tokenizer, decided, snakemake.input.decision[0])
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
        threshold=decided and decided["threshold"],
        reading=reading,
        questions=decided and decided.get("questions"),
        free=[row for path in snakemake.input.get("free", []) for row in read_jsonl(path)],
    )


job.run(snakemake, main, device=True)
