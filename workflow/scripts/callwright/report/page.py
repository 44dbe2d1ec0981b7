"""`report.html`: one page that holds all of itself, figures included, and needs no network."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from callwright.report import results, study, taught
from callwright.report.card import license_note
from callwright.report.html import environment, percent, rejection_rows
from callwright.report.items import item_rows
from callwright.report.result_figures import conditions_of
from callwright.report.summary import SUITE_TITLES, against_peers, answer, as_served, sentences
from callwright.report.tables import Cell, Table, arranged, number, words
from callwright.runtime.logs import duration
from callwright.runtime.peers import peers_of

Rows = Sequence[dict[str, Any]]

FIGURES = {
    "performance": "Correct answers with 95 % Wilson intervals; memory by phase against the plan; throughput",
    "funnel": "Share of items that pass each stage, by suite and condition",
    "items": "How far each item came: a column for each item",
    "decision": "Calls kept against false calls on validation items, for every threshold; the one taken is marked",
    "robustness": "Points of accuracy that each change costs, with 95 % intervals",
    "training": "Loss of each step, smoothed and of validation; learning rate; gradient norm",
    "convergence": "Convergence iteration and coefficient of variation, with their definitions",
    "memory": "Memory over the steps; planned and measured",
}


def render(
    summary: dict[str, Any],
    figures: Mapping[str, str],
    examples: Mapping[str, Sequence[Any]],
    scores: Mapping[str, Mapping[str, Rows]],
    generations: Mapping[str, Mapping[str, Rows]],
    rejections: Rows,
    data_page: str = "data/report.html",
) -> str:
    """The page as HTML.

    figures: SVG text by name (`figures.draw_all`). examples: by suite. scores and generations: rows by suite
    and condition. rejections: the rows that curation left out. data_page: where the data's own page lies, as seen
    from this one. What `summary` has no numbers of is left out.
    """
    config, trained = summary["config"], summary["training"]
    found, scores = arranged(summary["evaluation"], config), arranged(scores, config)
    aim = summary.get("primary")
    templates = environment()
    script = templates.loader.get_source(templates, "page.js.jinja")[0]
    lead, others = leading(summary)
    return templates.get_template("report.html.jinja").render(
        summary=summary,
        lead=lead,
        wordings=wordings(summary),
        others=others,
        aim=aim,
        figures={name: {"svg": svg, "caption": FIGURES.get(name, "")} for name, svg in figures.items()},
        titles=SUITE_TITLES,
        conditions=conditions_of(found),
        about_conditions=results.conditions(found, peers_of(config)),
        served=as_served(summary),
        peers=against_peers(summary) if summary.get("comparisons") else [],
        matrix=results.matrix(found),
        planned=results.comparisons(summary.get("comparisons"), planned=True),
        against_peers=results.comparisons(summary.get("comparisons"), planned=False, peers=True),
        unplanned=results.comparisons(summary.get("comparisons"), planned=False),
        funnels={suite: (results.funnel(of), results.by_kind(of)) for suite, of in found.items()},
        wrappers=results.wrappers(found),
        overlap=results.calls_and_arguments(found),
        abstention=results.abstention(found),
        decision=results.decision(summary.get("decision")),
        robustness=results.robustness(summary.get("robustness")),
        executed=results.executed(summary.get("executed")),
        taught=taught.tables(summary.get("taught")),
        judge=summary.get("judge"),
        judged=results.judge(summary.get("judge")),
        errors=results.errors(found),
        items={suite: item_rows(examples[suite], of, generations[suite], aim) for suite, of in scores.items()},
        labels=sorted({label for of in found.values() for result in of.values() for label in result["errors"]}),
        training=Table(["", "value"], training_rows(trained), caption="Losses count the answer's tokens alone."),
        plan=plan_table(trained),
        cost=results.answer_cost(arranged(summary.get("cost") or {}, config)),
        jobs=job_table(summary),
        sets=set_table(summary["data"]),
        rejections=rejection_rows(summary["data"]["ledger"], rejections),
        audit=results.audit(summary.get("audit")),
        unsound=sum(f["verdict"] == "failed" for of in (summary.get("audit") or {}).values() for f in of["findings"]),
        study=study.beside(summary) if config.get("report", {}).get("study") else None,
        provenance=provenance_table(summary),
        data_page=data_page,
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def leading(summary: dict[str, Any]) -> tuple[str | None, list[str]]:
    """The sentence that answers the research question, and those of the other suites."""
    if not summary.get("comparisons"):
        return None, []
    first, suite = answer(summary), summary["primary"]["suite"]
    return first, [text for text in sentences(summary) if f" items of {suite} (" not in text]


def wordings(summary: dict[str, Any]) -> str:
    """What the headline's test is worth, where its requests are made by the same rules as the trained ones."""
    generated = (summary["config"].get("data") or {}).get("source") == "toolset"
    if not generated or (summary.get("primary") or {}).get("suite") != "test_seen":
        return ""
    return (
        "On wordings like those trained: the test's requests come from phrasings of the same toolset that training did "
        "not use. What people write themselves is harder; `examples` in the toolset test that."
    )


def kept(found: dict[str, Any]) -> str:
    """Of which step the adapter is, and why it was chosen; `found` is the training summary's `kept`."""
    why = {
        "last": "the last",
        "validation_loss": "the lowest validation loss",
        "tool_calls": f"the most correct tool calls on validation examples, {found['correct']} of {found['asked']}",
    }
    return f"of step {found['step']}: {why[found['by']]}"


