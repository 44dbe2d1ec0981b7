"""Audit an evaluation: do the prompts give the answers away, are answers cut, were test items trained?

EXAMPLES and GENERATIONS are files as in `callwright score`. The checks of prompts need them: a generation
carries its own in the field `prompt`, or --model names the folder whose chat template renders them (no
weight is read). The exit status is 1 when a check fails; what could not be checked is said.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any

from callwright.commands import shared
from callwright.runtime.peers import PREFIX

EXAMPLES = """examples:
  callwright audit --examples test.jsonl --generations answers.jsonl --train train.jsonl
  callwright audit --examples results/default/data/test_seen.jsonl \\
      --generations results/default/evaluation/test_seen/*/generations.jsonl \\
      --train results/default/data/train.jsonl --model results/models/smollm2-135m-instruct/mlx
"""
MARKS = {"failed": "FAILED"}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--examples", metavar="FILE", required=True, help="the items, with their expected calls")
    parser.add_argument("--generations", metavar="FILE", required=True, nargs="+", help="answers; one file or several")
    parser.add_argument("--train", metavar="FILE", help="the examples that the model was trained on")
    parser.add_argument("--model", metavar="FOLDER", help="model folder that renders the prompts")
    parser.add_argument("--max-output-tokens", type=int, metavar="N", help="the limit that answers were cut at")
    parser.add_argument(
        "--max-length-stops", type=float, default=0.01, metavar="SHARE",
        help="the share of a fine-tuned condition's answers that may be cut there (0.01)",
    )  # fmt: skip
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at an example whose expected calls break its tools; else it is left out",
    )
    parser.add_argument("--out", metavar="FILE", help="write the findings as JSON, with all ids")


def run(options: argparse.Namespace) -> int:
    """Audit, print a line for each check, and say by the exit status whether all is well."""
    from callwright.commands.answers import by_suite, read_generations, read_items
    from callwright.evals.trust.audit_run import FAILED, audit
    from callwright.runtime.files import write_json

    shared.quiet_logs()
    items = read_items(options.examples, options.strict)
    examples = items.examples
    rows = read_generations(options.generations, shared.name_of(options.examples), items)
    train = read_items(options.train, options.strict).examples if options.train else None
    tokenizer = shared.open_tokenizer(options.model) if options.model else None
    found: dict[str, list[Any]] = {}
    prompt_of, count = helpers(tokenizer, examples)
    for suite, by_condition in by_suite(rows, []).items():
        answers = [row for answers in by_condition.values() for row in answers]
        found[suite] = audit(
            examples, answers, prompt_of, train, options.max_output_tokens, count, options.max_length_stops
        )
        print(suite)
        print(findings_text(found[suite]))
    if options.out:
        write_json(options.out, {suite: [asdict(finding) for finding in of] for suite, of in found.items()})
    return int(any(finding.verdict == FAILED for of in found.values() for finding in of))


def helpers(tokenizer: Any, examples: list[Any]) -> tuple[Callable[[Any], str | None], Callable[[str], int] | None]:
    """How a row's prompt is got, and how tokens are counted."""
    if tokenizer is None:
        return (lambda row: row.get("prompt")), None
    from callwright.chat.template import render_prompt
    from callwright.chat.tokens import encode
    from callwright.evals.prompts import fewer_tools, shortened_prompt

    by_id = {example.id: example for example in examples}

    def prompt_of(row: dict[str, Any]) -> str | None:
        if "prompt" in row or row["condition"].startswith(("base_fewshot", PREFIX)):
            return row.get("prompt")
        if fewer_tools(row):
            return shortened_prompt(tokenizer, by_id[row["id"]], row)
        return rendered(row["id"], not row["condition"].startswith("no_tools"))

    @cache
    def rendered(identifier: str, shown: bool) -> str:
        example = by_id[identifier]
        return render_prompt(tokenizer, example.messages, example.tools if shown else None)

    return prompt_of, lambda text: len(encode(tokenizer, text))


def findings_text(findings: list[Any]) -> str:
    """A line for each check, and the first ids of those that failed."""
    from callwright.chat.view import visible

    lines = []
    for finding in findings:
        lines.append(
            f"  {MARKS.get(finding.verdict, finding.verdict):<12} {finding.check:<14} {visible(finding.about)}"
        )
        if finding.items:
            lines.append(f"  {'':<12} {'':<14} items: {visible(shared.some(finding.items))}")
    return "\n".join(lines)
