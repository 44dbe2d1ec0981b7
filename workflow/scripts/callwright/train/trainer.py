"""One training from its files to its files: in this process, or shared among several (`training.workers`)."""

import functools
import logging
from pathlib import Path
from typing import Any

import mlx.core as mx

from callwright.lora import layers, loop, selection, snapshot
from callwright.lora.distributed import ProcessGroup
from callwright.runtime import processes
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_jsonl
from callwright.train import previous
from callwright.train.worker import threads

log = logging.getLogger(__name__)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train as `job` says, a JSON value; returns the training summary of `lora.loop.train`.

    Its keys are `model_folder`, `state_folder`, `out_folder`, `history_path`, `fingerprint`, `prefix_index` and
    `settings` as for `loop.train`; `train` and `valid`, the paths of the token rows; `start`, the folder of an
    adapter to go on from, or None; `examples`, the path of the validation examples, where `training.select` is
    `tool_calls`; `device`, the config's; `log`, the log file or None.

    Raises CallwrightError as `loop.train` does, and when a worker is lost; the last snapshot is kept then.
    """
    count, state = job["settings"]["workers"], Path(job["state_folder"])
    if count == 1:
        return work(job, ProcessGroup())
    log.info("training with %d workers of %s", count, ", ".join(map(str, threads(job, count))) + " threads")
    with snapshot.locked(state) as lock:
        try:
            return processes.run("callwright.train.worker", job, count, state / "workers", keep=(lock,))
        except processes.Lost as error:
            raise CallwrightError(
                f"{error}. The last snapshot is kept: run the same command again, and training continues from it"
            ) from error


def work(job: dict[str, Any], workers: ProcessGroup) -> dict[str, Any]:
    """What each worker does, and the only one."""
    settings = job["settings"]
    valid = list(read_jsonl(job["valid"]))
    rows, start = list(read_jsonl(job["train"])), None
    if job.get("start"):
        wanted = settings["iterations"] * settings["batch_size"] * settings["accumulation"]
        if job["went_on"]:
            rows = previous.rows(rows, wanted, settings["seed"])
        start = functools.partial(previous.start, job["start"])
    score = None
    if settings["select"] == "tool_calls":
        score = ToolCallScore(job["model_folder"], job["examples"], valid, settings, workers)
    return loop.train(
        model_folder=job["model_folder"],
        train_rows=rows,
        valid_rows=valid,
        settings=settings,
        state_folder=job["state_folder"],
        out_folder=job["out_folder"],
        fingerprint=job["fingerprint"],
        history_path=job["history_path"],
        prefix_index=job["prefix_index"],
        workers=workers,
        score=score,
        start=start,
    )


class ToolCallScore:
    """Called with an adapter's arrays, (correct answers, requests asked) of this worker's share of the requests.

    Generates with a model of its own, which takes its weights' memory once more: training has taken its model's
    weights apart. It is loaded at the first call.
    """

    def __init__(
        self,
        model_folder: str | Path,
        examples: str | Path,
        token_rows: list[dict[str, Any]],
        settings: dict[str, Any],
        workers: ProcessGroup,
    ):
        # Here and not above: without `select: tool_calls`, nothing of generation and scoring decides about an adapter.
        from callwright.data.records import read_examples
        from callwright.evals.selection_score import HeldOut
        from callwright.models.load import load_tokenizer

        self.model_folder, self.lora, self.model = model_folder, settings["lora"], None
        self.requests = HeldOut(
            load_tokenizer(model_folder), read_examples(examples), token_rows,
            settings["selection_items"], (workers.rank, workers.size),
        )  # fmt: skip

    def __call__(self, adapter: dict[str, mx.array]) -> tuple[int, int]:
        from callwright.models.load import load

        if self.model is None:
            before = mx.get_active_memory()
            self.model, _ = load(self.model_folder)
            layers.attach(self.model, self.lora)
            log.info("a second model answers requests: %.2f GB", (mx.get_active_memory() - before) / 1e9)
        with selection.adapted(self.model, adapter):
            return self.requests.score(self.model), len(self.requests.prompts)