def sgemm_rows(training: dict[str, Any]) -> list[tuple[str, str]]:
    """How close matrix products came to the processor's rate, by phase; where it is known."""
    shares = training.get("sgemm_share")
    if not shares:
        return []
    parts = ", ".join(f"{phase} {percent(share, 0)}" for phase, share in shares.items())
    return [(f"Share of the sgemm rate ({training['sgemm_gflops']:.0f} GFLOP/s)", parts)]


def base_loss_rows(base_loss: dict[str, dict[str, float]]) -> list[tuple[str, str]]:
    """The base model's loss on each kind of token before training; where it is known."""
    parts = ", ".join(f"{kind} {found['loss']:.2f}" for kind, found in base_loss.items())
    return [("of the base by kind of token, on a few examples", parts)] if parts else []


def training_rows(training: dict[str, Any]) -> list[tuple[str, str]]:
    """What the study that this project starts from reports of a training, as (quantity, value)."""
    t, window = training, training["window"]
    settled, stopped = t["convergence_iteration"], t["stopped_early"]
    return [
        ("Iterations (optimizer steps)", str(t["iterations"])),
        (f"Initial training loss (mean of the first {window} steps)", f"{t['initial_loss']:.3f}"),
        (f"Final training loss (mean of the last {window} steps)", f"{t['final_loss']:.3f}"),
        ("Loss reduction", percent(t["loss_reduction"])),
        ("Initial validation loss", f"{t['initial_validation_loss']:.3f}"),
        *base_loss_rows(t.get("base_loss") or {}),
        ("Final validation loss", f"{t['final_validation_loss']:.3f}"),
        ("Best validation loss", f"{t['best_validation_loss']:.3f} at step {t['best_iteration']}"),
        ("Adapter kept", kept(t["kept"])),
        *([(f"Stopped early at step {stopped['step']}", stopped["reason"])] if stopped else []),
        ("Convergence iteration", "not within this run" if settled is None else str(settled)),
        ("Coefficient of variation of the loss from there on", percent(t["coefficient_of_variation"], 2)),
        ("Iterations per second", f"{t['iterations_per_second']:.3f}"),
        ("Tokens processed (padding not counted)", f"{t['tokens']:,}"),
        ("of these trained (answers)", f"{t['trained_tokens']:,}"),
        ("Tokens per second", f"{t['tokens_per_second']:,.0f}"),
        *sgemm_rows(t),
        ("Peak memory of MLX's arrays", f"{t['peak_memory_gb']:.2f} GB"),
        ("Peak memory of the process", f"{t['process_memory_gb']:.2f} GB"),
        ("Total time, with validation", duration(t["seconds"])),
    ]


def plan_table(training: dict[str, Any]) -> Table | None:
    """The memory plan's rows: what was predicted before training, and what was measured."""
    rows = (training.get("plan") or {}).get("rows", [])
    lines = [[row["what"], number(row["predicted_gb"], 3), number(row["measured_gb"], 3)] for row in rows]
    return Table(["MLX's arrays", "planned (GB)", "measured (GB)"], lines) if rows else None


def job_table(summary: dict[str, Any]) -> Table:
    """Time and memory of the jobs; those of all suites and conditions added up."""
    groups: dict[str, list[str]] = {}
    for name in summary["seconds"]:
        first = name.split("_")[0]
        groups.setdefault(first if first in ("generate", "score") else name, []).append(name)
    rows = []
    for name, jobs in groups.items():
        memory = max(summary["process_memory_gb"].get(job) or 0 for job in jobs)
        title = words(name) + (f" ({len(jobs)} jobs)" if len(jobs) > 1 else "")
        seconds = sum(summary["seconds"][job] for job in jobs)
        rows.append([title, duration(seconds), number(memory or None, 2, "GB")])
    rows.append(["together", duration(sum(summary["seconds"].values())), ""])
    return Table(["job", "time", "peak process memory"], rows, key=[len(rows) - 1])


def set_table(data: dict[str, Any]) -> Table:
    """The sets by size and by what their examples expect."""
    kinds = ("one", "several", "none")
    rows = [
        [name, str(size), *(str(data["kinds"][name][kind]) for kind in kinds), str(data["audit"]["tools"][name])]
        for name, size in data["sizes"].items()
    ]
    return Table(["set", "examples", "one call", "several", "no call", "tools"], rows)


def marker_rows(found: dict[str, Any] | None) -> list[tuple[str, Cell]]:
    """For each marker token of the form of calls: its row's length, the base's loss on it, and who lent it a row."""
    rows = []
    for token, fact in (found or {}).get("tokens", {}).items():
        text = f"row of length {fact['norm']:.3f} (median {found['median_norm']:.3f}), loss {fact['loss']:.2f}"
        note = "looks untrained, kept as it is" if fact["untrained"] else "trained"
        if "lender" in fact:
            note = f"looked untrained: row borrowed from {fact['lender']}, loss {fact['loss_after']:.2f} with it"
        rows.append((f"marker {token}", Cell(text, note)))
    return rows


def provenance_table(summary: dict[str, Any]) -> Table:
    """Model, machine and versions."""
    model = summary["model"]
    rows = [("base model", Cell(model["name"], f"license {license_note(model.get('license'))}"))]
    if model.get("call_format"):
        rows.append(("form of calls", f"{model['call_format']}, chat template: {model['chat_template']}"))
    rows += marker_rows(model.get("marker_rows"))
    rows += [(words(key), value) for key, value in (model.get("source") or {}).items() if isinstance(value, str)]
    rows += [(words(key), str(value)) for key, value in summary["device"].items()]
    rows += [(key, value) for key, value in summary["versions"].items()]
    return Table(["", "value"], rows, words=(0, 1))
