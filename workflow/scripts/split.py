"""Rule split: train, valid and two test sets that share nothing with training, audited by content."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.limits import resolved
    from callwright.data.records import read_examples
    from callwright.data.split import split
    from callwright.data.toolset.own_examples import POOL_KEPT
    from callwright.runtime.files import write_json, write_jsonl

    settings = resolved(snakemake.params[0], snakemake.input.model)
    count_tokens = None
    # Only then can an example become longer.
    if any(settings["data"]["augment"].values()) or settings["data"]["lists"]:
        from callwright.chat.tokens import token_counter
        from callwright.models.load import load_tokenizer

        count_tokens = token_counter(load_tokenizer(snakemake.input.model), settings["data"]["format"])
    examples = read_examples(snakemake.input.examples)
    kept = [example for example in examples if POOL_KEPT in example.tags]  # the user's own: no set is near them
    sets, manifest = split([example for example in examples if POOL_KEPT not in example.tags], settings, count_tokens)
    manifest["kept_back"] = len(kept)
    for name, found in sets.items():
        write_jsonl(snakemake.output[name], (example.to_row() for example in found))
    write_jsonl(snakemake.output.test_examples, (example.to_row() for example in kept))
    write_json(snakemake.output.manifest, manifest)


job.run(snakemake, main)
