"""Downloads by pip and by the hub's client, with their bytes counted in the log like any other progress."""

import io
import re
import subprocess
from collections.abc import Sequence
from typing import Any

from callwright.runtime.logs import Progress

MB = 10**6
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


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
