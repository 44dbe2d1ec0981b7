"""The exported model in llama.cpp beside MLX: the same answers, and are tools called through its server?

    pip install xllamacpp
    python benchmarks/llama_cpp.py                                      the package of the run `default`
    python benchmarks/llama_cpp.py FOLDER EXAMPLES.jsonl --items 50     a fused model, and requests with tools

The model is written as F16 and as Q8_0 and asked by llama.cpp, greedily: the prompts as text, which tells the weights
apart, then the messages and tools of the same items by chat completions, where llama.cpp renders the template and reads
the calls by itself. For each kind: how many texts are those of MLX to the last character, how many answers make the
same calls, how many chat completions do, and seconds. To the terminal and results/bench-llama-cpp.json.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from callwright.runtime import device

device.configure()  # before anything imports MLX

import orjson  # noqa: E402

from callwright.chat.call_format import form_of  # noqa: E402
from callwright.chat.openai_messages import openai_messages  # noqa: E402
from callwright.chat.template import render_prompt  # noqa: E402
from callwright.chat.tokens import encode  # noqa: E402
from callwright.data.records import Example  # noqa: E402
from callwright.decoding.workers import answer_all  # noqa: E402
from callwright.models.load import load  # noqa: E402
from callwright.package.gguf_file import write_gguf  # noqa: E402
from callwright.runtime import provenance  # noqa: E402
from callwright.runtime.files import read_jsonl, write_json  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "bench-llama-cpp.json"
PACKAGE = ROOT / "results" / "default" / "package" / "model"
ITEMS = ROOT / "results" / "default" / "data" / "test_seen.jsonl"
KINDS = ("F16", "Q8_0")


def by_mlx(model: Any, tokenizer: Any, texts: list[str], limit: int) -> list[str]:
    """The answers to prompts."""
    found = [""] * len(texts)
    prompts = [encode(tokenizer, text) for text in texts]
    for item, answer in answer_all(model, prompts, limit, set(tokenizer.eos_token_ids), 16):
        found[item] = tokenizer.decode(answer.ids, clean_up_tokenization_spaces=False)
    return found


def by_llama_cpp(path: Path, texts: list[str], chats: list[dict[str, Any]], limit: int) -> tuple[list[str], list[Any]]:
    """The answers to prompts, and the messages with which chat completions answer; raises SystemExit for an error."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = 4096
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 2
    parameters.warmup = False
    parameters.sampling.temp = 0.0
    parameters.use_jinja = True
    server = xllamacpp.Server(parameters)
    greedy = {"max_tokens": limit, "temperature": 0.0, "top_k": 1}

    def answered(found: Any) -> dict[str, Any]:
        found = orjson.loads(found) if isinstance(found, str | bytes) else found
        if "choices" not in found:
            raise SystemExit(f"llama.cpp did not answer: {found}")
        return found["choices"][0]

    said = [answered(server.handle_completions({"prompt": text, **greedy}))["text"] for text in texts]
    return said, [answered(server.handle_chat_completions({**chat, **greedy}))["message"] for chat in chats]


def calls_of(message: dict[str, Any]) -> list[tuple[str, Any]]:
    """The calls of a chat completion's message."""
    functions = [call["function"] for call in message.get("tool_calls") or []]
    return [(one["name"], orjson.loads(one["arguments"] or "{}")) for one in functions]


def compare(folder: Path, examples: list[Example], kinds: list[str], limit: int) -> dict[str, Any]:
    """What the kinds of a model have in common with it."""
    model, tokenizer = load(folder)
    form = form_of(tokenizer)
    texts = [render_prompt(tokenizer, one.messages, one.tools) for one in examples]
    chats = [{"messages": openai_messages(one.messages), "tools": one.tools} for one in examples]
    ours = by_mlx(model, tokenizer, texts, limit)

    def read(text: str, example: Example) -> list[tuple[str, Any]]:
        return [(call["name"], call["arguments"]) for call in form.read(text, example.tools).calls]

    made = [read(text, one) for text, one in zip(ours, examples, strict=True)]
    found: dict[str, Any] = {"items": len(examples), "with_calls": sum(map(bool, made))}
    for kind in kinds:
        with tempfile.TemporaryDirectory() as there:
            path = Path(there) / "model.gguf"
            write_gguf(folder, path, kind)
            began = time.monotonic()
            theirs, messages = by_llama_cpp(path, texts, chats, limit)
            calls = [read(text, one) for text, one in zip(theirs, examples, strict=True)]
            same = [a.strip() == b.strip() for a, b in zip(ours, theirs, strict=True)]
            found[kind] = {
                "same_texts": sum(same),
                "same_calls": sum(a == b for a, b in zip(made, calls, strict=True)),
                "same_calls_by_chat": sum(a == calls_of(b) for a, b in zip(made, messages, strict=True)),
                "differing": [one.id for one, alike in zip(examples, same, strict=True) if not alike],
                "seconds": round(time.monotonic() - began, 1),
            }
    return found


def main() -> int:
    """Compare, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=PACKAGE)
    parser.add_argument("examples", nargs="?", type=Path, default=ITEMS)
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=128, help="the limit of an answer")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    options = parser.parse_args()
    examples = [Example.from_row(row) for row in read_jsonl(options.examples)][: options.items]
    found = compare(options.folder, examples, options.kinds, options.tokens)
    write_json(OUT, {**found, "versions": provenance.versions()})
    for kind in options.kinds:
        one = found[kind]
        print(
            f"{kind}: {one['same_texts']} of {found['items']} texts as by MLX, {one['same_calls']} with the same "
            f"calls, {one['same_calls_by_chat']} by chat completions; {one['seconds']} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
