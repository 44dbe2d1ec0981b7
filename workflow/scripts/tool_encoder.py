"""Rule tool_encoder: which tool a request is about, learned from requests; or one that was learned before."""

import logging
from pathlib import Path

from callwright.runtime import job

log = logging.getLogger(__name__)


def main(snakemake):
    from callwright.data.records import Example
    from callwright.data.sources import read_records
    from callwright.evals.tool_encoder import open_tuned, save, untrained
    from callwright.models.folders import share
    from callwright.runtime.errors import CallwrightError
    from callwright.runtime.files import write_json
    from callwright.train.tool_encoder import fit
    from callwright.train.tool_lists import lists_of

    made, sources = snakemake.output, list(snakemake.input.source)
    if not sources:
        raise CallwrightError("config key evaluation.tool_encoder names neither a tool encoder nor requests")
    if Path(sources[0]).suffix == ".safetensors":
        *_, scale = open_tuned(sources[0])
        share(Path(sources[0]), Path(made.encoder))
        write_json(made.about, {"from": sources[0], "scale": scale})
        return
    records = [record for _, record in read_records(sources)]
    examples = [record for record in records if isinstance(record, Example)]
    log.info("%d records, of which %d cannot be read", len(records), len(records) - len(examples))
    encoder, tokenizer, heads = untrained(snakemake.params.seed)
    scale, found = fit(encoder, heads, lists_of(tokenizer, examples), snakemake.params.seed)
    save(made.encoder, encoder, heads, scale)
    write_json(made.about, {"from": sources, "scale": scale, **found})


job.run(snakemake, main, device=True)
