"""Rule pack: adapter, fused model and card in one folder, and the exports that the configuration asks for."""

from callwright.runtime import job


def main(snakemake):
    from callwright.package.pack import pack
    from callwright.report.card import card
    from callwright.runtime.files import read_json

    given, settings = snakemake.input, snakemake.params[0]["package"]
    pack(
        given.adapter,
        given.fused,
        card(read_json(given.summary), read_json(given.report), settings["exports"]),
        settings,
        snakemake.output[0],
        snakemake.wildcards.run,
        next(iter(given.get("decision", [])), None),
        next(iter(given.get("source", [])), None),
        next(iter(given.get("encoder", [])), None),
    )


job.run(snakemake, main, device=True)
