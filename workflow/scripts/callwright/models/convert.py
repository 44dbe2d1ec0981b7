"""A fetched model as a folder that `mlx_lm.load` opens and `mlx_lm.server` calls tools with."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.tokenizer_utils
from mlx_lm.utils import load_config
from transformers import AutoTokenizer

from callwright.chat.call_format import KEY, parser_of
from callwright.chat.own_form import NoOwnForm, description, probe
from callwright.chat.template import choose_template, mended, quiet, renders_hermes, turn_ends
from callwright.models import marker_rows
from callwright.models.folders import UNREADABLE, first_line, fresh_folder, hashes, share, share_model_files
from callwright.models.gguf.convert import convert_gguf
from callwright.models.gguf.reader import SHARD
from callwright.models.load import own_types_are_no_surprise
from callwright.models.needle import GROUP
from callwright.models.needle_folder import convert_cact, put_module
from callwright.models.weights import check_folder
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, write_json

log = logging.getLogger(__name__)


def convert(
    source: str | Path,
    manifest: dict[str, Any],
    folder: str | Path,
    inexact: str = "8-bit",
    call_format: str = "auto",
    rows: str | None = None,
) -> dict[str, Any]:
    """Make `folder` from the fetched files in `source`; returns the facts it writes to `folder/model.json`.

    A GGUF file, or one in several shards, is converted (`gguf.convert`, which explains `inexact`), and so is Needle's
    file (`needle_folder.convert_cact`); a folder with safetensors, quantized by MLX or not, shares its files. Then what
    tool calling needs is added where it is missing: a chat template that renders tools and calls (`call_format`, see
    `prepare_chat`), the tool parser's name, the ids of the tokens that end a turn.

    rows: whether tokens of the form that look untrained borrow rows (`marker_rows`), "auto" or "keep"; None does
    not look.

    `manifest` is what `fetch` returned. `model.json` holds it as `source`, with `name`, `license`,
    `parameters`, `parameters_by_bits`, `layers`, `stop_tokens`, `chat_template` ("own" or "callwright"), `call_format`
    and `files` (name -> SHA-256); for a GGUF also `blocks` and `tied_head`, as `convert_gguf` returns
    them, and what `marker_rows.prepare` found.

    Raises CallwrightError when the source is not a model that can be used.
    """
    source, folder = Path(source), Path(folder)
    with fresh_folder(folder) as filling:
        ggufs = sorted(source.glob("*.gguf"))
        first = [path for path in ggufs if not SHARD.match(path.name) or SHARD.match(path.name)[2] == "00001"]
        cacts = sorted(source.glob("*.cact"))
        license, facts = manifest.get("license"), {}
        if (source / "config.json").is_file():
            share_model_files(source, filling)
            for path in filling.glob("*.gguf"):
                path.unlink()
            check_complete(source, filling)
            put_module(filling)
        elif len(first) + len(cacts) == 1:
            if first:
                facts = convert_gguf(first[0], filling, inexact)
                license = facts.pop("license") or license
            else:
                convert_cact(cacts[0], filling)
            for path in source.glob("LICENSE*"):
                share(path, filling / path.name)
        else:
            raise CallwrightError(
                f"the model source {source} has neither a config.json (with safetensors) nor exactly one .gguf file "
                "(or the first of its shards) or .cact file; "
                f"it has {', '.join(sorted(path.name for path in source.iterdir())) or 'nothing'}"
            )
        template = prepare_chat(filling, call_format)
        if rows is not None:
            facts |= marker_rows.prepare(filling, rows)
        path = manifest.get("member") or manifest.get("file") or manifest.get("path") or source
        model = {
            "source": manifest,
            "name": manifest.get("id") or Path(path).name,
            "license": license,
            **count(filling),
            **template,
            **facts,
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


def prepare_chat(folder: Path, wanted: str = "auto") -> dict[str, Any]:
    """Give the model in `folder` a template that renders tools, the tool parser and its stop ids.

    wanted: "own", the form of calling that the model's own template renders; "hermes", ours; "auto", its own where it
    is read back. Returns `chat_template` ("own" or "callwright"), `call_format` (its name), `stop_tokens`.

    Raises CallwrightError where the model's own form is wanted and cannot be used, or no template of ours fits.
    """
    try:
        tokenizer = open_tokenizer(folder)
    except UNREADABLE as error:
        raise CallwrightError(f"the tokenizer of the model source cannot be opened: {first_line(error)}") from error
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    mend(tokenizer, folder, config)
    own, template, facts = choose_form(tokenizer, wanted)
    config["tool_parser_type"] = parser_of(facts["name"]) if facts else "json_tools"
    config.pop(KEY, None)
    if facts:
        config[KEY] = facts
    if template is not None:
        set_template(folder, config, template)
    write_json(path, config)

    model_config = read_json(folder / "config.json")
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    vocabulary = tokenizer.get_vocab()
    stops = [
        *as_list(generation.get("eos_token_id")), *as_list(model_config.get("eos_token_id")),
        *as_list(tokenizer.eos_token_id), *(vocabulary[token] for token in turn_ends(vocabulary)),
    ]  # fmt: skip
    generation["eos_token_id"] = sorted(set(stops))
    write_json(path, generation)
    return {
        "chat_template": "own" if own else "callwright",
        KEY: facts["name"] if facts else "hermes",
        "stop_tokens": tokenizer.convert_ids_to_tokens(generation["eos_token_id"]),
    }


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer in mlx-lm's wrapper, which renders prompts as its server does, with the model's stop ids."""
    with own_types_are_no_surprise():
        AutoTokenizer.from_pretrained(folder)  # its own errors first: mlx-lm's wrapper hides some
        return mlx_lm.tokenizer_utils.load(folder, eos_token_ids=load_config(folder).get("eos_token_id"))


