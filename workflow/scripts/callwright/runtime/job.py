"""What every rule's script does around its one library call: logs, device, errors, time."""

import hashlib
import logging
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from callwright.runtime import logs, provenance
from callwright.runtime.errors import FULL_DISK, CallwrightError
from callwright.runtime.files import read_json, write_json

log = logging.getLogger(__name__)
# What each job's code was when it last ran; Snakemake's own folder, so that `make clean` takes it along.
CODE = Path(".snakemake/callwright")


def run(snakemake: Any, main: Callable[[Any], None], device: bool = False) -> None:
    """Run `main(snakemake)` for a Snakemake script.

    Log records go to the rule's log file and to the console. With `device`, the BLAS and
    MLX's device are set up first (config keys `device.*`), so `main` imports MLX inside. Where files of code have
    changed since the job last ran, a line names them.
    A CallwrightError or a full disk becomes one line and exit status 1; any other error keeps its traceback.
    """
    logs.setup(snakemake.log[0] if snakemake.log else None)
    start = time.monotonic()
    try:
        log.info("%s, Python %s, %s", snakemake.rule, platform.python_version(), platform.platform())
        if device:
            from callwright.runtime import device as devices

            devices.configure(**snakemake.config.get("device", {}))
        note_changed_code(snakemake)
        main(snakemake)
        keep_code(snakemake)
        log.info("%s done in %s", snakemake.rule, logs.duration(time.monotonic() - start))
    except CallwrightError as error:
        log.error("%s", error)
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL_DISK:
            log.exception("%s failed", snakemake.rule)
        else:
            log.error("no space left on the disk (%s): free some and run again", error.filename or "results/")
        sys.exit(1)
    except Exception:
        log.exception("%s failed", snakemake.rule)
        sys.exit(1)


def note_changed_code(snakemake: Any) -> None:
    """Log which of the files that the job loaded last time have changed since; Snakemake itself compares a digest."""
    path = _code_path(snakemake)
    if path is None or not path.exists():
        return
    before = read_json(path)
    now = provenance.hashes(file for name in before if (file := provenance.LIBRARY / name).exists())
    changed = [name for name, value in before.items() if now.get(name) != value]
    if changed:
        log.info("changed since this last ran: %s", ", ".join(changed))


def keep_code(snakemake: Any) -> None:
    """Remember the hashes of the library's modules that the job has loaded."""
    path = _code_path(snakemake)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, provenance.loaded_code())


def _code_path(snakemake: Any) -> Path | None:
    """The file for this job, named after its log; None outside of Snakemake's working directory."""
    if not snakemake.log or not CODE.parent.is_dir():
        return None
    return CODE / f"{hashlib.sha256(str(snakemake.log[0]).encode()).hexdigest()[:16]}.json"


def last_words(snakemake_log: str | Path) -> str:
    """What the failed jobs of a workflow said last, from their logs, which Snakemake's own log names."""
    text = Path(snakemake_log).read_text(encoding="utf-8", errors="replace")
    said = []
    for name in dict.fromkeys(re.findall(r"^ +log: (.+?) \(check log file", text, flags=re.MULTILINE)):
        path = Path(name)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        errors = [number for number, line in enumerate(lines) if re.match(r"[\d:]+ E ", line)]
        if errors:
            said += ["", f"{name}:", *lines[errors[-1] :]]
    return "\n".join(said)
