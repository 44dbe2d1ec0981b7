"""No score before the audit: what a run's answers to one suite must stand before anybody counts them.

`evals.audit` does the checks; here they are given what a run has (the tokenizer that renders the prompts again, the
limit that answers had, the training examples), and a failed check becomes one line that says what to do. Answers are
stored before and stay stored. Contamination stops nothing: it is tagged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from callwright.chat.tokens import encode
from callwright.data.records import Example
from callwright.decoding.limits import needed_room
from callwright.evals.conditions import CONDITIONS
from callwright.evals.prompts import fewer_tools, prompt_texts, shortened_prompt
from callwright.evals.trust.audit_run import FAILED, OK, TAGGED, Finding, Row, audit, contamination_text, must_end
from callwright.evals.trust.contamination import contaminated, pairs, shared_with
from callwright.runtime.peers import peer_of

SHOWN = 5  # ids in the line of a failed check; the file has them all
ADVICE = {
    "leak": "look at these items' messages and tools: none may hold an expected call",
    "tools": "the chat template must show every tool: choose another model, or leave these items out",
    "prompts": "the answers are to other prompts than these: answer again (snakemake --forcerun generate)",
    "items": "answer again (snakemake --forcerun generate)",
    "copying": "the prompts hold the answers: mend or leave out these items",
    "no_tools": "these answers need no tools, so they prove nothing: mend or leave out these items",
    "gold": "the expected calls break their tools or the format: mend or leave out these items",
    "limit": "set evaluation.max_output_tokens to at least {needed}",
    "length": "set evaluation.max_output_tokens above {limit}, or train longer; to score these answers as they are, "
    "set evaluation.max_length_stops to {share} or more",
}


def report(
    suite: str,
    examples: Sequence[Example],
    generations: Sequence[Row],
    tokenizer: Any,
    sets: Mapping[str, Sequence[Example]],
    split: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The audit of a run's answers to one suite, as `audit.json` has it:

        suite, conditions, items    what was looked at
        findings                    a row per check: `check`, `verdict`, `about`, `items`
        shared                      per kind of contamination (`contamination.shared_with`) the ids of the items
        contaminated                the ids that a headline is also given without
        sets                        what every two sets of the split have in common (`contamination.pairs`)
        problem                     one line that says what to do; None when no check failed

    examples: the suite's, of which those with an answer are audited. generations: rows of all conditions. sets: the
    run's splits by name. split: its manifest. settings: `evaluation`, `data` and `max_length_stops` of the config,
    and `own`, whether the suite is one of the run's own test sets, whose limit of tokens is never raised.
    """
    evaluation, style = settings["evaluation"], settings["data"]["format"]
    answered = {row["id"] for row in generations}
    items = [example for example in examples if example.id in answered]
    needed, _ = needed_room(tokenizer, items, style)
    limit = evaluation["max_output_tokens"] if settings["own"] else max(evaluation["max_output_tokens"], needed)
    limit = min([row["max_output_tokens"] for row in generations if "max_output_tokens" in row], default=limit)
    conditions = list(dict.fromkeys(row["condition"] for row in generations))
    ours = [condition for condition in conditions if peer_of(condition) is None]
    prompts, by_id = rendered(tokenizer, items, ours, sets["train"], style), {item.id: item for item in items}

    def prompt_of(row: Row) -> str | None:
        if fewer_tools(row):
            return shortened_prompt(tokenizer, by_id[row["id"]], row)
        return prompts.get(row["condition"], {}).get(row["id"])

    findings = audit(
        items,
        generations,
        prompt_of,
        limit=limit,
        count_tokens=lambda text: len(encode(tokenizer, text)),
        max_cut=settings["max_length_stops"],
        style=style,
    )[:-1]
    shared = shared_with(sets["train"], items)
    tagged = contaminated(shared, suite)
    about = contamination_text(shared, items, sets["train"])
    findings.append(Finding("contamination", TAGGED if tagged else OK, about, tagged))
    cut = max(cut_share(generations, condition) for condition in conditions)
    return {
        "suite": suite,
        "conditions": conditions,
        "items": len(items),
        "findings": [asdict(finding) for finding in findings],
        "shared": shared,
        "contaminated": tagged,
        "sets": pairs(sets, split["audit"]),
        "problem": problem(suite, findings, needed=needed, limit=limit, share=math.ceil(100 * cut) / 100),
    }


def rendered(
    tokenizer: Any, items: Sequence[Example], conditions: Sequence[str], train: Sequence[Example], style: str
) -> dict[str, dict[str, str]]:
    """The prompts as they must have been, by condition and id: rendered again from the items, as `generate` does."""
    made: dict[tuple[bool, bool], dict[str, str]] = {}
    for condition in map(CONDITIONS.__getitem__, conditions):
        key = (condition.fewshot, condition.tools)
        if key not in made:
            texts = prompt_texts(tokenizer, items, condition, train, style)
            made[key] = dict(zip((item.id for item in items), texts, strict=True))
    return {name: made[CONDITIONS[name].fewshot, CONDITIONS[name].tools] for name in conditions}


def cut_share(generations: Sequence[Row], condition: str) -> float:
    """The share of answers that the limit cut, of a condition whose answers must end; 0 for another one."""
    if not must_end(condition):
        return 0.0
    rows = [row for row in generations if row["condition"] == condition]
    return sum(row["finish_reason"] == "length" for row in rows) / len(rows)


def problem(suite: str, findings: Sequence[Finding], **values: Any) -> str | None:
    """What failed and what to do, in one line; None when nothing did."""
    parts = []
    for finding in findings:
        if finding.verdict == FAILED:
            more = f" and {len(finding.items) - SHOWN} more" if len(finding.items) > SHOWN else ""
            ids = f" [{', '.join(finding.items[:SHOWN])}{more}]" if finding.items else ""
            parts.append(f"{finding.check}: {finding.about}{ids}: {ADVICE[finding.check].format(**values)}")
    if not parts:
        return None
    return f"the audit of {suite} failed, so nothing is scored; the answers stay stored. {'; '.join(parts)}"