def mend(tokenizer: Any, folder: Path, config: dict[str, Any]) -> None:
    """Correct doubled braces around the call that a template shows, in the tokenizer and in its folder."""
    template = tokenizer.chat_template
    if isinstance(template, str) and (better := mended(template)) != template:
        log.warning(
            "the model's chat template shows a call in doubled braces ({{...}}), which small models copy: they are "
            "single ones from here on"
        )
        tokenizer.chat_template = better
        set_template(folder, config, better)


def set_template(folder: Path, config: dict[str, Any], template: str) -> None:
    """Make `template` the chat template of the model in `folder`, whose tokenizer's configuration `config` is."""
    config["chat_template"] = template
    config.pop("chat_template_type", None)  # mlx-lm's key for templates written in Python
    for name in ("chat_template.jinja", "chat_template.json"):  # these would win over the configuration
        (folder / name).unlink(missing_ok=True)


def choose_form(tokenizer: Any, wanted: str) -> tuple[bool, str | None, dict[str, Any] | None]:
    """Whether the model's own template is kept, the template if one is to be written, and the facts of its own form.

    The facts are None for the Hermes form. A template that can leave thinking aloud out is asked to, if that works:
    answers are short then, and a limit of tokens is for the answer.
    """
    own = tokenizer.chat_template
    reason: NoOwnForm | None = None
    for template in [quiet(own), own] if isinstance(own, str) and quiet(own) != own else [own]:
        tokenizer.chat_template = template
        changed = None if template == own else template
        if template is not None and renders_hermes(tokenizer):
            return True, changed, None
        if wanted == "hermes":
            continue
        try:
            facts = probe(tokenizer)
        except NoOwnForm as found:
            reason = found
            continue
        log.info("the model calls in its own form: %s", description(facts))
        if "strftime_now" in str(own):
            log.warning("the model's chat template writes today's date into prompts: answers of other days may differ")
        return True, changed, facts
    if wanted == "own":
        raise CallwrightError(
            f"config key model.call_format is `own`, but the model's own form cannot be used: {reason}; set it to "
            "`auto` or `hermes`"
        )
    if reason:
        log.info("the model's own form of calling is not used: %s", reason)
    return False, choose_template(tokenizer), None


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
        norms = weights.get(f"{module}.norms")
        if norms is not None and kind in ("codes", "norms"):
            if kind == "codes":  # Needle's
                bits = array.shape[-1] * 32 // (norms.shape[-1] * GROUP)
                by_bits[bits] += array.size * 32 // bits
        elif scales is None:
            if mx.issubdtype(array.dtype, mx.floating):  # not the orders in which Needle shuffles
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
