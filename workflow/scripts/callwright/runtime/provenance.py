"""Which versions and which machine a result came from."""

import platform
from collections.abc import Sequence
from importlib import metadata
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("callwright", "mlx", "mlx-lm", "transformers", "tokenizers", "numpy", "datasets", "snakemake")
# Modules that decide nothing about a result, and that every script imports: an edit of them reruns nothing.
AROUND_EVERY_JOB = {"logs.py", "job.py", "errors.py", "device.py", "blas.py", "provenance.py", "__init__.py"}


def versions() -> dict[str, str]:
    """Python's version and those of the packages that results depend on; `-` where not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "-"
    return found


def code_files(script: Path, root: Path, without: Sequence[str] = ()) -> list[Path]:
    """The Python files below `root` that `script` imports, itself included, but for `AROUND_EVERY_JOB`.

    `without`: modules to leave out, with all that only they import.
    """
    finder = ModuleFinder(path=[str(root)], excludes=without)
    finder.run_script(str(script))
    files = {Path(module.__file__) for module in finder.modules.values() if module.__file__}
    return sorted(path for path in files if path.name not in AROUND_EVERY_JOB)


def machine() -> dict[str, Any]:
    """Operating system, processor architecture, logical cores and memory (GB) of this machine."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }
