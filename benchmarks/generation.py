"""Batched, length-sorted answers beside mlx-lm's one by one, in turn (`make bench`).

    python benchmarks/generation.py                                        the run `default`, 20 items of test_seen
    python benchmarks/generation.py --run results/mine --items 100 --adapter

Times, their ratio and the items whose texts differ go to the terminal and to results/bench-generation.json. Same model
(dequantized on a CPU, for both), prompts and limit of tokens; greedy. The items are answered in parts, each by the one
and then by the other, so that a machine that is busy for a while slows both. mlx-lm's side is `mlx_lm.generate`, one
prompt at a time, with the same fast BLAS and all its threads. Where texts differ, a rounding of the logits tipped the
choice between two tokens.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from callwright.runtime import device

device.configure()  # before anything imports MLX

from mlx_lm.generate import stream_generate  # noqa: E402

from callwright.chat.tokens import prompt_ids  # noqa: E402
from callwright.data.records import Example  # noqa: E402
from callwright.decoding.batches import plan, run_batches  # noqa: E402
from callwright.lora import layers  # noqa: E402
from callwright.models.load import load  # noqa: E402
from callwright.runtime import provenance  # noqa: E402
from callwright.runtime.files import read_jsonl, write_json  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "bench-generation.json"
SMOLLM2 = ROOT / "results" / "models" / "smollm2-135m-instruct" / "mlx"


def batched(model: Any, tokenizer: Any, prompts: list[list[int]], limit: int, batch_size: int) -> list[str]:
    """The texts as the rule `generate` makes them."""
    texts = [""] * len(prompts)
    for batch, answers in run_batches(model, prompts, plan(prompts, batch_size), limit, set(tokenizer.eos_token_ids)):
        for item, answer in zip(batch, answers, strict=True):
            texts[item] = tokenizer.decode(answer.ids, clean_up_tokenization_spaces=False)
    return texts


def one_by_one(model: Any, tokenizer: Any, prompts: list[list[int]], limit: int) -> list[str]:
    """The texts as `mlx_lm.generate` makes them, greedily: its tokens, decoded as ours are, at once."""
    texts = []
    for prompt in prompts:
        said = stream_generate(model, tokenizer, prompt, max_tokens=limit)
        ids = [response.token for response in said if response.finish_reason != "stop"]
        texts.append(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    return texts


def compare(ids: list[str], sides: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Times of both sides, their ratio, and the items whose texts are not the same."""
    ours, theirs = sides["callwright"], sides["mlx-lm"]
    differing = [i for i, a, b in zip(ids, ours["texts"], theirs["texts"], strict=True) if a != b]
    return {
        "items": len(ids),
        "seconds": {name: side["seconds"] for name, side in sides.items()},
        "speed": theirs["seconds"] / ours["seconds"],
        "identical": 1 - len(differing) / len(ids),
        "differing": differing,
    }


def main() -> None:
    """Answer the items both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SMOLLM2, help="a model folder that mlx-lm opens")
    parser.add_argument("--run", type=Path, default=ROOT / "results" / "default", help="its test items are answered")
    parser.add_argument("--adapter", action="store_true", help="with the run's adapter")
    parser.add_argument("--suite", default="test_seen")
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--limit", type=int, default=256, help="output tokens of an answer")
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--parts", type=int, default=2, help="how often the sides take turns")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()

    model, tokenizer = load(given.model)
    if given.adapter:
        layers.load_adapter(model, given.run / "adapter")
        if device.on_cpu():
            layers.merge(model)
    rows = list(read_jsonl(given.run / "data" / f"{given.suite}.jsonl"))[: given.items]
    examples = [Example.from_row(row) for row in rows]
    prompts = [prompt_ids(tokenizer, example.messages, example.tools) for example in examples]
    sides: dict[str, dict[str, Any]] = {name: {"seconds": 0.0, "texts": []} for name in ("callwright", "mlx-lm")}
    size = -(-len(prompts) // given.parts)
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        for name, side in sides.items():
            begun = time.perf_counter()
            if name == "callwright":
                side["texts"] += batched(model, tokenizer, part, given.limit, given.batch_size)
            else:
                side["texts"] += one_by_one(model, tokenizer, part, given.limit)
            taken = time.perf_counter() - begun
            side["seconds"] += taken
            print(f"{name}: {len(part)} items in {taken:.1f} s", flush=True)
    found = compare([example.id for example in examples], sides)
    about = {"model": str(given.model), "suite": given.suite, "adapter": given.adapter, "limit": given.limit}
    about |= {"batch_size": given.batch_size, **device.describe(), "versions": provenance.versions()}
    write_json(given.out, {**found, **about})
    print(f"{found['speed']:.1f} times as fast, {found['identical']:.1%} of the texts identical, {found['differing']}")


if __name__ == "__main__":
    main()
