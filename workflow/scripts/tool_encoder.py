"""Rule tool_encoder: which tool a request is about, learned from requests; or one that was learned before."""

import shutil
from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import Example
    from callwright.data.sources import read_records
    from callwright.decoding.tool_encoder import Projection
    from callwright.lora.adapted import open_model
    from callwright.models.cpu_math import fast_inference
    from callwright.runtime.errors import CallwrightError
    from callwright.runtime.files import write_json
    from callwright.train.tool_encoder import blocks_to_read, fit, lists_of

    given, made = snakemake.input, snakemake.output
    sources = list(given.source)
    if Path(sources[0]).suffix == ".safetensors":
        projection = Projection.load(sources[0])
        shutil.copyfile(sources[0], made.encoder)
        write_json(made.about, {"from": sources[0], "after": projection.after, "scale": projection.scale})
        return
    model, tokenizer = open_model(given.model)
    after = tuple(snakemake.params.blocks or blocks_to_read(len(model.layers)))
    if list(after) != sorted(after) or after[-1] > len(model.layers):
        raise CallwrightError(
            f"config key evaluation.tool_encoder_blocks is {list(after)}: expected numbers from 1 to the model's "
            f"{len(model.layers)} blocks, ascending"
        )
    examples = (record for _, record in read_records(sources) if isinstance(record, Example))
    with fast_inference(model):
        lists = lists_of(model, tokenizer, examples, after)
    projection, found = fit(lists, after, snakemake.params.seed)
    projection.save(made.encoder)
    write_json(made.about, {"from": sources, "after": after, "scale": projection.scale, **found})


job.run(snakemake, main, device=True)
