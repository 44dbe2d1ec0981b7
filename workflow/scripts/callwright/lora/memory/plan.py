"""The memory plan: what a training will take, what is chosen so that it fits, and what a step really took.

The largest thing that changes with the settings is what a step keeps for its backward pass. Each
backend predicts it for a batch (`activation_bytes`) without computing anything. Where the whole
does not fit the budget, the cheapest means come first: the same optimizer step in smaller
micro-batches, logits of fewer tokens at once, recomputation of some blocks, of all.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_flatten

from callwright.lora import batches, random_state
from callwright.lora.batches import Batch, Record
from callwright.lora.distributed import ProcessGroup
from callwright.lora.frozen_prefix import FrozenPrefix, pieces
from callwright.lora.loss import FEWEST, chunk_tokens
from callwright.lora.memory import usage
from callwright.lora.optimizer import AdamW
from callwright.runtime import device
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, sha256_json, write_json

if TYPE_CHECKING:
    from callwright.lora.backend import TrainingBackend

log = logging.getLogger(__name__)

Arrays = dict[str, mx.array]
FILE = "plan.json"
STEP, PROBE, MOST = "step: activations, gradients, logits", "together, on the largest batch", "at most during the run"
# `gradient_checkpointing: auto` tries these in turn: each computes more again, and keeps less.
EPOCHS = 3  # whose batches are looked at
POLICIES = ("off", 4, 2, "all")


@dataclass(frozen=True)
class Choice:
    """How a step is computed; none of it changes the step itself beyond rounding."""

    micro_batch: int  # records that are computed together, of each worker
    gradient_checkpointing: str | int
    loss_chunk: int


@dataclass
class Row:
    """A line of the plan's table, in bytes; None where it was not measured."""

    what: str
    predicted: int
    measured: int | None = None


def nbytes(arrays: Any) -> int:
    """The bytes of all arrays in a tree, each once."""
    return sum({id(array): array.nbytes for _, array in tree_flatten(arrays)}.values())


def cache_bytes(prefixes: Iterable[FrozenPrefix], backend: "TrainingBackend") -> int:
    """What the prefix caches will hold in memory when they are full; a store's pages belong to the system."""
    return sum(
        piece.length * backend.width * backend.dtype.size
        for prefix in prefixes
        if prefix.store is None
        for piece in pieces(prefix.records)
    )


