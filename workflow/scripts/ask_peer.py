"""Rule ask_peer: the answers of another model to one suite's items, kept as they came."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.evals.peer_models import open_peer
    from callwright.evals.peers import ask

    settings = snakemake.params[0]
    ask(
        open_peer(settings["peer"]),
        read_examples(snakemake.input.examples),
        suite=snakemake.wildcards.suite,
        condition=snakemake.wildcards.condition,
        items=settings["items"],
        out_path=snakemake.output.generations,
        about_path=snakemake.output.about,
    )


job.run(snakemake, main)
