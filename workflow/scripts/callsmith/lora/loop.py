"""The training loop: from a model folder and token rows to an adapter and its history."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import orjson
from mlx_lm.utils import get_total_parameters

from callsmith.lora import batches, layers, llama_cpu, memory, snapshot, trunk
from callsmith.lora.autograd import Autograd, frozen_blocks
from callsmith.lora.optimizer import AdamW, clip
from callsmith.lora.schedule import learning_rate
from callsmith.lora.snapshot import Counters
from callsmith.models.load import load
from callsmith.runtime.errors import CallsmithError
from callsmith.runtime.files import write_jsonl
from callsmith.runtime.logs import Progress, duration

log = logging.getLogger(__name__)

HISTORY = "history.jsonl"


def train(
    model_folder: str | Path,
    train_rows: Sequence[dict[str, Any]],
    valid_rows: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    state_folder: str | Path,
    out_folder: str | Path,
    fingerprint: str,
    history_path: str | Path | None = None,
) -> dict[str, Any]:
    """Train a LoRA adapter; returns the training summary (see `summarize`).

    `train_rows` and `valid_rows` are token rows (`id`, `input_ids`, `spans`), `settings` the config's
    `training`. Snapshots and history lie in `state_folder`; a snapshot with the same `fingerprint`
    is continued, to the same adapter bit for bit on the CPU. The adapter is written to
    `out_folder` last, the history to `history_path` before it.

    Raises CallsmithError for settings that do not fit the model, records without a trained
    token, a loss or gradient that is not finite, a full disk, and a state folder in use.
    """
    state_folder = Path(state_folder)
    with snapshot.locked(state_folder):
        run = Run(model_folder, train_rows, valid_rows, settings, state_folder, fingerprint)
        try:
            run.resume()
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
        fingerprint: str,
    ):
        self.settings, self.state_folder, self.fingerprint = settings, state_folder, fingerprint
        self.records = batches.to_records(train_rows, "training")
        self.valid_records = batches.to_records(valid_rows, "validation")
        self.validation = batches.in_order(self.valid_records, settings["batch_size"], settings["validation_batches"])
        memory.limit(settings["memory_budget_gb"])
        self.probe = memory.Probe()
        self.model, _ = load(model_folder)
        mx.random.seed(settings["seed"])
        self.keys = layers.attach(self.model, settings["lora"])
        self.adapter = layers.adapter_parameters(self.model)
        self.optimizer = AdamW(
            self.adapter,
            settings["betas"],
            settings["eps"],
            settings["weight_decay"],
            factors={name: settings["lora"]["plus"] for name in self.adapter if name.endswith("lora_b")},
        )
        self.blocks = len(self.model.layers)
        self.parameters = get_total_parameters(self.model)  # of the base model
        self.arithmetic = arithmetic(self.model, settings)
        self.counters = Counters()
        self.best = self.adapter
        self.history: list[dict[str, Any]] = []
        self.trunks = self._trunks()
        mx.eval(self.adapter)
        self._log_plan()

    def resume(self) -> None:
        """Continue from the snapshot of this very run, if there is one."""
        found = snapshot.load(self.state_folder, self.fingerprint)
        history = self.state_folder / HISTORY
        if found is None:
            history.unlink(missing_ok=True)
            return
        self.counters, groups = found
        self.adapter, self.best = groups["adapter"], groups["best"]
        self.optimizer.first, self.optimizer.second = groups["first"], groups["second"]
        self.optimizer.step = self.counters.step
        self.probe.highest, self.probe.highest_process = self.counters.peak_gb, self.counters.process_gb
        self.history = [row for row in _readable(history) if row["step"] <= self.counters.step]
        write_jsonl(history, self.history)
        log.info("continuing from the snapshot of step %d", self.counters.step)

    def steps(self) -> None:
        """All optimizer steps that are left, with validations and snapshots between them."""
        settings, counters = self.settings, self.counters
        iterations = settings["iterations"]
        stream = batches.stream(self.records, settings["batch_size"], settings["seed"], start=counters.batches)
        if counters.initial_validation is None:
            self._validate()
        progress = Progress("train", iterations, "steps", done=counters.step)
        while counters.step < iterations:
            micro_batches = [next(stream) for _ in range(settings["accumulation"])]
            row = self._step([batch for _, batch in micro_batches])
            self._note(row)
            if counters.step % settings["validate_every"] == 0 or counters.step == iterations:
                self._validate()
            if counters.step % settings["snapshot_every"] == 0 or counters.step == iterations:
                self._save()
            progress.advance(1, f"loss {row['loss']:.3f}, validation {counters.final_validation:.3f}")
        progress.done()

    def finish(self, out_folder: Path, history_path: str | Path | None) -> dict[str, Any]:
        """Write history and adapter; returns the summary."""
        if history_path is not None:
            write_jsonl(history_path, self.history)
        chosen = self.best if self.settings["select"] == "best" else self.adapter
        config = layers.adapter_config(self.model, self.settings["lora"], self.keys)
        layers.save_adapter(out_folder, chosen, config)
        return summarize(self.history, self.counters, self.settings)

    def close(self) -> None:
        """Delete the caches' files and end the threads, however the run went."""
        for cache in self.trunks.values():
            cache.close()
        self.arithmetic.close()

    def _step(self, micro_batches: list[batches.Batch]) -> dict[str, Any]:
        """One optimizer step: the mean over all trained tokens of its micro-batches, each token weighing the same."""
        settings, counters = self.settings, self.counters
        start = time.monotonic()
        self.probe.reset()
        total, gradients = self.arithmetic.loss_and_gradients(self.adapter, micro_batches, self.trunks.get("train"))
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
        seconds = time.monotonic() - start
        processed = sum(batch.processed for batch in micro_batches)
        counters.batches += len(micro_batches)
        counters.trained_tokens += trained
        counters.processed_tokens += processed
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
        """The loss per trained token over the whole validation set; keeps the adapter if it is the best so far."""
        start = time.monotonic()
        self.probe.reset()
        counters = self.counters
        total = self.arithmetic.loss(self.adapter, self.validation, self.trunks.get("validation"))
        self._check("validation loss", total)
        loss = total / sum(batch.trained for batch in self.validation)
        if counters.initial_validation is None:
            counters.initial_validation = loss
        counters.final_validation = loss
        if counters.best_loss is None or loss < counters.best_loss:
            counters.best_loss, counters.best_step, self.best = loss, counters.step, self.adapter
        seconds = time.monotonic() - start
        counters.seconds += seconds
        log.info("step %d: validation loss %.4f (%s)", counters.step, loss, duration(seconds))
        self._note(
            {"event": "validation", "step": counters.step, "loss": loss, "seconds": seconds, **self.probe.read()}
        )

    def _check(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise CallsmithError(
                f"training step {self.counters.step}: the {what} is {value}; lower training.learning_rate, lengthen "
                "training.warmup or set training.clip_norm to 1. The last snapshot is kept"
            )

    def _save(self) -> None:
        counters = self.counters
        counters.peak_gb, counters.process_gb = self.probe.highest, self.probe.highest_process
        first, second = self.optimizer.state()
        snapshot.save(
            self.state_folder, self.fingerprint, counters,
            {"adapter": self.adapter, "best": self.best, "first": first, "second": second},
        )  # fmt: skip

    def _note(self, row: dict[str, Any]) -> None:
        """Append a row to the history, in memory and in the state folder."""
        self.history.append(row)
        with open(self.state_folder / HISTORY, "ab") as stream:
            stream.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def _trunks(self) -> dict[str, trunk.Trunk]:
        """The caches of the frozen blocks' outputs, for the record sets that are seen more than once."""
        settings, arithmetic = self.settings, self.arithmetic
        seen = settings["iterations"] * settings["accumulation"] * settings["batch_size"]
        checks = 1 + math.ceil(settings["iterations"] / settings["validate_every"])
        found = {}
        for what, records, visits in (
            ("train", self.records, seen / len(self.records)),
            ("validation", self.valid_records, checks),
        ):
            use, path = trunk.plan(
                what,
                records,
                visits,
                arithmetic.cut,
                arithmetic.width,
                arithmetic.dtype,
                settings["trunk_cache"],
                self.state_folder,
            )
            if use:
                found[what] = trunk.Trunk(arithmetic.trunk, records, arithmetic.width, arithmetic.dtype, path)
        return found

    def _log_plan(self) -> None:
        settings, adapted = self.settings, self.blocks - self.arithmetic.cut
        log.info(
            "LoRA rank %d on %s of the last %d of %d blocks: %.2f M of %.1f M parameters",
            settings["lora"]["rank"], ", ".join(key.rsplit(".", 1)[-1] for key in self.keys), adapted,
            self.blocks, sum(value.size for value in self.adapter.values()) / 1e6, self.parameters / 1e6,
        )  # fmt: skip


def arithmetic(model: nn.Module, settings: dict[str, Any]) -> Autograd | llama_cpu.LlamaCPU:
    """What computes losses and gradients: the written-out CPU path where it fits, else MLX's autograd."""
    cut = frozen_blocks(model)
    if llama_cpu.supports(model, settings):
        return llama_cpu.LlamaCPU(model, settings, cut)
    return Autograd(model, settings, cut)


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
    """The training summary.

    Let s be the training loss smoothed by a moving mean over the trained tokens of `window` steps
    (a tenth of all, at most 20), which the last step of each window carries.

    - `initial_loss` and `final_loss` are the first and the last value of s: the means over the
      first and the last `window` steps.
    - `convergence_iteration` is the first step from which on s stays within 10 % of the total
      reduction (initial - final) above its final value; None when it does not settle before the last
      window begins, or when the loss rose.
    - `coefficient_of_variation` is the standard deviation of the raw losses over the steps from there
      on (over all steps when that is None), as a share of their mean.
    """
    steps = [row for row in history if row["event"] == "step"]
    losses = np.array([row["loss"] for row in steps])
    tokens = np.array([row["tokens"] for row in steps])
    window = max(1, min(20, len(steps) // 10))
    each = np.ones(window)
    smooth = np.convolve(losses * tokens, each, "valid") / np.convolve(tokens, each, "valid")  # [steps - window + 1]
    initial, final = float(smooth[0]), float(smooth[-1])
    outside = np.flatnonzero(smooth > final + 0.1 * (initial - final))
    settled = int(outside[-1]) + window if outside.size else window - 1  # index of the first step that settled
    converged = settled < len(steps) - window
    rest = losses[settled:] if converged else losses
    return {
        "iterations": counters.step,
        "window": window,
        "initial_loss": initial,
        "final_loss": final,
        "loss_reduction": 1 - final / initial,
        "convergence_iteration": steps[settled]["step"] if converged else None,
        "coefficient_of_variation": float(rest.std() / rest.mean()),
        "initial_validation_loss": counters.initial_validation,
        "final_validation_loss": counters.final_validation,
        "best_validation_loss": counters.best_loss,
        "best_iteration": counters.best_step,
        "trained_tokens": counters.trained_tokens,
        "tokens": counters.processed_tokens,
        "tokens_per_second": counters.processed_tokens / counters.train_seconds,
        "iterations_per_second": counters.step / counters.train_seconds,
        "peak_memory_gb": counters.peak_gb,
        "process_memory_gb": counters.process_gb,
        "train_seconds": counters.train_seconds,
        "seconds": counters.seconds,
    }
