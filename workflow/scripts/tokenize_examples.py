"""Rule tokenize_examples: examples as token ids, with the spans that are trained."""

from callwright.runtime import job


def main(snakemake):
    from callwright.chat.tokens import tokenize_example
    from callwright.data.records import Example
    from callwright.models.load import load_tokenizer
    from callwright.runtime.files import read_jsonl, write_jsonl

    tokenizer = load_tokenizer(snakemake.input.model)
    style = snakemake.params[0]["data"]["format"]
    files = [snakemake.input.examples, *snakemake.input.get("corrections", [])]
    examples = (Example.from_row(row) for path in files for row in read_jsonl(path))
    write_jsonl(snakemake.output[0], (tokenize_example(tokenizer, example, style) for example in examples))


job.run(snakemake, main, device=True)
