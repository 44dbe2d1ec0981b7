"""Rows of marker tokens that a base model was never taught: found, and borrowed from what it writes in their place.

A form of calling may be made of tokens of its own (`<tool_call>`). Where the base never saw them, their rows of the
embedding, which is the head too where it is tied, are those of its first day: short, and pointing nowhere. LoRA on the
blocks leaves the head frozen, so the tuned model cannot say such a token, however well it knows that it should.

So the base is asked: it reads a few answers as it should give them, and what it would rather write where a marker
stands lends its row. Each borrowed row gets noise of `NOISE` of its length, orthogonal to it, drawn from a fixed seed,
so that it is neither the lender's (with which it would tie) nor another marker's.
"""

import logging
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.chat.tokens import TokenizeError, tokenize_example
from callwright.models.load import dequantized, load
from callwright.models.weights import check_file
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import atomic_write, read_json

log = logging.getLogger(__name__)

FILE = "marker_rows.safetensors"
CHOICES = ("auto", "keep")
NOISE = 0.4
SEED = 0
# A row looks untrained if it is among so many of the shortest, and its token less likely than a die would have it.
SHORTEST = 0.05

Rows = dict[str, Any]


def _tool(name: str, about: str, **parameters: str) -> Rows:
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": schema}}


_TOOLS = [
    _tool("get_weather", "The weather in a city.", city="The city's name."),
    _tool("send_message", "Send a message to a person.", to="Who gets it.", text="What it says."),
    _tool("play_music", "Play a piece of music.", title="Its title."),
]
_REQUESTS = [
    ("What is the weather in Oslo?", [("get_weather", {"city": "Oslo"})]),
    ("Tell Maria that I am late.", [("send_message", {"to": "Maria", "text": "I am late."})]),
    ("Put on Clair de lune, please.", [("play_music", {"title": "Clair de lune"})]),
    ("How warm is it in Rome and in Lima?", [("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Lima"})]),
]
EXAMPLES = [
    {
        "id": f"probe-{number}",
        "messages": [{"role": "user", "content": text}],
        "tools": _TOOLS,
        "calls": [{"name": name, "arguments": arguments} for name, arguments in calls],
    }
    for number, (text, calls) in enumerate(_REQUESTS)
]


def prepare(folder: Path, choice: str) -> Rows:
    """Look at the markers of the model in `folder`, and borrow rows for those that look untrained unless told to keep.

    choice: the config's `model.marker_rows`, "auto" or "keep". Returns `{"marker_rows": {...}}` for model.json, with
    `choice`, `median_norm` of all rows, and `tokens`: for each its `id`, `norm`, `loss` (nats, before), `untrained`,
    and where a row was borrowed `lender`, `lender_id` and `loss_after`. Nothing where the form has no token of its own.
    """
    model, tokenizer = load(folder)
    rows = probe_rows(tokenizer)
    markers = marker_ids(tokenizer, rows)
    if not markers:
        return {}
    model.eval()
    losses, wishes = measure(model, rows, markers)
    weight = head_weight(model)
    norms = np.array(mx.linalg.norm(weight, axis=1))
    limit, chance = float(np.quantile(norms, SHORTEST)), float(np.log(len(norms)))
    tokens: Rows = {}
    for number in markers:
        tokens[tokenizer.convert_ids_to_tokens(number)] = {
            "id": number,
            "norm": round(float(norms[number]), 4),
            "loss": round(losses[number], 2),
            "untrained": bool(norms[number] <= limit and losses[number] > chance),
        }
    found = {"choice": choice, "median_norm": round(float(np.median(norms)), 4), "tokens": tokens}
    for token, fact in tokens.items():
        if fact["untrained"]:
            log.warning(
                "the token %s looks untrained: its row has length %.3f (half of all have %.3f or more), and the base "
                "gives it a loss of %.1f nats where the answer needs it", token, fact["norm"], found["median_norm"],
                fact["loss"],
            )  # fmt: skip
    poor = [fact for fact in tokens.values() if fact["untrained"]]
    if poor and choice == "auto":
        numbers = [fact["id"] for fact in poor]
        for fact in poor:
            fact["lender_id"] = lender(wishes[fact["id"]], markers)
            fact["lender"] = tokenizer.convert_ids_to_tokens(fact["lender_id"])
        borrow(folder, model, numbers, [fact["lender_id"] for fact in poor])
        after, _ = measure(model, rows, numbers)
        for token, fact in tokens.items():
            if fact["untrained"]:
                fact["loss_after"] = round(after[fact["id"]], 2)
                log.info("%s: row borrowed from %s, loss %.2f", token, fact["lender"], fact["loss_after"])
    return {"marker_rows": found}


