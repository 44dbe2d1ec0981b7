"""Rule data_report: what the run learns from and is tested on, on one page; only the tokenizer is loaded."""

from callwright.runtime import job


def main(snakemake):
    from callwright.chat.tokens import tokenize_example
    from callwright.data.limits import resolved
    from callwright.data.records import read_suites
    from callwright.models.load import load_tokenizer
    from callwright.report.data_page import render
    from callwright.runtime.files import atomic_write, read_json, read_jsonl

    given, settings = snakemake.input, resolved(snakemake.params[0], snakemake.input.model)
    tokenizer, style = load_tokenizer(given.model), settings["data"]["format"]
    sets = read_suites(given.sets)
    page = render(
        snakemake.wildcards.run,
        settings,
        ledger=read_json(given.ledger),
        rejections=list(read_jsonl(given.rejections)),
        manifest=read_json(given.manifest),
        sets=sets,
        tokens={name: [tokenize_example(tokenizer, e, style) for e in found] for name, found in sets.items()},
        tokenizer=tokenizer,
    )
    with atomic_write(snakemake.output[0]) as stream:
        stream.write(page.encode())


job.run(snakemake, main, device=True)
