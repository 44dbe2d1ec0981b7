"""This run beside the published figures of the study that the project starts from.

The study: gemma-3-1b-it-4bit, LoRA on 1,000 examples of xLAM function-calling 60k, base 56 % and fine-tuned 96 % "valid
calls" of 50 items. It counted an answer as successful if it was valid JSON of the right structure, its prompts held the
expected calls, and answers were cut at 200 tokens.
"""

from collections.abc import Mapping
from typing import Any

from callwright.evals.statistics import wilson
from callwright.report.html import percent
from callwright.report.tables import Cell, Table, interval, number
from callwright.runtime.logs import duration

LOSS = (
    "It counts the answer's tokens alone; 507,059 tokens in 500 batches of 2 say that the study's counted the whole "
    "conversation, which is mostly the tools"
)
VALID = (
    "Here: calls that a server parses, to tools on offer, with arguments that satisfy their schemas. The study asked "
    "for valid JSON of the right structure, and its prompts held the expected calls, so that copying was enough"
)


def beside(summary: Mapping[str, Any]) -> Table:
    """Each published figure, the same of this run, and why they may differ."""
    config, trained = summary["config"], summary["training"]
    data, settings = config.get("data", {}), config.get("training", {})
    lora, evaluation = settings.get("lora", {}), config.get("evaluation", {})
    aim = summary.get("primary") or {"suite": "test_seen", "from": "base", "to": "tuned"}
    answered = summary["evaluation"].get(aim["suite"], {})
    before, after = answered.get(aim["from"]), answered.get(aim["to"])
    first = (summary.get("first_items") or {}).get(aim["suite"], {})
    other = "gemma-3-1b" not in str(config.get("model", {}).get("name", "")).lower()
    rows = [
        ["model", "gemma-3-1b-it-4bit, 1,000 million parameters",
         f"{summary['model']['name']}, {summary['model']['parameters'] / 1e6:,.0f} million",
         "Another model" if other else "The same model"],
        ["data", "1,000 examples of xLAM: 800 train, 100 validation, 100 test",
         f"{data.get('source', '–')}: " + ", ".join(f"{n} {name}" for name, n in summary["data"]["sizes"].items()),
         "The same source" if data.get("source") == "xlam" else "Other requests and tools"],
        ["format of calls", "JSON list in a Markdown fence", data.get("format", "–"),
         "One <tool_call> block a call is what stock servers parse" if data.get("format") == "hermes" else "A setting"],
        ["LoRA", "8 blocks, rank 8, scale 20, query and value",
         f"{lora.get('layers', '–')} blocks, rank {lora.get('rank', '–')}, scale {lora.get('scale', '–')}, "
         f"{len(lora.get('projections', []))} projections", "A setting"],
        ["batch size, learning rate", "2, 1e-4",
         f"{settings.get('batch_size', '–')}, {settings.get('learning_rate', '–')}", "A setting"],
        ["iterations", "500", str(trained["iterations"]), "A setting"],
        ["valid calls, base", "56 % (28 of 50)", share(before, "schema_valid"), VALID],
        ["valid calls, fine-tuned", "96 % (48 of 50)", share(after, "schema_valid"), "As above"],
        *([[f"the same, the first {first[aim['to']]['n']} items", "56 % → 96 %",
            f"{share(first.get(aim['from']), 'schema_valid')} → {share(first[aim['to']], 'schema_valid')}",
            "As many items as the study looked at"]] if aim["to"] in first else []),
        ["correct calls, base", "not published", share(before, "ast"), "The right tools with the right arguments"],
        ["correct calls, fine-tuned", "not published", share(after, "ast"), "As above"],
        ["evaluated items", "50", str(after["n"]) if after else "–",
         "A setting; the study names all 100 as future work"],
        ["longest answer", "200 tokens", f"{evaluation.get('max_output_tokens', '–')} tokens",
         "200 tokens end long calls in their middle"],
        ["training loss", "2.100 → 0.783", change(trained["initial_loss"], trained["final_loss"]), LOSS],
        ["loss reduction", "62.7 %", percent(trained["loss_reduction"]),
         f"Here between means of {trained['window']} steps; the study does not say of how many"],
        ["validation loss", "2.211 → 0.840",
         change(trained["initial_validation_loss"], trained["final_validation_loss"]), "As the training loss"],
        ["stable from iteration", "150", str(trained["convergence_iteration"] or "not in this run"),
         "Here by a definition that stands on the figure; the study gives none"],
        ["coefficient of variation", "34.25 %", percent(trained["coefficient_of_variation"], 2),
         "Here over single steps from convergence on; the study does not say over what. Short answers, and a low "
         "mean, make it larger"],
        ["iterations per second", "0.606", f"{trained['iterations_per_second']:.3f}", machine(summary)],
        ["tokens", "507,059", f"{trained['tokens']:,}",
         "Other records and other lengths" if data.get("source") != "xlam" or other else "Other records of the source"],
        ["training time", "about 15 minutes", duration(trained["seconds"]), machine(summary)],
        ["peak memory", "8.35 GB", number(trained["peak_memory_gb"], 2, "GB"),
         f"MLX's arrays in both; padding, recomputation and a loss in chunks count here. The process took "
         f"{number(trained['process_memory_gb'], 2, 'GB')}"],
    ]  # fmt: skip
    quiet = [[*row[:3], Cell("", row[3])] for row in rows]
    return Table(["", "published", "this run", "why they may differ"], quiet, words=(0, 1, 2, 3))


def share(result: Mapping[str, Any] | None, stage: str) -> str:
    """`79.0 % [70.0, 85.8] (79 of 100)`; a dash where the condition did not run."""
    if result is None:
        return "–"
    k, n = result["counts"][stage], result["n"]
    return f"{interval(result[stage], wilson(k, n))} ({k} of {n})"


def change(first: float, last: float) -> str:
    """`2.100 → 0.783`."""
    return f"{first:.3f} → {last:.3f}"


def machine(summary: Mapping[str, Any]) -> str:
    """What both ran on."""
    device = summary["device"]
    name = " ".join(str(device[key]) for key in ("device", "machine", "system") if device.get(key))
    cores = f", {device['cores']} cores" if device.get("cores") else ""
    return f"The study ran on a 16 GB MacBook Pro (Metal), this run on {name}{cores}"
