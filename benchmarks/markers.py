"""Three ways to teach calls to a base whose markers are untrained tokens, after equal seconds of training each.

    python benchmarks/markers.py --records FILE                  Qwen2.5-Coder-0.5B, or the model of `--model FOLDER`
    python benchmarks/markers.py --records FILE --seconds 60 --items 10 --ways fenced trained

borrowed  the model as converted, with borrowed rows for its markers (`model.marker_rows: auto`); Hermes blocks
fenced    the base's own rows; answers as the fenced JSON list that it writes anyway (`data.format: fenced`)
trained   the base's own rows; Hermes blocks; the head's rows of the markers are trained beside the adapter, from the
          base's own on. Only the head's side of a tied matrix: the embedding, and all below the adapter, stays frozen

All have the same records, seed, LoRA and learning rate (constant after the warm-up), on the written-out CPU path. The
clock runs in training steps alone. A step takes records of like length, so `fenced`, whose answers are shorter or
longer, takes them in another order. The prompt is one and the same: the model's template, which asks for Hermes blocks.

Held-back records are answered greedily, before and after. `native` are those right as a server reads them, strictly
and closed in time: blocks as stock servers do, fences as one would that knew this form. `lenient` takes calls in any
wrapper. Losses are means per token of the way's own answers, so only `borrowed` and `trained` compare there. The table
goes to the terminal, numbers to results/bench-markers.json, answers and adapters to the folder beside it.
"""

import argparse
import contextlib
import gc
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from callwright.runtime import device, provenance
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import write_json, write_jsonl

if __name__ == "__main__":
    device.configure(kind="cpu")  # before anything imports MLX

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import work  # noqa: E402
from marker_head import ROWS, MarkerBackend, put_head_rows  # noqa: E402

from callwright.chat.call_format import form_of  # noqa: E402
from callwright.chat.formats import encode_calls  # noqa: E402
from callwright.chat.tokens import TokenizeError, prompt_ids, tokenize_example  # noqa: E402
from callwright.data.records import Example  # noqa: E402
from callwright.data.sources import read_records  # noqa: E402
from callwright.data.split import split  # noqa: E402
from callwright.decoding.workers import answer_all  # noqa: E402
from callwright.evals.scoring.score import score_item  # noqa: E402
from callwright.lora import batches, layers, sharing, token_kinds  # noqa: E402
from callwright.lora.adapted import open_model  # noqa: E402
from callwright.lora.backend import backend  # noqa: E402
from callwright.lora.cpu.path import CpuBackend  # noqa: E402
from callwright.lora.optimizer import AdamW, clip  # noqa: E402
from callwright.lora.schedule import learning_rate  # noqa: E402
from callwright.models import blockwise, marker_rows  # noqa: E402
from callwright.models.load import float_rows, load_tokenizer  # noqa: E402

OUT = work.ROOT / "results" / "bench-markers.json"
SPLIT = {"valid": 0.1, "test": 0.2, "seed": 42}  # not the training's seed: other seeds answer the same items
RUNNING = 25  # answers that grow at once in each engine

Row = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """`rows` as `marker_rows.put_rows` names them; `style` of the answers; whether the head's rows are trained."""

    rows: str
    style: str
    trains_rows: bool = False


WAYS = {
    "borrowed": Way("borrowed", "hermes"),
    "fenced": Way("original", "fenced"),
    "trained": Way("original", "hermes", trains_rows=True),
}


def read_data(given: argparse.Namespace, tokenizer: Any) -> tuple[list[Example], dict[str, Row]]:
    """(the held-back examples to answer, token rows as `{"train" | "valid": {style: rows}}`, of the same records).

    Of those that both forms can write in at most `--max-tokens`, divided so that no near copies are in two sets.
    """
    examples, tokens, styles = [], {}, ("hermes", "fenced")
    for record_id, example in read_records(given.records):
        if not isinstance(example, Example):
            continue
        with contextlib.suppress(TokenizeError):
            rows = {style: tokenize_example(tokenizer, example, style) for style in styles}
            if max(len(row["input_ids"]) for row in rows.values()) <= given.max_tokens:
                examples.append(replace(example, id=record_id))
                tokens[record_id] = rows
    sets, _ = split(examples, {"split": SPLIT, "data": {}})
    chosen = {"train": sets["train"], "valid": sets["valid"][: given.validation]}
    return sets["test_seen"][: given.items], {
        name: {style: [tokens[example.id][style] for example in part] for style in styles}
        for name, part in chosen.items()
    }


