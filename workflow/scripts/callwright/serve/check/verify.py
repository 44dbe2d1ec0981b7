"""Serve a run's packaged model by stock `mlx_lm.server` and by `callwright serve`, and check both."""

import contextlib
import gc
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from callwright.chat.call_format import form_of
from callwright.chat.tokens import prompt_ids
from callwright.decoding import constrain
from callwright.decoding.decision import call_token
from callwright.decoding.limits import longest_prompt
from callwright.decoding.workers import answer_all
from callwright.evals import threshold
from callwright.models.load import load, to_float32
from callwright.models.needle_folder import is_needle
from callwright.runtime import device
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, write_json
from callwright.runtime.provenance import versions
from callwright.serve.check.ask import Asker
from callwright.serve.check.child import running
from callwright.serve.check.compare import check_server

log = logging.getLogger(__name__)
SERVERS = {
    "mlx_lm.server": "The stock server, unchanged; what it answers is held against unconstrained answers.",
    "callwright serve": "Under the grammar of each request's tools; held against answers under the same grammar.",
}


def verify(
    folder: str | Path,
    examples: Sequence[Any],
    settings: dict[str, Any],
    scratch: str | Path,
    stored: Sequence[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The results of both servers for the model in `folder`.

    settings: `items`, `clients`, `max_output_tokens`, `batch_size`. scratch: a folder on a disk with room for the
    model's weights in float32, in which the servers' logs stay. stored: generations of the fused model to the same
    suite, used in place of new ones where they cover the items.
    """
    scratch = Path(scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load(folder)
    most = longest_prompt(model, settings["max_output_tokens"], None)
    fitting = [e for e in examples if len(prompt_ids(tokenizer, e.messages, e.tools)) <= most][: settings["items"]]
    if not fitting:
        raise CallwrightError("no item is short enough for the model's context")
    by_id = {row["id"]: row for row in stored or []}
    if all(example.id in by_id for example in fitting):
        plain = [by_id[example.id] for example in fitting]
    else:
        plain = offline(model, tokenizer, fitting, settings)
    references = {
        "mlx_lm.server": plain,
        "callwright serve": offline(
            model, tokenizer, fitting, settings, server_grammars(tokenizer, fitting), server_decision(tokenizer, folder)
        ),
    }
    # The servers need the memory.
    del model
    gc.collect()
    mx.clear_cache()
    servers = {}
    with served_folder(folder, scratch) as (weights, about):
        for name, reference in references.items():
            kind = "stock" if name == "mlx_lm.server" else "callwright"
            where = weights if kind == "stock" else Path(folder)
            # The stock server reads its model under its path.
            arguments = ["--model", str(where)]
            if kind != "stock":
                # The text is what is compared.
                arguments = [str(where), "--name", str(where), "--grounding", "off", "--no-tool-encoder"]
            if kind == "stock" and is_needle(where):
                arguments.append("--trust-remote-code")  # the module in the folder is ours
            log.info("checking %s", name)
            with (
                running(kind, arguments, scratch / f"{kind}.log") as address,
                Asker(address, str(where), settings["max_output_tokens"]) as asker,
            ):
                found = check_server(asker, tokenizer, fitting, reference, settings["clients"])
            servers[name] = {"about": SERVERS[name], **found}
    return {
        "items": len(fitting),
        "max_output_tokens": settings["max_output_tokens"],
        "weights": about,
        "servers": servers,
        "ok": all(server["ok"] for server in servers.values()),
        "versions": versions(),
        **device.describe(),
    }


def server_decision(tokenizer: Any, folder: str | Path) -> Callable[[int], Any] | None:
    """When `callwright serve` calls: by the threshold that lies in the package; None leaves it to the model."""
    decided, token = threshold.stored(folder), call_token(tokenizer)
    return (lambda number: token.decision(decided["threshold"])) if decided and token else None


def offline(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Any],
    settings: dict[str, Any],
    constraint_of: Callable[[int], Any] | None = None,
    decision_of: Callable[[int], Any] | None = None,
) -> list[dict[str, Any]]:
    """Greedy answers as the evaluation generates them: a row with id, finish_reason and text for each example."""
    prompts = [prompt_ids(tokenizer, example.messages, example.tools) for example in examples]
    limit, stop_ids = settings["max_output_tokens"], set(tokenizer.eos_token_ids)
    rows: list[Any] = [None] * len(examples)
    for item, answer in answer_all(
        model, prompts, limit, stop_ids, settings["batch_size"], constraint_of=constraint_of, decision_of=decision_of
    ):
        rows[item] = {
            "id": examples[item].id,
            "suite": "",
            "condition": "",
            "finish_reason": answer.finish_reason,
            "text": tokenizer.decode(answer.ids, clean_up_tokenization_spaces=False),
            **form_of(tokenizer).mark,
        }
    return rows


def server_grammars(tokenizer: Any, examples: Sequence[Any]) -> Callable[[int], constrain.Constraint]:
    """The grammar under which `callwright serve` answers each example."""
    vocabulary = constrain.vocabulary(tokenizer)
    form = form_of(tokenizer)
    special = constrain.special_markers(vocabulary, form)
    return lambda item: constrain.Constraint(
        vocabulary, constrain.grammar(examples[item].tools, style=form, free_words=True, special=special)
    )


@contextlib.contextmanager
def served_folder(folder: str | Path, scratch: Path) -> Iterator[tuple[Path, str]]:
    """The folder that the stock server gets, and a sentence about its weights.

    On a CPU a quantized product is a hundred times slower than a float32 one, and the stock server has no other: there
    it gets a copy with the same weights in float32, which is deleted afterwards.
    """
    if not device.on_cpu():
        yield Path(folder), "Both servers read the packaged folder."
        return
    with tempfile.TemporaryDirectory(dir=scratch, prefix="float32-") as copy:
        write_float32(folder, copy)
        yield (
            Path(copy),
            "Both computed on a CPU with the packaged weights dequantized to float32, which is exact and a hundred "
            "times faster there: `callwright serve` does so when it loads them, the stock server was given a copy.",
        )


def write_float32(folder: str | Path, out: str | Path) -> None:
    """A copy of a model folder with its weights in float32, whatever they were."""
    folder, out = Path(folder), Path(out)
    model, _ = load(folder, dequantize=False)
    to_float32(model)
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name != "model.safetensors.index.json":
            shutil.copy(path, out / path.name)
    config = read_json(folder / "config.json")
    write_json(
        out / "config.json",
        {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")},
    )
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