def probe_rows(tokenizer: Any) -> list[Rows]:
    """The built-in examples as token rows; none where the model's form cannot write them."""
    try:
        return [tokenize_example(tokenizer, example) for example in EXAMPLES]
    except TokenizeError as error:
        log.info("its marker tokens are not looked at: %s", error)
        return []


def marker_ids(tokenizer: Any, rows: list[Rows]) -> list[int]:
    """The answers' tokens that were added to the vocabulary beside what text is made of, in order of appearance."""
    added = set(tokenizer.get_added_vocab().values())
    answers = [number for row in rows for begin, end in row["spans"] for number in row["input_ids"][begin:end]]
    return list(dict.fromkeys(number for number in answers if number in added))


def measure(model: nn.Module, rows: list[Rows], numbers: list[int]) -> tuple[dict[int, float], dict[int, mx.array]]:
    """(mean loss of each of the tokens `numbers` where the answers have it, mean log-probabilities of all there)."""
    losses, wishes = defaultdict(list), defaultdict(list)
    for row in rows:
        ids = row["input_ids"]
        places = [at for begin, end in row["spans"] for at in range(begin, end) if ids[at] in numbers]
        logits = model(mx.array([ids[:-1]]))[0, mx.array([at - 1 for at in places])].astype(mx.float32)
        found = logits - mx.logsumexp(logits, axis=1, keepdims=True)
        mx.eval(found)
        for at, line in zip(places, found, strict=True):
            losses[ids[at]].append(-line[ids[at]].item())
            wishes[ids[at]].append(line)
    return (
        {number: sum(values) / len(values) for number, values in losses.items()},
        {number: sum(lines) / len(lines) for number, lines in wishes.items()},
    )


def lender(wish: mx.array, markers: list[int]) -> int:
    """The token that is likeliest by `wish` [vocabulary], none of `markers`."""
    return next(number for number in mx.argsort(-wish)[: len(markers) + 1].tolist() if number not in markers)


def borrow(folder: Path, model: nn.Module, numbers: list[int], lenders: list[int]) -> None:
    """Give the tokens `numbers` the rows of `lenders` with noise: in the files of `folder`, and in `model`, on float32.

    FILE in `folder` keeps the rows that were there, and the new ones as their bits hold them.
    """
    draw = np.random.default_rng(SEED)
    kept: dict[str, mx.array] = {"ids": mx.array(numbers, mx.int32)}
    for name in matrices(model):
        weight = np.array(dict(model.named_modules())[name].weight)
        rows = []
        for one in lenders:
            row = weight[one]
            noise = draw.standard_normal(row.shape, np.float32)
            noise -= row * (noise @ row) / (row @ row)
            rows.append(row + NOISE * np.linalg.norm(row) * noise / np.linalg.norm(noise))
        kept[f"{name}.original"] = mx.array(weight[numbers])
        kept[f"{name}.borrowed"] = write_rows(folder, name, numbers, mx.array(np.stack(rows)))
    with atomic_write(folder / FILE) as stream:
        mx.save_safetensors(stream, kept, {"format": "mlx"})
    put_rows(model, folder)


