"""Rows of marker tokens that a base model was never taught: found, and borrowed from what it writes in their place.

A form of calling may be made of tokens of its own (`<tool_call>`). Where the base never saw them, their rows of the
embedding, which is the head too where it is tied, are those of its first day: short, and pointing nowhere. LoRA on the
blocks leaves the head frozen, so the tuned model cannot say such a token, however well it knows that it should.

So the base is asked: it reads a few answers as it should give them, and what it would rather write where a marker
stands, other than what the answers need anyway, lends its row. Each borrowed row gets noise of `NOISE` of its length,
orthogonal to it, drawn from a fixed seed, so that it is neither the lender's (with which it would tie) nor another
marker's.
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
from callwright.models import blockwise
from callwright.models.load import float_rows, load_tokenizer, open_model
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
]
_REQUESTS = [
    ("Tell Maria that I am late.", [("send_message", {"to": "Maria", "text": "I am late."})]),
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
    tokenizer = load_tokenizer(folder)
    rows = probe_rows(tokenizer)
    markers = marker_ids(tokenizer, rows)
    if not markers:
        return {}
    losses, wishes = measure(folder, rows, markers)
    norms = row_norms_of_head(folder)
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
        needed = {number for row in rows for begin, end in row["spans"] for number in row["input_ids"][begin:end]}
        for fact in poor:
            fact["lender_id"] = lender(wishes[fact["id"]], needed)
            fact["lender"] = tokenizer.convert_ids_to_tokens(fact["lender_id"])
        borrow(folder, numbers, [fact["lender_id"] for fact in poor])
        after, _ = measure(folder, rows, numbers)
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


def measure(folder: Path, rows: list[Rows], numbers: list[int]) -> tuple[dict[int, float], dict[int, mx.array]]:
    """(mean loss of each of the tokens `numbers` where the answers have it, mean log-probabilities of all there)."""
    losses, wishes = defaultdict(list), defaultdict(list)
    places = [
        (number, at)
        for number, row in enumerate(rows)
        for begin, end in row["spans"]
        for at in range(begin, end)
        if row["input_ids"][at] in numbers
    ]
    logits = blockwise.logits(folder, [row["input_ids"][:-1] for row in rows], [(n, at - 1) for n, at in places])
    found = logits - mx.logsumexp(logits, axis=1, keepdims=True)
    for (number, at), line in zip(places, found, strict=True):
        token = rows[number]["input_ids"][at]
        losses[token].append(-line[token].item())
        wishes[token].append(line)
    return (
        {number: sum(values) / len(values) for number, values in losses.items()},
        {number: sum(lines) / len(lines) for number, lines in wishes.items()},
    )


def row_norms_of_head(folder: Path) -> np.ndarray:
    """The length of each row of the matrix that gives the logits [vocabulary]."""
    model = open_model(folder)
    return np.array(blockwise.row_norms(dict(model.named_modules())[blockwise.matrices(model)[-1]]))


def lender(wish: mx.array, needed: set[int]) -> int:
    """The token that is likeliest by `wish` [vocabulary], none of `needed`.

    `needed` are the tokens of the answers themselves: a marker that looks like the brace behind it would be confused
    with it at every step.
    """
    return next(number for number in mx.argsort(-wish)[: len(needed) + 1].tolist() if number not in needed)


def borrow(folder: Path, numbers: list[int], lenders: list[int]) -> None:
    """Give the tokens `numbers` the rows of `lenders` with noise, in the files of `folder`.

    FILE in `folder` keeps the rows that were there, and the new ones as their bits hold them.
    """
    draw = np.random.default_rng(SEED)
    kept: dict[str, mx.array] = {"ids": mx.array(numbers, mx.int32)}
    model = open_model(folder)
    for name in blockwise.matrices(model):
        module = dict(model.named_modules())[name]
        rows = []
        for row in np.array(float_rows(module, mx.array(lenders))):
            noise = draw.standard_normal(row.shape, np.float32)
            noise -= row * (noise @ row) / (row @ row)
            rows.append(row + NOISE * np.linalg.norm(row) * noise / np.linalg.norm(noise))
        kept[f"{name}.original"] = float_rows(module, mx.array(numbers))
        mx.eval(kept)  # the weights are read when they are needed, and the file is about to change
        kept[f"{name}.borrowed"] = write_rows(folder, name, numbers, mx.array(np.stack(rows)))
    with atomic_write(folder / FILE) as stream:
        mx.save_safetensors(stream, kept, {"format": "mlx"})


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
    for name in blockwise.matrices(model):
        rows, module = stored.get(f"{name}.{which}"), dict(model.named_modules())[name]
        width = float_rows(module, slice(1)).shape[1]
        if rows is None or rows.shape[1] != width or numbers.max().item() >= len(module.weight):
            raise CallwrightError(f"{path} does not fit the model: it has no rows for {name} of width {width}")
        if mx.array_equal(float_rows(module, numbers), rows).item():
            continue
        if isinstance(module, nn.Embedding | nn.Linear):
            module.weight[numbers] = rows.astype(module.weight.dtype)
            continue
        parts = mx.quantize(rows.astype(module.scales.dtype), module.group_size, module.bits)
        for key, values in zip(("weight", "scales", "biases"), parts, strict=True):
            module[key][numbers] = values
    return True
