"""What `check_device.py` runs on a model, step by step, and what each step found.

Eight requests under two lists of tools are trained on, all in one batch: so every step has the same records, whether
their beginnings are shared or not, and the losses can be held against each other. Four of them are answered: learned by
heart, the answers are the same on every device that computes as it should.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import work

from callwright.chat.openai_messages import openai_messages
from callwright.chat.tokens import tokenize_example
from callwright.data.records import Example
from callwright.evals.generate import generate
from callwright.lora import layers, loop, snapshot
from callwright.lora.adapted import open_model
from callwright.models.convert import convert
from callwright.models.load import load_tokenizer
from callwright.package.fuse import fuse
from callwright.runtime.errors import CallwrightError, one_line
from callwright.runtime.files import read_json, read_jsonl, sha256_json
from callwright.serve.check.ask import Asker
from callwright.serve.check.child import running

log = logging.getLogger("callwright.check")

SMOLLM2, GEMMA = "smollm2-135m-instruct", "tiny-gemma3"
STEPS = 30
BEGINNING = 24  # characters: beyond the marker of a call, into the tool's name
# The last blocks that are adapted, the learning rate, and the output tokens of an answer.
SIZES = {SMOLLM2: (4, 1e-3, 60), GEMMA: (2, 1e-2, 100)}
# Eight bits at once: the search for the lightest ones would only repeat the same work.
PACKAGE = {"bits": 8, "items": 4, "tolerance": 0.02, "agreement": 0.0, "margin": 1.0}


def tool(name: str, description: str, **parameters: str) -> dict[str, Any]:
    """An OpenAI tool whose parameters are all required."""
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


LISTS = [
    [
        tool("get_weather", "What the weather is like in a city.", city="string"),
        tool("set_alarm", "Set an alarm for a time of day.", time="string"),
    ],
    [
        tool("play_song", "Play a song by its title.", title="string"),
        tool("send_message", "Send a text message to somebody.", to="string", text="string"),
    ],
]
# By list: requests with the call that answers each, None where nothing is to be called. The last two of a list are
# not trained on.
REQUESTS = [
    [
        ("What is the weather in Paris?", ("get_weather", {"city": "Paris"})),
        ("Wake me at 7:30.", ("set_alarm", {"time": "7:30"})),
        ("Is it raining in Oslo?", ("get_weather", {"city": "Oslo"})),
        ("Thanks, that is all.", None),
        ("What is the weather in London?", ("get_weather", {"city": "London"})),
        ("Set an alarm for 6:15.", ("set_alarm", {"time": "6:15"})),
    ],
    [
        ("Play Yesterday.", ("play_song", {"title": "Yesterday"})),
        ("Tell Anna that I am late.", ("send_message", {"to": "Anna", "text": "I am late"})),
        ("I want to hear Hurt.", ("play_song", {"title": "Hurt"})),
        ("Write to Ben: see you soon.", ("send_message", {"to": "Ben", "text": "see you soon"})),
        ("Play Imagine.", ("play_song", {"title": "Imagine"})),
        ("Tell Tom that dinner is ready.", ("send_message", {"to": "Tom", "text": "dinner is ready"})),
    ],
]


def examples() -> tuple[list[Example], list[Example]]:
    """The examples that are trained and answered, and those that are validated on."""
    found: tuple[list[Example], list[Example]] = ([], [])
    for number, (tools, requests) in enumerate(zip(LISTS, REQUESTS, strict=True)):
        for place, (text, call) in enumerate(requests):
            calls = [{"name": call[0], "arguments": call[1]}] if call else []
            example = Example(f"{number}/{place}", [{"role": "user", "content": text}], tools, calls, "check")
            found[place >= len(requests) - 2].append(example)
    return found


@dataclass
class Step:
    """What a step found, to be compared key by key (see `check_device.JUDGES`), and what it took."""

    found: dict[str, Any] = field(default_factory=dict)
    tokens_per_second: float | None = None
    peak_gb: float | None = None
    name: str = ""
    seconds: float = 0.0
    failure: str = ""


def source_of(model: str, scratch: Path) -> tuple[Path, dict[str, Any]]:
    """The files that `model` is converted from, with what is known of them; fetched, or drawn, where they lack.

    Raises subprocess.CalledProcessError when the workflow cannot fetch them.
    """
    if model == SMOLLM2:
        folder = work.ROOT / "results" / "models" / model
        if not (folder / "source.json").exists():
            work.snakemake(target=f"results/models/{model}/source.json")
        return folder / "source", read_json(folder / "source.json")
    sys.path.insert(0, str(work.ROOT / "tests"))
    from fixtures_gemma import make_gemma

    with mx.stream(mx.cpu):  # the same weights on every device
        return make_gemma(scratch / "source", quantize=True), {"kind": "folder", "id": model}


class Check:
    """All steps for one model, in the folder `scratch`; `device` and `threads` are for the server's process."""

    def __init__(self, model: str, scratch: Path, device: str, threads: int):
        self.model, self.scratch, self.device, self.threads = model, scratch, device, threads
        self.folder, self.fused = scratch / "mlx", scratch / "fused"
        self.layers, self.rate, self.limit = SIZES[model]
        self.train, self.held_out = examples()
        self.asked = self.train[1::2]  # one of them wants no call

    def steps(self) -> Iterator[Step]:
        """Run them all. One that fails says so, and only a failed conversion ends it."""
        for name, run in self.plan().items():
            mx.clear_cache()
            mx.reset_peak_memory()
            begun = time.monotonic()
            try:
                step = run()
            except Exception as error:  # whatever a new device does: the other steps are worth knowing
                log.exception("%s: %s", self.model, name)
                step = Step(failure=f"{type(error).__name__}: {one_line(error)}")
            step.name, step.seconds = name, time.monotonic() - begun
            log.info("%s: %s took %.1f s", self.model, name, step.seconds)
            yield step
            if step.failure and not hasattr(self, "rows"):
                return

    def plan(self) -> dict[str, Callable[[], Step]]:
        """The steps by name, each of which may use what those before it made."""
        return {
            "conversion": self.convert,
            f"{STEPS} steps, beginnings shared": self.shared,
            f"{STEPS} steps, each record whole": self.whole,
            "the first, resumed half-way": self.resumed,
            # Random weights say what rounding decides.
            **({"answers of the base": lambda: self.answers("base", None)} if self.model == SMOLLM2 else {}),
            "answers with the adapter": lambda: self.answers("tuned", self.scratch / "shared" / "adapter"),
            "fused at 8 bits": self.fuse,
            "one served call": self.served,
        }

    def convert(self) -> Step:
        """A GGUF's weights must come out byte for byte the same; random ones differ between processors' libraries."""
        source, manifest = source_of(self.model, self.scratch)
        made = convert(source, manifest, self.folder)
        tokenizer = load_tokenizer(self.folder)
        self.rows = [tokenize_example(tokenizer, example) for example in self.train]
        self.valid = [tokenize_example(tokenizer, example) for example in self.held_out]
        found = {"rows": sha256_json([self.rows, self.valid])}
        if self.model == SMOLLM2:
            found["weights"] = made["files"]["model.safetensors"]
        return Step(found, peak_gb=mx.get_peak_memory() / 1e9)

    def shared(self) -> Step:
        self.losses, step = self._train("shared")
        return step

    def whole(self) -> Step:
        losses, step = self._train("whole", share_prefix="off")
        step.found["sharing"] = apart(losses, self.losses)
        return step

    def resumed(self) -> Step:
        """A training that ends half-way, and another that must go on from its snapshot."""
        self._train("resumed", STEPS // 2)
        stored = snapshot.load(self.scratch / "resumed" / "state", "check")
        if stored is None or stored[0].step != STEPS // 2:
            raise CallwrightError(f"there is no snapshot of step {STEPS // 2} to go on from")
        _, step = self._train("resumed")
        step.found = {"adapter": self._adapters_apart("resumed", "shared")}
        return step

    def _train(self, name: str, iterations: int = STEPS, **changes: Any) -> tuple[list[float], Step]:
        """A training in the folder `name`; its losses, those on the validation examples first and last."""
        out = self.scratch / name
        # A constant rate: the first half of a run is then the same as a run of half its length.
        settings = work.complete(
            work.settings(self.layers, work.ALL_LINEARS, 16, iterations, batch_size=8, learning_rate=self.rate)
            | {"clip_norm": 1.0, "validate_every": STEPS // 2, "snapshot_every": STEPS // 2, "validation_batches": -1}
            | changes
        )
        summary = loop.train(self.folder, self.rows, self.valid, settings, out / "state", out / "adapter", "check")
        history = list(read_jsonl(out / "state" / loop.HISTORY))
        losses = [row["loss"] for row in history if row["event"] == "step"]
        losses = [summary["initial_validation_loss"], *losses, summary["final_validation_loss"]]
        found = {"losses": [round(loss, 6) for loss in losses]}
        return losses, Step(found, summary["tokens_per_second"], summary["peak_memory_gb"])

    def _adapters_apart(self, *names: str) -> float:
        """0 where the files are the same; else the difference as a share of the second adapter (2-norms)."""
        paths = [self.scratch / name / "adapter" / layers.WEIGHTS for name in names]
        if paths[0].read_bytes() == paths[1].read_bytes():
            return 0.0
        one, other = (mx.load(str(path)) for path in paths)
        difference = sum(mx.sum(mx.square(one[name] - other[name])).item() for name in other)
        return (difference / sum(mx.sum(mx.square(value)).item() for value in other.values())) ** 0.5

    def answers(self, condition: str, adapter: Path | None) -> Step:
        """Greedy answers as the evaluation gives them."""
        model, tokenizer = open_model(self.folder, adapter)
        settings = {"items": 4, "max_output_tokens": self.limit, "batch_size": 4}
        out, begun = self.scratch / f"{condition}.jsonl", time.monotonic()
        rows = generate(model, tokenizer, self.asked, "check", condition, settings, out)
        speed = sum(row["output_tokens"] for row in rows) / (time.monotonic() - begun)
        return Step({"answers": [short(row["text"]) for row in rows]}, speed, mx.get_peak_memory() / 1e9)

    def fuse(self) -> Step:
        """Which share of the adapter's effect is lost, by the KL divergence of the answers' tokens."""
        kl = fuse(self.folder, self.scratch / "shared" / "adapter", self.asked, PACKAGE, "hermes", self.fused)["kl"]
        return Step({"lost": kl["adapter_to_fused"] / kl["adapter_to_base"]}, peak_gb=mx.get_peak_memory() / 1e9)

    def served(self) -> Step:
        """One request to `callwright serve`, under the grammar of its tools; the server's start is in the seconds."""
        arguments = [str(self.fused), "--name", "served", "--grounding", "off", "--no-tool-encoder"]
        arguments += ["--device", self.device, "--cpu-threads", str(self.threads)]
        example = self.asked[0]
        with (
            running("callwright", arguments, self.scratch / "server.log") as address,
            Asker(address, "served", self.limit) as asker,
        ):
            answer = asker.ask(openai_messages(example.messages), example.tools)
        if answer.failure:
            raise CallwrightError(f"the served call failed: {answer.failure}")
        return Step({"answers": [short(answer.text)]}, answer.output_tokens / answer.seconds)


def short(text: str) -> list[str]:
    """How an answer begins, and a hash of all of it."""
    return [text[:BEGINNING], sha256_json(text)[:16]]


def apart(found: list[float], expected: list[float]) -> float:
    """The largest difference of two lists of losses, relative; one below a tenth of the first counts as that much.

    Losses of what is known by heart are near 0, and rounding is a large part of them.
    """
    a, b = np.array(found), np.array(expected)
    return float(np.max(np.abs(a - b) / np.maximum(np.abs(b), abs(b[0]) / 10)))  # not a number, where a loss is none