def matrices(model: nn.Module) -> list[str]:
    """The paths of the embedding and, where it is another matrix, the head."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Embedding | nn.QuantizedEmbedding)]
    heads = [name for name, _ in model.named_modules() if name.split(".")[-1] == "lm_head"]
    tied = heads and (getattr(model, "tie_word_embeddings", False) or not any(heads))
    return [*(name for name in names if name.endswith("embed_tokens")), *([] if tied else heads)]


def head_weight(model: nn.Module) -> mx.array:
    """The matrix that gives the logits [vocabulary, width], float32."""
    module = dict(model.named_modules())[matrices(model)[-1]]
    if isinstance(module, nn.QuantizedEmbedding | nn.QuantizedLinear):
        return dequantized(module)
    return module.weight.astype(mx.float32)


def write_rows(folder: Path, name: str, numbers: list[int], rows: mx.array) -> mx.array:
    """Put `rows` [n, width] into the matrix `name` of the model in `folder`; returns them as they are held, float32.

    The file is copied first: it may be another folder's too.
    """
    config = read_json(folder / "config.json")
    path = next(
        (path for path in sorted(folder.glob("model*.safetensors")) if f"{name}.weight" in check_file(path)), None
    )
    if path is None:
        raise CallwrightError(f"{folder} has no weights {name}.weight: set model.marker_rows to `keep`")
    header = check_file(path)
    if f"{name}.scales" in header:
        table = config["quantization"]
        own = table[name] if isinstance(table.get(name), dict) else table
        dtype = {"F16": mx.float16, "BF16": mx.bfloat16, "F32": mx.float32}[header[f"{name}.scales"]["dtype"]]
        parts = mx.quantize(rows.astype(dtype), own["group_size"], own["bits"])
        arrays = {f"{name}.{part}": values for part, values in zip(("weight", "scales", "biases"), parts, strict=True)}
        packed, *exact = (parts[0], *(part.astype(mx.float32) for part in parts[1:]))
        found = mx.dequantize(packed, *exact, own["group_size"], own["bits"])
    else:
        dtype = {"F16": mx.float16, "BF16": mx.bfloat16, "F32": mx.float32}[header[f"{name}.weight"]["dtype"]]
        arrays = {f"{name}.weight": rows.astype(dtype)}
        found = arrays[f"{name}.weight"].astype(mx.float32)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.copyfile(path, temporary)
    with open(temporary, "r+b") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        for key, values in arrays.items():
            entry = header[key]
            begin, end = entry["data_offsets"]
            size = (end - begin) // entry["shape"][0]
            for number, row in zip(numbers, values, strict=True):
                stream.seek(start + begin + number * size)
                stream.write(bytes(memoryview(mx.contiguous(row).view(mx.uint8))))
    os.replace(temporary, path)
    return found


# -- rows elsewhere --------------------------------------------------------------------------------


def share_rows(model_folder: str | Path, folder: str | Path) -> None:
    """Copy the borrowed rows of a model, if it has any, into the folder of an adapter that was trained on it."""
    source = Path(model_folder) / FILE
    if source.is_file():
        shutil.copyfile(source, Path(folder) / FILE)


def put_rows(model: nn.Module, folder: str | Path, which: str = "borrowed") -> bool:
    """Give `model` the rows that FILE in `folder` holds, `borrowed` or `original`, in place; False without that file.

    An adapter's folder brings them to a base that does not have them. Rows that are there already are left alone.
    Raises CallwrightError when they do not fit the model.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return False
    stored = mx.load(str(path))
    numbers = stored["ids"]
    for name in matrices(model):
        rows, module = stored.get(f"{name}.{which}"), dict(model.named_modules())[name]
        plain = isinstance(module, nn.Embedding | nn.Linear)
        weight = module.weight if plain else dequantized(module)
        if rows is None or rows.shape[1] != weight.shape[1] or numbers.max().item() >= weight.shape[0]:
            raise CallwrightError(
                f"{path} does not fit the model: it has no rows for {name} of width {weight.shape[1]}"
            )
        if mx.array_equal(weight[numbers].astype(mx.float32), rows).item():
            continue
        if plain:
            module.weight[numbers] = rows.astype(weight.dtype)
            continue
        parts = mx.quantize(rows.astype(module.scales.dtype), module.group_size, module.bits)
        for key, values in zip(("weight", "scales", "biases"), parts, strict=True):
            module[key][numbers] = values
    return True
