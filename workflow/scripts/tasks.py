"""Rule tasks: requests for tools whose functions run against the built-in world; the suite `executed`."""

from callsmith.runtime import job


def main(snakemake):
    from callsmith.data.records import Example
    from callsmith.data.toolset import load_toolset
    from callsmith.evals.tasks import make_tasks
    from callsmith.runtime.files import read_jsonl, write_jsonl

    given = snakemake.input
    learned = (Example.from_row(row) for path in (given.train, given.valid) for row in read_jsonl(path))
    tasks = make_tasks(load_toolset(given.toolset), snakemake.params[0]["data"]["seed"], learned)
    write_jsonl(snakemake.output[0], (task.to_row() for task in tasks))


job.run(snakemake, main)
