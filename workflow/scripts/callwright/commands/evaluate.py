"""Ask a model your own requests and see what it gets right, answered as `callwright serve` answers them.

REQUESTS holds requests with the calls that are right: written by hand as in config/suites (YAML), or in any format that
`callwright score` reads. What is asked of each: the right tools with the right arguments, or no call where none is
due. Without --model and --adapter the model answers that was packaged or trained last.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from callwright.commands import shared
from callwright.commands.agent import count, which_model

EXAMPLES = """examples:
  callwright evaluate my-requests.yaml --wrong
  callwright evaluate config/suites/flats.yaml --model results/models/qwen2.5-coder-0.5b-instruct/mlx \\
      --adapter adapters/qwen2.5-coder-0.5b --out answers.jsonl

How requests are written down: workflow/scripts/callwright/data/formats/requests.py.
"""
TOGETHER = 16  # answers at a time


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("requests", metavar="REQUESTS", nargs="+", help="files of requests with their calls")
    parser.add_argument("--model", metavar="DIR", help="a model folder")
    parser.add_argument("--adapter", metavar="DIR", help="an adapter folder, on the model")
    parser.add_argument("--no-tool-encoder", action="store_true", help="let the model alone name tools and decide")
    parser.add_argument("--max-tokens", type=count, default=256, metavar="N", help="of an answer (default 256)")
    parser.add_argument("--wrong", action="store_true", help="print what is wrong: request, wanted calls, calls made")
    parser.add_argument("--out", metavar="FILE", help="write the answers there, as `callwright score` reads them")


def run(options: argparse.Namespace) -> int:
    """Answer, score, print a table, and write the answers if asked to."""
    from callwright.runtime import device

    shared.quiet_logs()
    device.configure(0, "auto")

    from callwright.commands.answers import read_items
    from callwright.commands.score import funnel_text
    from callwright.evals.scoring.score import score_all, summarize
    from callwright.runtime.files import write_jsonl
    from callwright.serve.model import open_served

    found = {shared.name_of(path): read_items(path).examples for path in options.requests}
    folder, adapter = which_model(options)
    shared.note(f"loading the model: {folder}" + (f" with {adapter}" if adapter else ""))
    served = open_served(folder, adapter, grammar=False, read=not options.no_tool_encoder)  # `generate` has its own
    condition = "tuned_grammar"
    if served.decided:
        condition = "tuned_served" if served.grounding == "ask" else "tuned_threshold"
    rows, blocks = [], []
    for suite, examples in found.items():
        answers = _answers(served, condition, suite, examples, options.max_tokens)
        scores = score_all(examples, answers)
        blocks.append(f"{suite}\n\n{funnel_text({condition: summarize(scores)})}")
        if options.wrong:
            blocks += [_shown(*each) for each in zip(examples, answers, scores, strict=True) if not each[2]["ast"]]
        rows += answers
    print("\n\n".join(blocks))
    if options.out:
        write_jsonl(options.out, rows)
        print(f"\nwritten: {options.out}")
    return 0


def _answers(served: Any, condition: str, suite: str, examples: list[Any], limit: int) -> list[dict[str, Any]]:
    """The rows of `evals.generate`, in the order of the examples. served: a `serve.model.ServedModel`."""
    from callwright.evals.generate import generate

    settings = {"items": len(examples), "max_output_tokens": limit, "batch_size": TOGETHER}
    decided = served.decided or {}
    with tempfile.TemporaryDirectory() as folder:
        return generate(
            served.model,
            served.tokenizer,
            examples,
            suite,
            condition,
            settings,
            Path(folder) / "answers.jsonl",
            fit_limit=True,
            threshold=decided.get("threshold"),
            reading=served.reading,
            questions=decided.get("questions"),
        )


def _shown(example: Any, row: dict[str, Any], score: dict[str, Any]) -> str:
    """A wrong answer in three lines."""
    from callwright.chat.call_format import read_answer

    def written(calls: list[dict[str, Any]]) -> str:
        return "; ".join(f"{call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}" for call in calls)

    read = read_answer(row, example.tools)
    made, wanted = written(read.calls) or f"no call: {read.content[:160]}", written(example.calls) or "no call"
    return f"{example.id} ({score['error']}): {example.asked}\n  wanted: {wanted}\n  made:   {made}"
