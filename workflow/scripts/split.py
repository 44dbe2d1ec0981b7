"""Rule split: train, valid and two test sets that share nothing with training, audited by content."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.data.split import split
    from callwright.runtime.files import write_json, write_jsonl

    settings = snakemake.params[0]
    count_tokens = None
    if any(settings["data"]["augment"].values()):  # only then can an example of the training set become longer
        from callwright.chat.tokens import token_counter
        from callwright.models.load import load_tokenizer

        count_tokens = token_counter(load_tokenizer(snakemake.input.model), settings["data"]["format"])
    examples = read_examples(snakemake.input.examples)
    sets, manifest = split(examples, settings, count_tokens)
    for name, found in sets.items():
        write_jsonl(snakemake.output[name], (example.to_row() for example in found))
    write_json(snakemake.output.manifest, manifest)


job.run(snakemake, main)
