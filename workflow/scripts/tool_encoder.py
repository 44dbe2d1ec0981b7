"""Rule tool_encoder: which tool a request is about, learned from requests; or one that was learned before."""

import logging
from pathlib import Path
from types import SimpleNamespace

from callwright.runtime import job

log = logging.getLogger(__name__)


def main(snakemake):
    from callwright.data.records import Example
    from callwright.data.sources import read_records
    from callwright.decoding.places import windows
    from callwright.evals.tool_encoder import ToolProjection, model_of
    from callwright.lora.adapted import open_model
    from callwright.models.cpu_math import fast_inference
    from callwright.runtime.errors import CallwrightError
    from callwright.runtime.files import read_json, write_json
    from callwright.train.tool_encoder import blocks_to_read, fit, lists_of

    given, made = snakemake.input, snakemake.output
    sources = list(given.source)
    if not sources:
        raise CallwrightError("config key evaluation.tool_encoder names neither a tool encoder nor requests")
    expected = model_of(SimpleNamespace(**read_json(f"{given.model}/config.json")))
    if Path(sources[0]).suffix == ".safetensors":
        projection = ToolProjection.load(sources[0])
        if projection.model != expected:
            raise CallwrightError(
                f"config key evaluation.tool_encoder is {sources[0]}, which was made for another model "
                f"({projection.model}; this is {expected}): name this one's, or requests to learn it from"
            )
        projection.save(made.encoder)
        write_json(made.about, {"from": sources[0], "after": projection.after, "scale": projection.scale})
        return
    model, tokenizer = open_model(given.model)
    if windows(model) is None:
        raise CallwrightError("config key evaluation.tool_encoder: this kind of model names tools alone: leave it out")
    after = tuple(snakemake.params.blocks or blocks_to_read(len(model.layers)))
    if list(after) != sorted(after) or after[-1] > len(model.layers):
        raise CallwrightError(
            f"config key evaluation.tool_encoder_blocks is {list(after)}: expected numbers from 1 to the model's "
            f"{len(model.layers)} blocks, ascending"
        )
    records = [record for _, record in read_records(sources)]
    examples = [record for record in records if isinstance(record, Example)]
    log.info("%d records, of which %d cannot be read", len(records), len(records) - len(examples))
    with fast_inference(model):
        lists = lists_of(model, tokenizer, examples, after)
    projection, found = fit(lists, expected, after, snakemake.params.seed)
    projection.save(made.encoder)
    write_json(made.about, {"from": sources, "after": after, "scale": projection.scale, **found})


job.run(snakemake, main, device=True)
