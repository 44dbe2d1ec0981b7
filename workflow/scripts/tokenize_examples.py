"""Rule tokenize_examples: examples as token ids, with the spans that are trained."""

from callwright.runtime import job


def main(snakemake):
    from callwright.chat.tokens import tokenize_example
    from callwright.data.records import read_examples
    from callwright.models.load import load_tokenizer
    from callwright.runtime.files import write_jsonl

    tokenizer = load_tokenizer(snakemake.input.model)
    style = snakemake.params[0]["data"]["format"]
    examples = read_examples(snakemake.input.examples, *snakemake.input.get("corrections", []))
    write_jsonl(snakemake.output[0], (tokenize_example(tokenizer, example, style) for example in examples))


job.run(snakemake, main, device=True)
