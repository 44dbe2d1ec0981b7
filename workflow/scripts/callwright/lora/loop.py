"""The training loop: from a model folder and token rows to an adapter and its history."""

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import orjson
from mlx_lm.utils import get_total_parameters

from callwright.lora import (
    batches,
    convergence,
    frozen_prefix,
    layers,
    random_state,
    selection,
    sharing,
    snapshot,
    speed,
    token_kinds,
)
from callwright.lora.backend import backend, vocabulary
from callwright.lora.distributed import DataParallelBackend, ProcessGroup
from callwright.lora.memory import plan, usage
from callwright.lora.optimizer import AdamW, clip
from callwright.lora.schedule import learning_rate
from callwright.lora.snapshot import Counters
from callwright.models import marker_rows
from callwright.models.load import load
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import write_jsonl
from callwright.runtime.logs import Progress, duration

log = logging.getLogger(__name__)

HISTORY = "history.jsonl"


def train(
    model_folder: str | Path,
    train_rows: Sequence[dict[str, Any]],
    valid_rows: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    state_folder: str | Path,
    out_folder: str | Path,
    fingerprint: snapshot.Fingerprint,
    history_path: str | Path | None = None,
    prefix_index: dict[str, Any] | None = None,
    workers: ProcessGroup | None = None,
    score: selection.Score | None = None,
    start: Callable[[dict[str, mx.array]], dict[str, mx.array]] | None = None,
) -> dict[str, Any]:
    """Train a LoRA adapter; returns the training summary (see `summarize`).

    `train_rows` and `valid_rows` are token rows (`id`, `input_ids`, `spans`), `settings` the config's
    `training`. Snapshots and history lie in `state_folder`; a snapshot with the same `fingerprint`
    is continued, to the same adapter bit for bit on the CPU. The adapter is written to
    `out_folder` last, the history to `history_path` before it. `prefix_index` is what `frozen_prefix.prepare`
    returned; None keeps the frozen blocks' outputs in memory, where that pays. `workers` are the processes
    that share the batches, with the state folder locked by who started them; None: this one alone. `score` counts an
    adapter's correct tool calls, for `training.select: tool_calls`. `start` gives the adapter to begin with in the
    place of the fresh one that it is given.

    Raises CallwrightError for settings that do not fit the model, records without a trained
    token, a loss or gradient that is not finite, a full disk, and a state folder in use.
    """
    state_folder = Path(state_folder)
    workers = workers or ProcessGroup()
    with snapshot.locked(state_folder) if workers.size == 1 else contextlib.nullcontext():
        run = Run(
            model_folder,
            train_rows,
            valid_rows,
            settings,
            state_folder,
            fingerprint,
            prefix_index,
            workers,
            score,
            start,
        )
        try:
            run.plan_memory()
            run.resume()
            workers.agree("the step to go on from", run.counters.step)
            run.steps()
            return run.finish(Path(out_folder), history_path)
        finally:
            run.close()


