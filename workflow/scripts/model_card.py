"""Rule model_card: what the adapter is, what it can and cannot do, how to load it; no model is loaded."""

from callwright.runtime import job


def main(snakemake):
    from callwright.report.card import card
    from callwright.runtime.files import atomic_write, read_json

    with atomic_write(snakemake.output[0]) as stream:
        stream.write(card(read_json(snakemake.input.summary)).encode())


job.run(snakemake, main)