def opened(folder: Path, way: Way, adapter: Path | None = None) -> tuple[nn.Module, Any]:
    """(the model with the rows of `way`, and with what was trained where `adapter` holds that; its tokenizer)."""
    gc.collect()  # the model before is in cycles of references
    mx.clear_cache()
    model, tokenizer = open_model(folder, adapter)
    if not marker_rows.put_rows(model, folder, way.rows):
        raise CallwrightError(f"{folder} has no {marker_rows.FILE}: none of its markers' rows was found untrained")
    if adapter and way.trains_rows:
        put_head_rows(model, **mx.load(str(adapter / f"{ROWS}.safetensors")))
    return model, tokenizer


def train(folder: Path, way: Way, rows: list[Row], settings: Row, seconds: float, rows_rate: float, out: Path) -> Row:
    """Train on token `rows` for so many seconds, `settings` being the config's `training`; the adapter goes to `out`.

    rows_rate: by which the learning rate of the head's rows differs from the adapter's. Returns counts, and the mean
    loss of each step (nats per trained token).
    """
    model, _ = opened(folder, way)
    mx.random.seed(settings["seed"])
    keys = layers.attach(model, settings["lora"])
    adapter = layers.adapter_parameters(model)
    config = layers.adapter_config(model, settings["lora"], keys)
    path = backend(model, settings)
    if not isinstance(path, CpuBackend):
        raise CallwrightError(f"{folder}: the written-out CPU path does not compute this model, so ways do not compare")
    ids = mx.load(str(folder / marker_rows.FILE))["ids"]
    if way.trains_rows:
        adapter[ROWS] = float_rows(dict(model.named_modules())[blockwise.matrices(model)[-1]], ids)
        path = MarkerBackend(path, ids)
    adam = [settings[key] for key in ("betas", "eps", "weight_decay")]
    optimizer = AdamW(adapter, *adam, factors={ROWS: rows_rate}, undecayed=[ROWS])
    [records] = sharing.shared([batches.to_records(rows, "training")], settings)
    stream = batches.stream(records, settings["batch_size"], settings["seed"])
    schedule = [settings[key] for key in ("iterations", "learning_rate", "warmup", "schedule")]
    spent, tokens, losses = 0.0, 0, []
    while spent < seconds:
        _, batch = next(stream)
        begun = time.perf_counter()
        total, gradients = path.loss_and_gradients(adapter, [batch], None)
        gradients, _ = clip({name: g / batch.trained for name, g in gradients.items()}, settings["clip_norm"])
        adapter = optimizer.update(adapter, gradients, learning_rate(len(losses) + 1, *schedule))
        mx.eval(adapter, optimizer.state())
        spent += time.perf_counter() - begun
        tokens += batch.trained
        losses.append(total / batch.trained)
    path.close()
    if way.trains_rows:
        layers.save_arrays(out / f"{ROWS}.safetensors", {"ids": ids, "rows": adapter.pop(ROWS)})
    layers.save_adapter(out, adapter, config)
    return {"steps": len(losses), "tokens": tokens, "seconds": spent, "losses": losses}


def answers(model: nn.Module, tokenizer: Any, examples: list[Example], limit: int) -> list[Row]:
    """Greedy answers of at most `limit` tokens: `text` and `finish_reason` of each."""
    rows: list[Row] = [{}] * len(examples)
    prompts = [prompt_ids(tokenizer, example.messages, example.tools) for example in examples]
    for item, answer in answer_all(model, prompts, limit, set(tokenizer.eos_token_ids), RUNNING):
        text = tokenizer.decode(answer.ids, clean_up_tokenization_spaces=False)
        rows[item] = {"text": text, "finish_reason": answer.finish_reason}
    return rows


def as_served(text: str, tools: list[Row], form: Any) -> str:
    """An answer in Hermes blocks, which the scorer reads, if it is fenced and well-formed; otherwise as it is."""
    if form.name == "hermes":
        return text
    read = replace(form, own=True).read(text, tools)  # a form of ours is read as Hermes blocks: no server knows fences
    return encode_calls(read.calls) if read.calls and not read.errors else text


def judge(tokenizer: Any, way: Way, examples: list[Example], said: list[Row]) -> tuple[Row, list[Row]]:
    """Right answers by what the items want (`calls`, `none`): `n`, `native`, `lenient`; and the score of each."""
    form, rows = form_of(tokenizer, way.style), []
    for example, answer in zip(examples, said, strict=True):
        read = {**answer, "text": as_served(answer["text"], example.tools, form)}
        score = score_item(example, {"id": example.id, "suite": "", "condition": "", **read})
        rows.append({**answer, **{key: score[key] for key in ("id", "kind", "ast", "lenient_ast", "error")}})
    right = {}
    for name in ("calls", "none"):
        kind = [row for row in rows if (row["kind"] == "none") == (name == "none")]
        counts = {"native": sum(row["ast"] for row in kind), "lenient": sum(row["lenient_ast"] for row in kind)}
        right[name] = {"n": len(kind), **counts}
    return right, rows


