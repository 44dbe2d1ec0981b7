"""Answers of the rule `generate` beside mlx-lm's one by one, in turn (`make bench`).

    python benchmarks/generation.py                                    the run `default`, 20 items of test_seen
    python benchmarks/generation.py --items 100 --parts 1 --sides callwright   the base model's 100 answers, timed
    python benchmarks/generation.py --items 100 --parts 1 --adapter            the tuned model's beside mlx-lm

    python benchmarks/generation.py --sides callwright --busy          with another program on one of the cores

Times, their ratio and the items whose texts differ go to the terminal and to results/bench-generation.json; where the
run has stored answers of the same items, also which of ours differ from those. Same model (dequantized on a CPU, for
both), prompts and limit of tokens; greedy. The items are answered in parts, each by the one and then by the other, so
that a machine that is busy for a while slows both. mlx-lm's side is `mlx_lm.generate`, one prompt at a time, with the
same fast BLAS and all its threads. Where texts differ, a rounding of the logits tipped the choice between two tokens.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from callwright.runtime import device

device.configure()  # before anything imports MLX

from beside import busy_loop  # noqa: E402
from mlx_lm.generate import stream_generate  # noqa: E402

from callwright.chat.tokens import prompt_ids  # noqa: E402
from callwright.data.records import Example  # noqa: E402
from callwright.decoding.workers import answer_all, default_workers  # noqa: E402
from callwright.lora import layers  # noqa: E402
from callwright.models.load import load  # noqa: E402
from callwright.runtime import provenance  # noqa: E402
from callwright.runtime.files import read_jsonl, write_json  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "bench-generation.json"
SMOLLM2 = ROOT / "results" / "models" / "smollm2-135m-instruct" / "mlx"


def together(model: Any, tokenizer: Any, prompts: list[list[int]], limit: int, running: int) -> list[str]:
    """The texts as the rule `generate` makes them."""
    texts = [""] * len(prompts)
    for item, answer in answer_all(model, prompts, limit, set(tokenizer.eos_token_ids), running):
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
    """Times of the sides; of both their ratio, and the items whose texts are not the same."""
    found: dict[str, Any] = {"items": len(ids), "seconds": {name: side["seconds"] for name, side in sides.items()}}
    if len(sides) == 2:
        ours, theirs = sides["callwright"], sides["mlx-lm"]
        differing = [i for i, a, b in zip(ids, ours["texts"], theirs["texts"], strict=True) if a != b]
        found["speed"] = theirs["seconds"] / ours["seconds"]
        found |= {"identical": 1 - len(differing) / len(ids), "differing": differing}
    return found


def differing_from_stored(path: Path, ids: list[str], texts: list[str], limit: int) -> list[str] | None:
    """The items whose texts are not those that a run has stored; None where it has none under this limit."""
    stored = {row["id"]: row for row in read_jsonl(path)} if path.exists() else {}
    if any(i not in stored or stored[i]["max_output_tokens"] != limit for i in ids):
        return None
    return [i for i, text in zip(ids, texts, strict=True) if text != stored[i]["text"]]


def main() -> None:
    """Answer the items both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SMOLLM2, help="a model folder that mlx-lm opens")
    parser.add_argument("--run", type=Path, default=ROOT / "results" / "default", help="its test items are answered")
    parser.add_argument("--adapter", action="store_true", help="with the run's adapter")
    parser.add_argument("--suite", default="test_seen")
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--limit", type=int, default=192, help="output tokens of an answer")
    parser.add_argument("--batch-size", type=int, default=50, help="answers that grow at once in each engine")
    parser.add_argument("--sides", nargs="+", choices=["callwright", "mlx-lm"], default=["callwright", "mlx-lm"])
    parser.add_argument("--parts", type=int, default=2, help="how often the sides take turns")
    parser.add_argument("--busy", action="store_true", help="with a busy loop beside it, which takes a core")
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
    sides: dict[str, dict[str, Any]] = {name: {"seconds": 0.0, "texts": []} for name in given.sides}
    size = -(-len(prompts) // given.parts)
    with busy_loop(given.busy):
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            for name, side in sides.items():
                begun = time.perf_counter()
                if name == "callwright":
                    side["texts"] += together(model, tokenizer, part, given.limit, given.batch_size)
                else:
                    side["texts"] += one_by_one(model, tokenizer, part, given.limit)
                taken = time.perf_counter() - begun
                side["seconds"] += taken
                print(f"{name}: {len(part)} items in {taken:.1f} s", flush=True)
    found = compare([example.id for example in examples], sides)
    about = {"model": str(given.model), "suite": given.suite, "adapter": given.adapter, "limit": given.limit}
    about |= {"batch_size": given.batch_size, "busy": given.busy, "workers": default_workers(), **device.describe()}
    if "callwright" in sides:
        condition = "tuned" if given.adapter else "base"
        path = given.run / "evaluation" / given.suite / condition / "generations.jsonl"
        ids = [example.id for example in examples]
        found["differing_from_stored"] = differing_from_stored(path, ids, sides["callwright"]["texts"], given.limit)
        print(f"texts that differ from the stored ones: {found['differing_from_stored']}")
    write_json(given.out, {**found, **about, "versions": provenance.versions()})
    print(f"seconds: {found['seconds']}")
    if "speed" in found:
        print(
            f"{found['speed']:.1f} times as fast, {found['identical']:.1%} of the texts identical, {found['differing']}"
        )


if __name__ == "__main__":
    main()
