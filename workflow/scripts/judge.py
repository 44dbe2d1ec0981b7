"""Rule judge: a language model's second opinion on string values that the scorer calls wrong."""

import logging
from pathlib import Path

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_suites
    from callwright.evals import judges
    from callwright.evals.judge import judge
    from callwright.evals.stored import evaluation_rows
    from callwright.runtime.errors import CallwrightError
    from callwright.runtime.files import write_json

    settings, given, out = snakemake.params[0], snakemake.input, snakemake.output[0]
    examples = {
        suite: {example.id: example for example in found} for suite, found in read_suites(given.examples).items()
    }
    scores, answers = evaluation_rows(given.rows), evaluation_rows(given.generations)
    suites = {
        suite: {
            condition: [
                (examples[suite][row["id"]], row, score)
                for row, score in zip(answers[suite][condition], rows, strict=True)
            ]
            for condition, rows in by_condition.items()
        }
        for suite, by_condition in scores.items()
    }
    try:
        found = judge(suites, judges.chosen(settings, Path(out).parent / "state" / "judge.jsonl"), settings["pairs"])
    except CallwrightError as error:  # a second opinion: the rest of the table does not wait for it
        logging.getLogger("callwright").warning("no judge: %s. To ask again, delete %s and run again.", error, out)
        found = {"error": str(error)}
    write_json(out, {"judge": judges.name(settings), **found})


job.run(snakemake, main, device=True)
