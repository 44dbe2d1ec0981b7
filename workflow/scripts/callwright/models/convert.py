"""A fetched model as a folder that `mlx_lm.load` opens and `mlx_lm.server` calls tools with."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import mlx.core as mx
from transformers import AutoTokenizer

from callwright.chat.template import END_OF_TURN, choose_template
from callwright.models.folders import UNREADABLE, first_line, fresh_folder, hashes, share, share_model_files
from callwright.models.gguf import convert_gguf
from callwright.models.weights import check_folder
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, write_json

log = logging.getLogger(__name__)


def convert(source: str | Path, manifest: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """Make `folder` from the fetched files in `source`; returns the facts it writes to `folder/model.json`.

    A GGUF file is converted (`gguf.convert_gguf`); a folder with safetensors, quantized by MLX or not,
    shares its files. Then what tool calling needs is added where it is missing: a chat template that
    renders tools in the Hermes form, the tool parser's name, the ids of the tokens that end a turn.

    `manifest` is what `fetch` returned. `model.json` holds it as `source`, with `name`, `license`,
    `parameters`, `parameters_by_bits`, `layers`, `stop_tokens`, `chat_template` ("own" or "callwright") and
    `files` (name -> SHA-256).

    Raises CallwrightError when the source is not a model that can be used.
    """
    source, folder = Path(source), Path(folder)
    with fresh_folder(folder) as filling:
        ggufs = sorted(source.glob("*.gguf"))
        license = manifest.get("license")
        if (source / "config.json").is_file():
            share_model_files(source, filling)
            for path in filling.glob("*.gguf"):
                path.unlink()
            check_complete(source, filling)
        elif len(ggufs) == 1:
            license = convert_gguf(ggufs[0], filling) or license
            for path in source.glob("LICENSE*"):
                share(path, filling / path.name)
        else:
            raise CallwrightError(
                f"the model source {source} has neither a config.json (with safetensors) nor exactly one .gguf file; "
                f"it has {', '.join(sorted(path.name for path in source.iterdir())) or 'nothing'}"
            )
        template = prepare_chat(filling)
        model = {
            "source": manifest,
            "name": manifest.get("id") or Path(manifest.get("member") or manifest.get("path") or source).name,
            "license": license,
            **count(filling),
            **template,
            "files": hashes(filling),
        }
        write_json(filling / "model.json", model)
    log.info(
        "model: %s, %.1f million parameters in %d layers, chat template: %s, stop tokens: %s",
        model["name"], model["parameters"] / 1e6, model["layers"], model["chat_template"],
        " ".join(model["stop_tokens"]),
    )  # fmt: skip
    return model


def check_complete(source: Path, folder: Path) -> None:
    """Raise CallwrightError when a safetensors folder lacks what mlx-lm or the tokenizer needs, or a file is cut."""
    if not any(folder.glob("model*.safetensors")):
        raise CallwrightError(
            f"the model source {source} has no model*.safetensors; convert the model with `mlx_lm.convert` first"
        )
    if not (folder / "tokenizer.json").is_file():
        raise CallwrightError(
            f"the model source {source} has no tokenizer.json, the only tokenizer format that is read"
        )
    check_folder(source)


def prepare_chat(folder: Path) -> dict[str, Any]:
    """Give the model in `folder` a template that renders tools, the tool parser and its stop ids.

    Returns `chat_template` ("own" or "callwright") and `stop_tokens`.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except UNREADABLE as error:
        raise CallwrightError(f"the tokenizer of the model source cannot be opened: {first_line(error)}") from error
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    config["tool_parser_type"] = "json_tools"
    template = choose_template(tokenizer)
    if template is not None:
        config["chat_template"] = template
        config.pop("chat_template_type", None)  # mlx-lm's key for templates written in Python
        for name in ("chat_template.jinja", "chat_template.json"):  # these would win over the configuration
            (folder / name).unlink(missing_ok=True)
    write_json(path, config)

    model_config = read_json(folder / "config.json")
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    vocabulary = tokenizer.get_vocab()
    stops = [
        *as_list(generation.get("eos_token_id")), *as_list(model_config.get("eos_token_id")),
        *as_list(tokenizer.eos_token_id), *(vocabulary[token] for token in END_OF_TURN if token in vocabulary),
    ]  # fmt: skip
    generation["eos_token_id"] = sorted(set(stops))
    write_json(path, generation)
    return {
        "chat_template": "own" if template is None else "callwright",
        "stop_tokens": tokenizer.convert_ids_to_tokens(generation["eos_token_id"]),
    }


def as_list(value: int | list[int] | None) -> list[int]:
    """Configurations give one id, several or none."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def count(folder: Path) -> dict[str, Any]:
    """`parameters`, `parameters_by_bits` and `layers`, from the weights' shapes; no weight is read."""
    config = read_json(folder / "config.json")
    quantization = config.get("quantization") or {}
    weights: dict[str, mx.array] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        weights |= mx.load(str(path))
    by_bits: Counter[int] = Counter()
    for name, array in weights.items():
        module, _, kind = name.rpartition(".")
        scales = weights.get(f"{module}.scales")
        if scales is None:
            by_bits[array.dtype.size * 8] += array.size
        elif kind == "weight":
            own = quantization.get(module)
            group = (own if isinstance(own, dict) else quantization).get("group_size", 64)
            bits = array.shape[-1] * 32 // (scales.shape[-1] * group)
            by_bits[bits] += array.size * 32 // bits
    return {
        "parameters": sum(by_bits.values()),
        "parameters_by_bits": {str(bits): number for bits, number in sorted(by_bits.items())},
        "layers": (config.get("text_config") or config)["num_hidden_layers"],
    }
