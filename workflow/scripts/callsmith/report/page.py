"""`report.html`: one page that holds all of itself, figures included, and needs no network."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from callsmith.chat.formats import encode_calls
from callsmith.data.records import ANY_CALL
from callsmith.evals.statistics import wilson
from callsmith.report.html import environment, percent, rejection_rows
from callsmith.report.summary import SUITE_TITLES, answer
from callsmith.runtime.logs import duration

STAGE_MEANINGS = {
    "terminated": "the model ended its answer itself",
    "native_parse": "well-formed calls as a server reads them, none malformed",
    "known_tools": "only tools that were offered",
    "schema_valid": "arguments satisfy the tools' JSON Schema",
    "names": "the right tools, each as often as expected",
    "ast": "the right tools with the right arguments, in any order: correct",
    "exact": "equal to the letter",
    "lenient_ast": "beside the funnel: correct in whatever wrapper",
}

Rows = Sequence[dict[str, Any]]


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
    from this one.
    """
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            summary=summary,
            answers=answer(summary),
            figures=figures,
            stages=STAGE_MEANINGS,
            titles=SUITE_TITLES,
            results={suite: result_rows(found) for suite, found in summary["evaluation"].items()},
            errors={suite: error_rows(found) for suite, found in summary["evaluation"].items()},
            items={suite: item_rows(examples[suite], scores[suite], generations[suite]) for suite in scores},
            training=training_rows(summary["training"]),
            plan=plan_rows(summary["training"]),
            rejections=rejection_rows(summary["data"]["ledger"], rejections),
            data_page=data_page,
            config=yaml.safe_dump(summary["config"], sort_keys=False, allow_unicode=True),
        )
    )


def result_rows(by_condition: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """For each stage of the funnel, `stage` and a cell by condition: `k`, `n`, `share`, and the Wilson bounds."""
    rows = []
    for stage in STAGE_MEANINGS:
        cells = {}
        for condition, result in by_condition.items():
            k, n = result["counts"][stage], result["n"]
            low, high = wilson(k, n)
            cells[condition] = {"k": k, "n": n, "share": result[stage], "low": low, "high": high}
        rows.append({"stage": stage, "cells": cells})
    return rows


def error_rows(by_condition: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each error label that occurs, with its count by condition, the most frequent first."""
    labels = {label for result in by_condition.values() for label in result["errors"]}
    rows = [
        {"label": label, "counts": {c: result["errors"].get(label, 0) for c, result in by_condition.items()}}
        for label in labels
    ]
    return sorted(rows, key=lambda row: (-sum(row["counts"].values()), row["label"]))


def item_rows(examples: Sequence[Any], scores: Mapping[str, Rows], generations: Mapping[str, Rows]) -> list[dict]:
    """Each answered item: request, tools, expected answer, and what each condition said and where it failed."""
    by_id = {example.id: example for example in examples}
    texts = {condition: {row["id"]: row for row in rows} for condition, rows in generations.items()}
    marks = {condition: {row["id"]: row for row in rows} for condition, rows in scores.items()}
    rows = []
    for identifier in next(iter(marks.values())):
        example = by_id[identifier]
        rows.append(
            {
                "id": identifier,
                "query": example.query,
                "kind": marks[next(iter(marks))][identifier]["kind"],
                "tools": ", ".join(example.tool_names),
                "expected": expected_text(example),
                "answers": {
                    condition: {
                        "text": texts[condition][identifier]["text"],
                        "tokens": texts[condition][identifier]["output_tokens"],
                        "correct": marks[condition][identifier]["ast"],
                        "error": marks[condition][identifier]["error"],
                    }
                    for condition in marks
                },
            }
        )
    return rows


def expected_text(example: Any) -> str:
    """What an item expects, as people read it."""
    if ANY_CALL in example.tags:
        return "a call, whichever"
    return encode_calls(example.calls) or f"no call, as in: {example.answer or '(any words)'}"


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


def plan_rows(training: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The memory plan's table, as (what, predicted, measured)."""
    return [
        (row["what"], *(f"{gb:.3f}" if gb is not None else "–" for gb in (row["predicted_gb"], row["measured_gb"])))
        for row in training.get("plan", {}).get("rows", [])
    ]


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