class Run:
    """One training run; its methods in the order in which they are called."""

    def __init__(
        self,
        model_folder: str | Path,
        train_rows: Sequence[dict[str, Any]],
        valid_rows: Sequence[dict[str, Any]],
        settings: dict[str, Any],
        state_folder: Path,
        fingerprint: snapshot.Fingerprint,
        prefix_index: dict[str, Any] | None = None,
        workers: ProcessGroup | None = None,
        score: selection.Score | None = None,
        start: Callable[[dict[str, mx.array]], dict[str, mx.array]] | None = None,
    ):
        self.workers, self.score = workers or ProcessGroup(), score
        self.settings, self.state_folder, self.fingerprint = settings, state_folder, fingerprint
        self.model_folder = model_folder
        train_rows = batches.subset(train_rows, settings["examples"], settings["seed"])
        self.records = batches.to_records(train_rows, "training")
        self.valid_records = batches.to_records(valid_rows, "validation")
        # Before the weights are here: it looks at what is free.
        self.plan = plan.MemoryPlan(settings, self.records, self.workers)
        usage.limit(settings["memory_budget_gb"])
        self.probe = usage.Probe()
        self.model, tokenizer = load(model_folder)
        self.base_loss = token_kinds.base_loss(self.model, tokenizer, valid_rows) if self.workers.first else {}
        self.weights, self.vocabulary = plan.nbytes(self.model.parameters()), vocabulary(self.model)
        mx.random.seed(settings["seed"])
        self.keys = layers.attach(self.model, settings["lora"])
        self.adapter = layers.adapter_parameters(self.model)
        if start is not None:
            self.adapter = start(self.adapter)
        self.optimizer = AdamW(
            self.adapter,
            settings["betas"],
            settings["eps"],
            settings["weight_decay"],
            factors={name: settings["lora"]["plus"] for name in self.adapter if name.endswith("lora_b")},
            undecayed=[name for name in self.adapter if name.endswith(".m")],  # lengths, which should not shrink
        )
        self.blocks = len(self.model.layers)
        self.parameters = get_total_parameters(self.model)  # of the base model
        self.backend = self.alone = backend(self.model, settings)
        self._share()
        self.validation = batches.in_order(self.valid_records, settings["batch_size"], settings["validation_batches"])
        self.counters = Counters()
        self.best = self.adapter
        self.history: list[dict[str, Any]] = []
        self.prefixes = frozen_prefix.caches(
            prefix_index, model_folder, self.backend, self.records, self.valid_records, settings
        )
        if self.workers.size > 1:
            self.backend = DataParallelBackend(self.alone, self.workers)
        mx.eval(self.adapter)
        self.probe.phase("load")
        self.speed = speed.Speed(self.backend, self.workers, cached="train" in self.prefixes)
        self.first_step = True  # of this process: its phases go into the history
        self._log_plan()

    def _share(self) -> None:
        """Find the beginnings that records have in common, where the backend computes them once."""
        if not self.backend.shares:
            log.info("shared beginnings: this model's blocks keep more than keys and values: each record is whole")
            return
        self.records, self.valid_records = sharing.shared([self.records, self.valid_records], self.settings)
        self.plan.records = self.records
        beginnings = {record.beginning for record in self.records} - {None}
        if beginnings:
            log.info(
                "shared beginnings: %d of %d training records begin like others, with %d different beginnings of %d "
                "to %d tokens; a batch computes each once",
                sum(record.beginning is not None for record in self.records), len(self.records), len(beginnings),
                *(pick(beginning.length for beginning in beginnings) for pick in (min, max)),
            )  # fmt: skip

    def plan_memory(self) -> None:
        """Choose what fits the memory, and measure it on the largest batch; see `plan`."""
        cached = plan.cache_bytes(self.prefixes.values(), self.backend)
        stored = plan.stored_choice(self.state_folder, self.fingerprint)
        sizes = self.weights, plan.nbytes(self.adapter), cached, self.vocabulary
        choice = self.plan.choose(self.backend, *sizes, stored)
        if self.workers.first:
            plan.store_choice(self.state_folder, self.fingerprint, choice)
        self.validation = self.plan.pieces(self.validation)
        self.plan.measure(self.alone, self.adapter, self.optimizer, self.prefixes.get("train"))
        self.plan.log_table()

    def resume(self) -> None:
        """Continue from the snapshot of this very run, if there is one."""
        history = self.state_folder / HISTORY
        fresh = random_state.get()
        found = snapshot.load(self.state_folder, self.fingerprint)
        rows = [row for row in _readable(history) if found and row["step"] <= found[0].step]
        if found and [row["step"] for row in rows if row["event"] == "step"] != list(range(1, found[0].step + 1)):
            log.warning("%s lacks steps that the snapshot has: starting afresh", history)
            random_state.put(fresh)
            found = None
        if found is None:
            if self.workers.first:
                history.unlink(missing_ok=True)
            return
        self.counters, groups = found
        self.adapter, self.best = groups["adapter"], groups["best"]
        self.optimizer.first, self.optimizer.second = groups["first"], groups["second"]
        self.optimizer.step = self.counters.step
        self.probe.highest, self.probe.highest_process = self.counters.peak_gb, self.counters.process_gb
        self.history = rows
        if self.workers.first:
            write_jsonl(history, self.history)
        log.info("continuing from the snapshot of step %d", self.counters.step)

    def steps(self) -> None:
        """All optimizer steps that are left, with validations and snapshots between them."""
        settings, counters = self.settings, self.counters
        iterations = settings["iterations"]
        stream = batches.stream(self.records, settings["batch_size"], settings["seed"], start=counters.batches)
        self._note_memory()
        if counters.initial_validation is None:
            self._validate()
        progress = Progress("train", iterations, "steps", done=counters.step)
        while counters.step < iterations and not counters.stopped:
            micro_batches = [next(stream) for _ in range(settings["accumulation"])]
            row = self._step([batch for _, batch in micro_batches])
            self._note(row)
            if self.first_step:
                self._note_memory()
                self.first_step = False
            if counters.step % settings["validate_every"] == 0 or counters.step == iterations:
                self._validate()
            if counters.step % settings["snapshot_every"] == 0 or counters.step == iterations or counters.stopped:
                self._save()
            progress.advance(1, f"loss {row['loss']:.3f}, validation {counters.final_validation:.3f}")
        progress.done()
        if counters.stopped:
            log.info("stopped early at step %d of %d: %s", counters.step, iterations, counters.stopped)

    def finish(self, out_folder: Path, history_path: str | Path | None) -> dict[str, Any]:
        """Write history and adapter; returns the summary."""
        if self.workers.first:
            if history_path is not None:
                write_jsonl(history_path, self.history)
            config = layers.adapter_config(self.model, self.settings["lora"], self.keys)
            layers.save_adapter(out_folder, self.best, config)
            marker_rows.share_rows(self.model_folder, out_folder)
        summary = summarize(self.history, self.counters, self.settings)
        summary["base_loss"] = self.base_loss
        summary |= {**selection.summary(self.counters, self.settings), "workers": self.workers.size}
        summary |= {"plan": self.plan.summary([row for row in self.history if "peak_gb" in row]), **self.speed.shares()}
        gb = ("peak_memory_gb", "process_memory_gb")  # of all workers together
        summary |= dict(zip(gb, self.workers.total(*(summary[key] for key in gb)), strict=True))
        alone = "" if self.backend.padded else ", since records run one by one here"
        log.info("padding: %.1f %% of the positions computed%s", 100 * summary["padding_share"], alone)
        return summary

    def close(self) -> None:
        """End the threads, however the run went."""
        self.backend.close()

    def _step(self, micro_batches: list[batches.Batch]) -> dict[str, Any]:
        """One optimizer step: the mean over all trained tokens of its micro-batches, each token weighing the same."""
        settings, counters = self.settings, self.counters
        start = time.monotonic()
        self.probe.reset()
        pieces = self.plan.pieces(micro_batches)
        total, gradients = self.backend.loss_and_gradients(
            self.adapter, pieces, self.prefixes.get("train"), self.probe.phase
        )
        self.speed.note(pieces, self.probe.phases)
        trained = sum(batch.trained for batch in micro_batches)
        counters.step += 1
        self._check("loss", total)
        gradients, norm = clip({name: g / trained for name, g in gradients.items()}, settings["clip_norm"])
        self._check("gradient's norm", norm.item())  # before it is in the adapter, and a snapshot
        rate = learning_rate(
            counters.step, settings["iterations"], settings["learning_rate"], settings["warmup"], settings["schedule"]
        )
        self.adapter = self.optimizer.update(self.adapter, gradients, rate)
        mx.eval(self.adapter, self.optimizer.state())
        self.probe.phase("update")
        seconds = time.monotonic() - start
        processed = sum(batch.processed for batch in micro_batches)
        counters.batches += len(micro_batches)
        counters.trained_tokens += trained
        counters.processed_tokens += processed
        shared = sum(batch.shared for batch in pieces)
        counters.shared_tokens += shared
        if self.backend.padded:
            counters.padding += sum(batch.padded for batch in pieces) - (processed - shared)
        counters.train_seconds += seconds
        counters.seconds += seconds
        return {
            "event": "step",
            "step": counters.step,
            "loss": total / trained,
            "lr": rate,
            "grad_norm": norm.item(),
            "tokens": trained,
            "processed_tokens": processed,
            "seconds": seconds,
            **self.probe.read(),
        }

    def _validate(self) -> None:
        """The loss per trained token over the whole validation set; keeps the adapter if `selection` says so."""
        start = time.monotonic()
        self.probe.reset()
        counters = self.counters
        total = self.backend.loss(self.adapter, self.validation, self.prefixes.get("validation"))
        self._check("validation loss", total)
        loss = total / sum(batch.trained for batch in self.validation)
        if counters.initial_validation is None:
            counters.initial_validation = loss
        counters.final_validation = loss
        scored = self._score()
        if selection.note(counters, self.settings, loss, scored.get("correct")):
            self.best = self.adapter
        seconds = time.monotonic() - start
        counters.seconds += seconds
        right = ", {correct} of {asked} requests answered correctly".format(**scored) if scored else ""
        log.info("step %d: validation loss %.4f%s (%s)", counters.step, loss, right, duration(seconds))
        row = {"event": "validation", "step": counters.step, "loss": loss, **scored, "seconds": seconds}
        self.probe.phase("validation")
        self._note({**row, **self.probe.read()})
        self._note_memory()

    def _score(self) -> dict[str, int]:
        """The adapter's `correct` answers of `asked`, over all workers; nothing unless it is selected by them."""
        if self.settings["select"] != "tool_calls":
            return {}
        if self.score is None:
            raise CallwrightError("config key training.select is `tool_calls`: nothing here generates and scores")
        state = random_state.get()  # loading and adapting the second model draws numbers
        found = self.score(self.adapter)
        random_state.put(state)
        correct, self.counters.asked = map(int, self.workers.total(*found))
        return {"correct": correct, "asked": self.counters.asked}

    def _check(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise CallwrightError(
                f"training step {self.counters.step}: the {what} is {value}; lower training.learning_rate, lengthen "
                "training.warmup or set training.clip_norm to 1. The last snapshot is kept"
            )

    def _save(self) -> None:
        counters = self.counters
        counters.peak_gb, counters.process_gb = self.probe.highest, self.probe.highest_process
        if not self.workers.first:
            return
        first, second = self.optimizer.state()
        with open(self.state_folder / HISTORY, "ab") as stream:
            os.fsync(stream.fileno())  # first: a snapshot never knows of a step that the history does not
        snapshot.save(
            self.state_folder, self.fingerprint, counters,
            {"adapter": self.adapter, "best": self.best, "first": first, "second": second},
        )  # fmt: skip

    def _note_memory(self) -> None:
        """The phases since the probe's last reset, into history and log."""
        for row in self.probe.rows(self.counters.step):
            self._note(row)

    def _note(self, row: dict[str, Any]) -> None:
        """Append a row to the history, in memory and in the state folder."""
        self.history.append(row)
        if not self.workers.first:
            return
        with open(self.state_folder / HISTORY, "ab") as stream:
            stream.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def _log_plan(self) -> None:
        settings, adapted = self.settings, self.blocks - self.backend.first_trained_block
        if self.base_loss:
            told = (f"{kind} {found['loss']:.2f} ({found['tokens']} tokens)" for kind, found in self.base_loss.items())
            log.info("the base model's loss by kind of token: %s", ", ".join(told))
        log.info(
            "LoRA rank %d on %s of the last %d of %d blocks: %.2f M of %.1f M parameters",
            settings["lora"]["rank"], ", ".join(key.rsplit(".", 1)[-1] for key in self.keys), adapted,
            self.blocks, sum(value.size for value in self.adapter.values()) / 1e6, self.parameters / 1e6,
        )  # fmt: skip


def _readable(path: Path) -> list[dict[str, Any]]:
    """The rows of a history whose last line may be cut short by a kill."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for line in lines:
        try:
            rows.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            break
    return rows


def summarize(history: list[dict[str, Any]], counters: Counters, settings: dict[str, Any]) -> dict[str, Any]:
    """The training summary: what `convergence.measure` says of the loss, and the counters.

    `shared_share` is that of the tokens that were computed once for several records of a batch; `tokens` counts each
    record's own all the same. `padding_share` is that of padding in all positions that training steps computed: 0
    where records run unpadded.
    """
    steps = [row for row in history if row["event"] == "step"]
    return {
        "iterations": counters.step,
        **convergence.measure(*([row[key] for row in steps] for key in ("loss", "tokens", "step"))),
        "initial_validation_loss": counters.initial_validation,
        "final_validation_loss": counters.final_validation,
        "best_validation_loss": counters.best_loss,
        "best_iteration": counters.best_step,
        "trained_tokens": counters.trained_tokens,
        "tokens": counters.processed_tokens,
        "shared_share": counters.shared_tokens / max(1, counters.processed_tokens),
        "padding_share": counters.padding
        / max(1, counters.padding + counters.processed_tokens - counters.shared_tokens),
        "tokens_per_second": counters.processed_tokens / counters.train_seconds,
        "iterations_per_second": counters.step / counters.train_seconds,
        "peak_memory_gb": counters.peak_gb,
        "process_memory_gb": counters.process_gb,
        "train_seconds": counters.train_seconds,
        "seconds": counters.seconds,
    }
