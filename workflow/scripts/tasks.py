"""Rule tasks: requests for tools whose functions run against the built-in world; the suite `executed`."""

from callwright.runtime import job


def main(snakemake):
    from callwright.data.records import Example
    from callwright.data.toolset.toolset import load_toolset
    from callwright.evals.executed.tasks import make_tasks
    from callwright.runtime.files import read_jsonl, write_jsonl

    given = snakemake.input
    learned = (Example.from_row(row) for path in (given.train, given.valid) for row in read_jsonl(path))
    tasks = make_tasks(load_toolset(given.toolset), snakemake.params[0]["data"]["seed"], learned)
    write_jsonl(snakemake.output[0], (task.to_row() for task in tasks))


job.run(snakemake, main)
