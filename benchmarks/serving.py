"""`callwright serve` beside stock `mlx_lm.server`, in turn: many clients at once, and a second request with its tools.

    python benchmarks/serving.py                              the run `default`, 12 and 16 clients, 24 items, two turns
    python benchmarks/serving.py --clients 1 4 12 16 --items 48 --turns 3

Same model (dequantized on a CPU, for both), prompts and limit of tokens, greedy, with the same fast BLAS. A turn is
all items, asked for by so many clients of OpenAI's own library; turns alternate between the servers, the median counts.
Ours answers under the grammar of each request's tools, the stock server freely.

The second request: lists of ten tools, two requests each, one token wanted; its time is that to the first token.
Everything goes to the terminal and to results/bench-serving.json.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from callwright.runtime import device

device.configure()  # before anything imports MLX

from callwright.data.records import Example  # noqa: E402
from callwright.runtime import provenance  # noqa: E402
from callwright.runtime.files import read_jsonl, write_json  # noqa: E402
from callwright.serve.check.ask import Asker, timing  # noqa: E402
from callwright.serve.check.child import running  # noqa: E402
from callwright.serve.check.verify import served_folder  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "bench-serving.json"
SMOLLM2 = ROOT / "results" / "models" / "smollm2-135m-instruct" / "mlx"
REQUESTS = ("Please set this up for me today.", "What can you do with these for tomorrow evening?")


def tool_lists(examples: Sequence[Example], size: int, count: int) -> list[list[dict[str, Any]]]:
    """`count` lists of so many tools, no tool in two of them where there are enough."""
    tools = list({tool["function"]["name"]: tool for example in examples for tool in example.tools}.values())
    count = max(min(count, len(tools) // size), 1)
    return [tools[number * size : (number + 1) * size] for number in range(count)]


def first_tokens(asker: Asker, lists: Sequence[list[dict[str, Any]]]) -> dict[str, Any]:
    """Seconds to the first token of a first and of a second request with the same tools: medians, and their ratio."""
    seconds: list[list[float]] = [[], []]
    for tools in lists:
        for number, text in enumerate(REQUESTS):
            asked = asker.ask([{"role": "user", "content": text}], tools, max_tokens=1)
            if asked.failure:
                raise SystemExit(f"a request failed: {asked.failure}")
            seconds[number].append(asked.seconds)
    first, second = (statistics.median(found) for found in seconds)
    return {"first": first, "second": second, "ratio": second / first, "lists": len(lists)}


def main() -> None:
    """Ask both servers in turn and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SMOLLM2, help="a model folder that mlx-lm opens")
    parser.add_argument("--run", type=Path, default=ROOT / "results" / "default", help="its test items are asked")
    parser.add_argument("--suite", default="test_seen")
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--limit", type=int, default=96, help="output tokens of an answer")
    parser.add_argument("--clients", type=int, nargs="+", default=[12, 16])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--tools", type=int, default=10, help="in the lists of the second request")
    parser.add_argument("--servers", nargs="+", default=["callwright", "stock"])
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()

    examples = [Example.from_row(row) for row in read_jsonl(given.run / "data" / f"{given.suite}.jsonl")]
    lists = tool_lists(examples, given.tools, 5)
    # Other items for each number of clients: no server shall know a prompt from before.
    parts = [[examples[(number * given.items + n) % len(examples)] for n in range(given.items)]
             for number in range(len(given.clients))]  # fmt: skip
    speed: dict[str, dict[str, list[float]]] = {
        server: {str(clients): [] for clients in given.clients} for server in given.servers
    }
    first: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, served_folder(given.model, Path(scratch)) as (folder, _):
        for turn in range(given.turns):
            for server in given.servers:
                with one_server(server, folder, Path(scratch)) as asker:
                    asker.limit = given.limit
                    asker.ask([{"role": "user", "content": "Hi"}], [], max_tokens=1)  # it may load its model only now
                    if turn == 0:
                        first[server] = first_tokens(asker, lists)
                        print(f"{server}: first token {first[server]}", flush=True)
                    for part, clients in zip(parts, given.clients, strict=True):
                        found, seconds = asker.ask_all(part, clients)
                        measured = timing(found, seconds)
                        speed[server][str(clients)].append(measured["tokens_per_second"])
                        print(f"turn {turn + 1}, {server}, {clients} clients: {measured}", flush=True)
    medians = {s: {c: statistics.median(found) for c, found in by.items()} for s, by in speed.items()}
    write_json(
        given.out,
        {
            "tokens_per_second": medians,
            "turns": speed,
            "first_token": first,
            "items": given.items,
            "limit": given.limit,
            **device.describe(),
            "versions": provenance.versions(),
            "time": time.strftime("%Y-%m-%d %H:%M"),
        },
    )
    print(medians)


@contextlib.contextmanager
def one_server(server: str, folder: Path, scratch: Path) -> Any:
    """A running server, and a client of it."""
    arguments = {
        "callwright": [str(folder), "--name", "served"],
        "stock": ["--model", str(folder)],
    }[server]
    model = {"callwright": "served", "stock": str(folder)}[server]
    with running(server, arguments, scratch / f"{server}.log") as address, Asker(address, model, 0) as asker:
        yield asker


if __name__ == "__main__":
    main()
