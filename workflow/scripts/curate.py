"""Rule curate: records of any source become checked examples; each one left out is counted under a rule."""

from callwright.runtime import job


def main(snakemake):
    from callwright.chat.tokens import token_counter
    from callwright.data.limits import resolved
    from callwright.data.mix import curate_all
    from callwright.models.load import load_tokenizer
    from callwright.runtime.files import write_json, write_jsonl

    settings = resolved(snakemake.params[0], snakemake.input.model)
    count_tokens = token_counter(load_tokenizer(snakemake.input.model), settings["data"]["format"])
    examples, rejections, ledger = curate_all(settings, count_tokens)
    write_jsonl(snakemake.output.examples, (example.to_row() for example in examples))
    write_jsonl(snakemake.output.rejections, rejections)
    write_json(snakemake.output.ledger, ledger)


job.run(snakemake, main, device=True)
