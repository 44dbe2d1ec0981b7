"""Rule decide: from which confidence on the fine-tuned model should call, fitted on validation items."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.evals.threshold import decide
    from callwright.lora.adapted import open_model
    from callwright.runtime.files import write_json

    given, style = snakemake.input, snakemake.params[0]["data"]["format"]
    model, tokenizer = open_model(given.model, given.adapter)
    decided = decide(model, tokenizer, list(read_examples(given.examples)), style)
    write_json(snakemake.output[0], {**decided, "grounding": snakemake.params.grounding})


job.run(snakemake, main, device=True)
