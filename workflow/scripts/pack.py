"""Rule pack: adapter, fused model and card in one folder, and the exports that the configuration asks for."""

from callwright.runtime import job


def main(snakemake):
    from functools import partial

    from callwright.data.records import read_examples
    from callwright.package.gguf_check import check_gguf
    from callwright.package.pack import pack
    from callwright.report.card import card
    from callwright.runtime.files import read_json

    given, settings, style = snakemake.input, snakemake.params[0]["package"], snakemake.params[0]["style"]
    fused = read_json(given.report)
    examples = read_examples(*given.get("examples", []))
    pack(
        given.adapter,
        given.fused,
        card(read_json(given.summary), fused, settings["exports"]),
        settings,
        snakemake.output[0],
        snakemake.wildcards.run,
        next(iter(given.get("decision", [])), None),
        next(iter(given.get("source", [])), None),
        next(iter(given.get("encoder", [])), None),
        partial(check_gguf, fused=fused, examples=examples, settings=settings, style=style),
    )


job.run(snakemake, main, device=True)
