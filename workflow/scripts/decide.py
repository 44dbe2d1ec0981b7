"""Rule decide: from which confidence on the fine-tuned model should call, fitted on validation items."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.noisy_channel import settings_for
    from callwright.data.records import read_examples
    from callwright.data.toolset.toolset import load_toolset
    from callwright.evals import tool_encoder
    from callwright.evals.threshold import decide
    from callwright.lora.adapted import open_model
    from callwright.runtime.files import write_json

    given, params, own = snakemake.input, snakemake.params, snakemake.params[0]
    data = own["data"]
    model, tokenizer = open_model(given.model, given.adapter)
    valid = read_examples(given.examples)
    decided = decide(model, tokenizer, valid, data["format"])
    decided["grounding"] = params.grounding
    if params.noisy_channel:
        decided["noisy_channel"] = settings_for(
            [*read_examples(given.train), *valid], data["seed"], params.tool_encoder
        )
    if params.tool_encoder:
        decided["tool_encoder"] = {"weight": tool_encoder.WEIGHT}
    if data["source"] == "toolset":
        decided["questions"] = {tool.name: tool.ask for tool in load_toolset(own["toolset"]).tools if tool.ask}
    write_json(snakemake.output[0], decided)


job.run(snakemake, main, device=True)