class MemoryPlan:
    """The plan of one run: its methods in the order in which they are called."""

    def __init__(self, settings: dict[str, Any], records: Sequence[Record], workers: ProcessGroup | None = None):
        """`settings`: the config's `training`; `workers`: the processes that share the batches and this machine."""
        self.settings, self.records, self.workers = settings, records, workers or ProcessGroup()
        self.budget_gb = settings["memory_budget_gb"]
        self.is_set = self.budget_gb is not None
        if not self.is_set:
            self.budget_gb = usage.available() / self.workers.size
        self.asked = -(-settings["batch_size"] // self.workers.size)
        self.choice = Choice(self.asked, "off", 1)
        self.rows: list[Row] = []
        self.accumulates = False

    def choose(
        self,
        backend: "TrainingBackend",
        weights: int,
        adapter: int,
        prefix: int,
        vocabulary: int,
        stored: dict[str, Any] | None = None,
    ) -> Choice:
        """Pick what fits the budget and configure `backend` so; all workers take what the first one picks.

        `weights`, `adapter` and `prefix` (what of the prefix cache is to be in memory) are bytes; `vocabulary` is how
        many logits a token has. `stored` is an earlier `asdict` of a choice: an interrupted run goes on as it began,
        since another choice rounds otherwise.

        Raises CallwrightError when nothing fits, naming the settings that would.
        """
        held = [Row("weights", weights), Row("adapter and optimizer", 3 * adapter)]
        later = [Row("best adapter so far", adapter), Row("prefix cache", prefix)]
        fixed = sum(row.predicted for row in held + later)
        smallest: tuple[int, Choice] | None = None
        for choice in self._choices(vocabulary, stored):
            needs = self._step(backend, choice, adapter)
            if fixed + needs <= self.budget_gb * usage.GB:
                break
            if smallest is None or needs < smallest[0]:
                smallest = needs, choice
        else:
            self._refuse(backend, held + later, adapter, *smallest)
        self.choice = choice = self._first_workers(choice)
        needs = self._step(backend, choice, adapter)
        self.rows = [
            *held,
            Row(STEP, needs),
            Row(PROBE, weights + 3 * adapter + needs),
            *later,
            Row(MOST, fixed + needs),
        ]
        self._say(choice)
        return choice

    def pieces(self, micro_batches: Sequence[Batch]) -> list[Batch]:
        """`micro_batches` cut to the chosen size; their gradients add up, each trained token weighing the same."""
        size = self.choice.micro_batch * self.workers.size
        return [piece for batch in micro_batches for piece in batches.split(batch, size)]

    def measure(
        self, backend: "TrainingBackend", adapter: Arrays, optimizer: AdamW, prefix: FrozenPrefix | None
    ) -> None:
        """Compute one step on the largest batch, throw it away, and put what it took into the table.

        Leaves adapter, optimizer and `mx.random` as they were. The weights' measured bytes are all that is there
        beside adapter and moments.
        """
        state = random_state.get()
        mx.eval(adapter, *optimizer.state())
        held = nbytes([adapter, *optimizer.state()])
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        pieces = [self._largest(backend, self.choice.micro_batch)] * (2 if self.accumulates else 1)
        result = backend.loss_and_gradients(adapter, pieces, prefix)
        mx.eval(result[1])
        del result
        random_state.put(state)
        cached = 0 if prefix is None else sum(hidden.nbytes for hidden in prefix.known.values())
        peak = mx.get_peak_memory() - cached
        found = {"weights": before - held, "adapter and optimizer": held, STEP: peak - before, PROBE: peak}
        for row in self.rows:
            row.measured = found.get(row.what)
        if self.is_set and peak > self.budget_gb * usage.GB:
            log.warning(
                "a step takes %.2f GB, more than the %.2f of config key training.memory_budget_gb",
                peak / usage.GB, self.budget_gb,
            )  # fmt: skip

    def log_table(self) -> None:
        """The table, a line of the log for each row."""
        log.info("memory plan (GB), %s:", asdict(self.choice))
        log.info("  %-40s %9s  %9s", "", "predicted", "measured")
        for row in self.rows:
            found = ["?" if value is None else f"{value / usage.GB:.3f}" for value in (row.predicted, row.measured)]
            log.info("  %-40s %9s  %9s", row.what, *found)

    def summary(self, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """For the training summary: `budget_gb`, what was chosen, and `rows` of GB.

        `history`: rows with `peak_gb`. Loading a model takes more for a moment than the model does; it is left out.
        """
        peaks = [row["peak_gb"] for row in history if row.get("phase") != "load"]
        self.rows[-1].measured = round(max(peaks) * usage.GB)
        return {
            "budget_gb": round(self.budget_gb, 3),
            "budget_set": self.is_set,
            **asdict(self.choice),
            "rows": [
                {"what": row.what} | {
                    f"{key}_gb": None if value is None else round(value / usage.GB, 4)
                    for key, value in (("predicted", row.predicted), ("measured", row.measured))
                }
                for row in self.rows
            ],
        }  # fmt: skip

    # -- how it chooses ----------------------------------------------------------------------------

    def _choices(self, vocabulary: int, stored: dict[str, Any] | None) -> Iterator[Choice]:
        """From what was asked to what needs the least, the cheapest means first."""
        if stored is not None:
            yield Choice(**stored)
            return
        settings = self.settings
        chunk = chunk_tokens(settings["loss_chunk"], vocabulary)
        chunks = [chunk, FEWEST] if settings["loss_chunk"] == "auto" and chunk > FEWEST else [chunk]
        policies = POLICIES if settings["gradient_checkpointing"] == "auto" else [settings["gradient_checkpointing"]]
        for policy in policies:
            for chunk in chunks:
                size = self.asked
                while True:
                    yield Choice(size, policy, chunk)
                    if size == 1:
                        break
                    size = -(-size // 2)

    def _step(self, backend: "TrainingBackend", choice: Choice, adapter: int) -> int:
        """The most bytes of a step, its update or its batches."""
        self._configure(backend, choice)
        accumulated = adapter if self.accumulates else 0
        # Beside the old ones: adapter, moments, and the gradient before and after it is scaled and clipped.
        update = 6 * adapter
        return max(backend.activation_bytes(self._largest(backend, choice.micro_batch)) + accumulated, update)

    def _largest(self, backend: "TrainingBackend", size: int) -> Batch:
        """The batch of `size` records that takes the most memory.

        Where records share beginnings, of those that the first epochs are made of, cut to that size; else, of all
        that are neighbours in length.
        """
        found = batches.neighbours(self.records, size)
        if any(record.beginning is not None for record in self.records):
            settings = self.settings
            found = [
                piece
                for epoch in range(EPOCHS)
                for batch in batches.epoch_batches(self.records, settings["batch_size"], settings["seed"], epoch)
                for piece in batches.split(batch, size)
            ]
        return max(found, key=backend.rows)

    def _configure(self, backend: "TrainingBackend", choice: Choice) -> None:
        self.accumulates = self.settings["accumulation"] > 1 or choice.micro_batch < self.asked
        backend.configure(choice.gradient_checkpointing, choice.loss_chunk)

    def _refuse(self, backend: "TrainingBackend", fixed: list[Row], adapter: int, step: int, choice: Choice) -> None:
        budget = self.budget_gb * usage.GB
        said = f"training.memory_budget_gb is {self.budget_gb:g}" if self.is_set else f"{self.budget_gb:.2f} are free"
        held = sum(row.predicted for row in fixed)
        needs = held + step
        remedies = [f"training.memory_budget_gb from {_up(needs)} on" if self.is_set else "closing other programs"]
        if held < budget:
            if self.settings["gradient_checkpointing"] not in ("auto", "all"):
                less = self._step(backend, replace(choice, gradient_checkpointing="all"), adapter)
                if held + less <= budget:
                    remedies.append(f"training.gradient_checkpointing: all ({_up(held + less)} GB)")
            longest = max(record.length for record in self.records)
            for length in (longest * part // 8 for part in (6, 4, 3, 2, 1)):
                records = [Record(r.id, r.tokens[:length], r.positions[r.positions < length - 1]) for r in self.records]
                records = [record for record in records if record.positions.size]
                if records:
                    shorter = MemoryPlan(self.settings, records)
                    shorter.asked = self.asked
                    less = shorter._step(backend, choice, adapter)
                    if held + less <= budget:
                        remedies.append(f"data.max_tokens: {length} ({_up(held + less)} GB)")
                        break
            remedies.append("fewer training.lora.layers, or a lower training.lora.rank")
        else:
            # on the CPU, weights are float32 whatever their bits were
            remedies.append("a smaller model" if device.on_cpu() else "a smaller model, or one of fewer bits")
        parts = ", ".join(f"{row.what} {row.predicted / usage.GB:.2f}" for row in fixed if row.predicted)
        raise CallwrightError(
            f"training would take {_up(needs)} GB of memory at the least, with {choice.micro_batch} of the longest "
            f"records at a time, gradient_checkpointing {choice.gradient_checkpointing} and loss_chunk "
            f"{choice.loss_chunk} ({parts}, a step {step / usage.GB:.2f}), and {said} GB. What would help: "
            f"{'; '.join(remedies)}"
        )

    def _first_workers(self, choice: Choice) -> Choice:
        codes = {"off": 0, "all": -1}
        mine = (
            choice.micro_batch,
            codes.get(choice.gradient_checkpointing, choice.gradient_checkpointing),
            choice.loss_chunk,
        )
        size, policy, chunk = map(int, self.workers.total(*(mine if self.workers.first else (0, 0, 0))))
        return Choice(size, next((name for name, code in codes.items() if code == policy), policy), chunk)

    def _say(self, choice: Choice) -> None:
        if choice.micro_batch < self.asked:
            log.info(
                "memory plan: %d records at once do not fit %.2f GB; each batch is computed in parts of %d, whose "
                "gradients are added up by tokens: the optimizer step is the same",
                self.asked, self.budget_gb, choice.micro_batch,
            )  # fmt: skip
        if self.settings["gradient_checkpointing"] == "auto" and choice.gradient_checkpointing != "off":
            which = (
                "every block"
                if choice.gradient_checkpointing == "all"
                else f"every {choice.gradient_checkpointing}. block"
            )
            log.info("memory plan: %s is computed a second time in the backward pass (gradient checkpointing)", which)


def stored_choice(folder: Path, fingerprint: Any) -> dict[str, Any] | None:
    """The choice that a run of this `fingerprint` began with, from its state folder."""
    path = folder / FILE
    found = read_json(path) if path.exists() else {}
    return found.get("choice") if found.get("fingerprint") == sha256_json(fingerprint) else None


def store_choice(folder: Path, fingerprint: Any, choice: Choice) -> None:
    """Note the choice beside the snapshots."""
    write_json(folder / FILE, {"fingerprint": sha256_json(fingerprint), "choice": asdict(choice)})


def _up(size: float) -> str:
    """GB, rounded up to hundredths."""
    return f"{-(-size // 10**7) / 100:.2f}"
