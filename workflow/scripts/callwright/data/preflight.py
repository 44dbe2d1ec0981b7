"""What is cheap to check, before any model is fetched or loaded: toolset, records, suites, corrections, free disk."""

import logging
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from callwright.data import corrections
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import listed

LOOKED_AT = 20  # records of a file; one usable one is enough
FREE_GB = 1.0  # on the disk of the results, for the smallest run


def preflight(run: dict[str, Any], root: Path, results: str | Path = ".") -> None:
    """Raise CallwrightError for the first thing of a run's configuration that could not work.

    Reads what the run reads, but of files of records only the beginning, and not what lies in `root`'s own folder
    `config`, which is tested. Warnings are left to the jobs themselves.
    """
    own = (root / "config").resolve()
    check_disk(str(results))
    if run["data"]["source"] == "toolset":
        if not Path(run["toolset"]).resolve().is_relative_to(own):
            load(str(run["toolset"]))
    elif paths := listed(run["data"]["path"]):
        some_usable("data.path", tuple(map(str, paths)), run["data"]["source"])
    for entry in run["data"].get("mix") or []:
        paths = [path for path in listed(entry["path"]) if not Path(path).resolve().is_relative_to(own)]
        for path in paths:
            if not Path(path).expanduser().exists():
                raise CallwrightError(f"config key data.mix names {path}: there is no such file (in {Path.cwd()})")
        if paths and entry["source"] == "toolset":
            load(paths[0])
        elif paths:
            some_usable("data.mix", tuple(paths), entry["source"])
    for entry in run["evaluation"]["suites"]:
        for name, path in entry.items() if isinstance(entry, dict) else ():
            some_usable(f"evaluation.suites ({name})", (str(path),), "files")
    if path := corrections.settings_of(run)["path"]:
        corrections.read(path)


@cache
def check_disk(folder: str) -> None:
    """Raise CallwrightError when the disk has no room for a run."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < FREE_GB:
        raise CallwrightError(
            f"the disk of {Path(folder).resolve()} has {free:.2f} GB free, and a run needs {FREE_GB:g} GB at least: "
            "free some first"
        )


@cache
def load(path: str) -> None:
    """Read a toolset, for its faults alone."""
    from callwright.data.toolset import toolset as toolsets  # here: most runs need none of it

    before = toolsets.log.level
    toolsets.log.setLevel(logging.ERROR)
    try:
        toolsets.load_toolset(path)
    finally:
        toolsets.log.setLevel(before)


@cache
def some_usable(key: str, paths: tuple[str, ...], format: str) -> None:
    """Raise CallwrightError when the beginning of the files holds no usable record."""
    from callwright.data.records import RecordError
    from callwright.data.sources import read_records

    first: RecordError | None = None
    for number, (_, record) in enumerate(read_records(list(paths), format)):
        if not isinstance(record, RecordError):
            return
        first = first or record
        if number >= LOOKED_AT:
            break
    why = f"the first is {first.rule}: {first.reason}" if first else "there is none"
    raise CallwrightError(f"config key {key} is {', '.join(paths)}: none of its first records is usable; {why}")
