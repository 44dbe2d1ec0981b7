"""Rule decide: from which confidence on the fine-tuned model should call, fitted on validation items."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.data.toolset.toolset import load_toolset
    from callwright.evals.threshold import decide, stored
    from callwright.evals.tool_encoder import WEIGHT, ToolEncoder
    from callwright.evals.tool_reading import ToolReading
    from callwright.lora.adapted import open_model
    from callwright.runtime.files import write_json

    given, params, own = snakemake.input, snakemake.params, snakemake.params[0]
    data = own["data"]
    model, tokenizer = open_model(given.model, given.adapter)
    encoders = (ToolEncoder.load(path, WEIGHT) for path in given.encoder)
    reading = next((ToolReading(tokenizer, encoder, params.shown) for encoder in encoders), None)
    begun = next(map(stored, params.begun), None)
    decided = decide(model, tokenizer, read_examples(given.examples), data["format"], reading=reading, begun=begun)
    decided["grounding"] = params.grounding
    if reading:
        decided["tool_encoder"] = {"weight": WEIGHT, "offered": params.shown}
    if data["source"] == "toolset":
        decided["questions"] = {tool.name: tool.ask for tool in load_toolset(own["toolset"]).tools if tool.ask}
    write_json(snakemake.output[0], decided)


job.run(snakemake, main, device=True)
