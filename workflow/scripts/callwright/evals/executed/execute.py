"""Stored answers to tasks, executed: did the model's calls bring the world to where the right calls would have?

The calls that the stock server would hand out (`chat.call_format.read_answer`) are made once, in their order, in the
task's own world. What the model says beside them does not count, nor how it writes a value that means the same.

| a task wants | it succeeds when |
|---|---|
| a change | the world's state is the wanted one, and what was asked for was looked up |
| information | what was asked for was looked up, and nothing was changed |
| nothing | nothing was changed or looked up: a model that never calls anything passes these |
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from callwright.chat.call_format import read_answer
from callwright.data.records import Example
from callwright.evals.executed.tasks import TRAINED, UNSEEN, domains, wants
from callwright.evals.executed.world import world
from callwright.evals.statistics import paired_difference, wilson
from callwright.runtime.errors import CallwrightError

BEFORE, AFTER = "base", "tuned"

Row = dict[str, Any]


def execute_all(tasks: Iterable[Example], generations: Iterable[Row]) -> list[Row]:
    """A row per generation, in order; raises CallwrightError for a generation that answers none of the tasks."""
    by_id = {task.id: task for task in tasks}
    rows = []
    for generation in generations:
        if generation["id"] not in by_id:
            raise CallwrightError(f"generation {generation['id']!r} answers no task: generate and execute again")
        rows.append(execute(by_id[generation["id"]], generation))
    return rows


def execute(task: Example, generation: Row) -> Row:
    """What an answer did to the task's world.

    Returns `{"id", "condition", "wants", "domains", "trained", "success", "failure", "calls", "changes", "wanted"}`:
    trained: were the task's tools in training? failure: None or one label (`failure_of`). calls: each call with its
    result or error. changes and wanted: the parts of the world that differ, `{part: [before, after]}`, as it came
    and as it should have.
    """
    began = world.start(task.calls)
    wanted = world.execute(began, task.calls, task.tools)
    got = world.execute(began, read_answer(generation, task.tools).calls, task.tools)
    success = world.succeeded(began, wanted, got)
    return {
        "id": task.id,
        "condition": generation["condition"],
        "wants": wants(task.calls),
        "domains": domains(task.tags),
        "trained": TRAINED in task.tags if {TRAINED, UNSEEN} & set(task.tags) else None,
        "success": success,
        "failure": None if success else failure_of(began, wanted, got),
        "calls": got.log,
        "changes": world.changes(began, got.state),
        "wanted": world.changes(began, wanted.state),
    }


def failure_of(began: world.State, wanted: world.Outcome, got: world.Outcome) -> str:
    """Why a task failed, the first that holds.

    `no_call`: no call was made; `not_asked_for`: nothing was to be done; `call_failed`: a call could not be made;
    `wrong_state`: the world is another than the wanted one; `wrong_information`: what was asked for was not looked up.
    """
    if not got.log:
        return "no_call"
    if not wanted.log:
        return "not_asked_for"
    if got.errors:
        return "call_failed"
    return "wrong_state" if world.canonical(got.state) != world.canonical(wanted.state) else "wrong_information"


def summarize(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Success by condition, with 95 % Wilson intervals.

    rows: by condition. Returns `{condition: {"n", "success", "count", "ci95", "by_domain", "by_wants", "by_tools",
    "failures"}, "comparison"}`: each `by_…` has `{"n", "success", "count", "ci95"}` by name (a task of two domains
    counts in both), `comparison` is `paired_difference` from base to tuned, resampled by the tasks' domains; None
    unless both were answered.
    """
    found: dict[str, Any] = {}
    for condition, of in rows.items():
        names = dict.fromkeys(name for row in of for name in row["domains"])
        kinds = dict.fromkeys(row["wants"] for row in of)
        failures = [row["failure"] for row in of if row["failure"]]
        found[condition] = {
            **share(of),
            "by_domain": {name: share([row for row in of if name in row["domains"]]) for name in sorted(names)},
            "by_wants": {kind: share([row for row in of if row["wants"] == kind]) for kind in sorted(kinds)},
            "by_tools": {
                name: share(those)
                for name, trained in (("trained", True), ("unseen", False))
                if (those := [row for row in of if row["trained"] is trained])
            },
            "failures": {label: failures.count(label) for label in sorted(set(failures))},
        }
    return {**found, "comparison": compare(rows)}


def share(rows: Sequence[Row]) -> dict[str, Any]:
    """`{"n", "success", "count", "ci95"}` of some rows: `success` from 0 to 1, None without rows."""
    n, count = len(rows), sum(row["success"] for row in rows)
    return {"n": n, "success": count / n if n else None, "count": count, "ci95": list(wilson(count, n))}


def compare(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any] | None:
    """`paired_difference` from base to tuned over the tasks that both answered, resampled by domain."""
    if not {BEFORE, AFTER} <= rows.keys():
        return None
    after = {row["id"]: row["success"] for row in rows[AFTER]}
    paired = [row for row in rows[BEFORE] if row["id"] in after]
    if not paired:
        return None
    return {
        "from": BEFORE,
        "to": AFTER,
        **paired_difference(
            [row["success"] for row in paired],
            [after[row["id"]] for row in paired],
            clusters=[" ".join(row["domains"]) for row in paired],
        ),
    }
