"""Rule tasks: requests for tools whose functions run against the built-in world; the suite `executed`."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import read_examples
    from callwright.data.toolset.toolset import load_toolset
    from callwright.evals.executed.tasks import make_tasks
    from callwright.runtime.files import write_jsonl

    given = snakemake.input
    learned = read_examples(given.train, given.valid)
    tasks = make_tasks(load_toolset(given.toolset), snakemake.params[0]["data"]["seed"], learned)
    write_jsonl(snakemake.output[0], (task.to_row() for task in tasks))


job.run(snakemake, main)
