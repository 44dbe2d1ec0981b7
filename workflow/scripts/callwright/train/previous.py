"""`training.from: previous`: where only corrections were added since a run was trained, training goes on from there.

`results/<run>/previous`, which no rule declares, holds the adapter of the last finished training, what it was trained
on (`about.json`), and, from the moment the next training begins, the scores of that adapter's answers, so that the
report can say what became better or worse. Whoever wants to begin anew removes the folder.
"""

import logging
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from callwright.data.corrections import PREFIX
from callwright.lora import layers
from callwright.runtime.config import starts
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, read_jsonl, sha256_file, sha256_json, write_json

log = logging.getLogger(__name__)
FOLDER = "previous"
# Settings that say how far a training goes, not what its adapter is.
ASIDE = ("from", "from_iterations", "iterations", "validate_every", "snapshot_every", "memory_budget_gb", "workers")


def about(train: str | Path, valid: str | Path, model: str | Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter is trained on: `base`, a hash of all but the corrections, and the `corrections`' ids."""
    others, taught = [], []
    for row in read_jsonl(train):
        (taught if row["id"].startswith(PREFIX) else others).append(row)
    kept = {key: value for key, value in settings.items() if key not in ASIDE}
    base = sha256_json([sha256_json(others), sha256_file(valid), sha256_file(model), kept])
    return {"base": base, "corrections": sorted({row["id"].split("/")[0] for row in taught})}


def begin(run_folder: str | Path, now: Mapping[str, Any], settings: Mapping[str, Any]) -> Path | None:
    """The run's last adapter to go on from, or None to begin anew; the log says why.

    Keeps the scores of the answers that the last adapter gave, before they are replaced.
    """
    folder = Path(run_folder) / FOLDER
    goes_on, other = starts(settings)
    if not goes_on:
        return None
    beginning = f"beginning with {other or 'the base model'}"
    try:
        then = read_json(folder / "about.json")
    except CallwrightError:
        log.info("training.from has `previous`, and this run was not trained before: %s", beginning)
        return None
    if then.get("base") != now["base"]:
        why = "more than the corrections has changed since the last training"
    elif not set(then["corrections"]) < set(now["corrections"]):
        gone = set(then["corrections"]) - set(now["corrections"])
        why = f"{len(gone)} corrections are gone that it learned" if gone else "there is no new correction"
    elif then.get("adapter") != sha256_file(folder / "adapter" / layers.WEIGHTS):
        why = "the kept adapter was changed"
    else:
        keep_scores(Path(run_folder), folder)
        new = len(now["corrections"]) - len(then["corrections"])
        log.info("going on from the last adapter: %d new corrections", new)
        return folder / "adapter"
    log.info("%s: %s", beginning, why)
    return None


def keep(run_folder: str | Path, adapter: str | Path, now: Mapping[str, Any]) -> None:
    """Keep a finished training's adapter for the next one; `about.json` is written last."""
    folder = Path(run_folder) / FOLDER
    fresh = folder / "adapter.new"
    shutil.rmtree(fresh, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(adapter, fresh)
    (folder / "about.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    os.replace(fresh, folder / "adapter")
    write_json(folder / "about.json", {**now, "adapter": sha256_file(folder / "adapter" / layers.WEIGHTS)})


def keep_scores(run_folder: Path, folder: Path) -> None:
    """The last adapter's score rows, one file for each suite, where they are newer than that adapter."""
    made = (folder / "about.json").stat().st_mtime
    for path in run_folder.glob("evaluation/*/tuned/scores.jsonl"):
        if path.stat().st_mtime >= made:
            target = folder / "scores" / f"{path.parts[-3]}.jsonl"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def rows(all_rows: Sequence[dict[str, Any]], wanted: int, seed: int) -> list[dict[str, Any]]:
    """All corrections, and so many of the other rows that there are `wanted`, as many as corrections at least."""
    taught = [row for row in all_rows if row["id"].startswith(PREFIX)]
    others = [row for row in all_rows if not row["id"].startswith(PREFIX)]
    count = min(len(others), max(wanted - len(taught), len(taught)))
    return [*taught, *random.Random(f"{seed}/previous").sample(others, count)]


def start(folder: str | Path, fresh: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The adapter's arrays in the place of fresh ones; raises CallwrightError when they are others."""
    found = mx.load(str(Path(folder) / layers.WEIGHTS))
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    if shapes != {name: tuple(value.shape) for name, value in fresh.items()}:
        raise CallwrightError(
            f"{folder} does not fit training.lora (rank, layers, projections): train with its own, or "
            "remove the folder, or leave training.from out, to begin with the base model"
        )
    return {name: found[name].astype(value.dtype) for name, value in fresh.items()}