def look(
    folder: Path, way: Way, adapter: Path | None, valid: list[Row], held_back: list[Example], limit: int, said: dict
) -> tuple[Row, list[Row]]:
    """Losses on the token rows `valid` by kind of token, and right answers; and the answers with their scores.

    said: answers by `Way.rows` and adapter. The untrained ones are given once, since the form changes nothing there.
    """
    model, tokenizer = opened(folder, way, adapter)
    kinds = token_kinds.base_loss(model, tokenizer, valid, len(valid))
    if (way.rows, adapter) not in said:
        said[way.rows, adapter] = answers(model, tokenizer, held_back, limit)
    right, rows = judge(tokenizer, way, held_back, said[way.rows, adapter])
    tokens = sum(kind["tokens"] for kind in kinds.values())
    loss = sum(kind["loss"] * kind["tokens"] for kind in kinds.values()) / tokens
    return {"loss": loss, "kinds": kinds, "right": right}, rows


def table(ways: dict[str, Row]) -> str:
    """Two lines for each way, before and after; kinds of items that the data lacks have no column."""
    items = next(iter(ways.values()))["before"]["right"]
    columns = [(name, how) for name in items if items[name]["n"] for how in ("native", "lenient")]
    heads = "".join(f"{f'{how} {name}':>16}" for name, how in columns)
    lines = [f"{'':10}{'steps':>6}{'tokens':>8}{'seconds':>9}{'loss':>8}{'markers':>9}{'form':>8}{heads}"]
    for way, result in ways.items():
        for when, counts in (("before", {"steps": 0, "tokens": 0, "seconds": 0}), ("after", result)):
            found = result[when]
            markers, form = (
                f"{found['kinds'][kind]['loss']:.3f}" if kind in found["kinds"] else "-" for kind in ("markers", "form")
            )
            right = (f"{found['right'][name][how]} of {found['right'][name]['n']}" for name, how in columns)
            lines.append(
                f"{way:10}{counts['steps']:6}{counts['tokens']:8}{counts['seconds']:9.1f}{found['loss']:8.3f}"
                f"{markers:>9}{form:>8}" + "".join(f"{cell:>16}" for cell in right)
            )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, required=True, help="JSON lines in a format that the project reads")
    parser.add_argument("--model", type=Path, default=work.QWEN, help="a converted model with borrowed rows")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seconds", type=float, default=480, help="of training, each way")
    parser.add_argument("--items", type=int, default=40, help="held-back records that are answered")
    parser.add_argument("--validation", type=int, default=24, help="other held-back records whose loss is computed")
    parser.add_argument("--limit", type=int, default=128, help="output tokens of an answer")
    parser.add_argument("--max-tokens", type=int, default=1024, help="longer records are left out")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--rows-rate", type=float, default=1.0, help="factor of it for the head's rows")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--layers", type=int, default=8, help="the last so many blocks are adapted")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    held_back, rows = read_data(given, load_tokenizer(given.model))
    lora = {"rank": 16, "scale": 2.0, "layers": given.layers, "projections": work.ALL_LINEARS}
    steps = {"batch_size": given.batch_size, "learning_rate": given.learning_rate, "schedule": "constant", "warmup": 5}
    settings = work.complete({**steps, "lora": lora, "seed": given.seed})
    about = {key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()}
    about |= {"trained_on": len(rows["train"]["hermes"]), "versions": provenance.versions(), **device.describe()}
    ways: dict[str, Row] = {}
    said: dict = {}
    for name in given.ways:
        way, out, found = WAYS[name], given.out.with_suffix("") / name, {}
        train_rows, valid = (rows[part][way.style] for part in ("train", "valid"))
        for when, adapter in (("before", None), ("after", out)):
            if adapter:
                found |= train(given.model, way, train_rows, settings, given.seconds, given.rows_rate, out)
            found[when], answered = look(given.model, way, adapter, valid, held_back, given.limit, said)
            write_jsonl(out / f"{when}.jsonl", answered)
        ways[name] = found
        write_json(given.out, {**about, "training": settings, "ways": ways})
        print(f"\n{table(ways)}", flush=True)


if __name__ == "__main__":
    main()
