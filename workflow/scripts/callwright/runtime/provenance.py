"""Which code, which versions and which machine a result came from."""

import hashlib
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("callwright", "mlx", "mlx-lm", "transformers", "tokenizers", "numpy", "datasets", "snakemake")
LIBRARY = Path(__file__).resolve().parents[1]
# What every script imports and what decides nothing about a result, each with its reason: an edit of it reruns nothing.
EXEMPT = {
    "runtime/logs.py": "log lines and progress",
    "runtime/job.py": "what stands around a script's one call",
    "runtime/errors.py": "the classes of errors that users read",
    "runtime/provenance.py": "says where a result came from",
    "runtime/device.py": "picks the device; results name it",
    "runtime/blas.py": "finds a fast BLAS; results name it",
}
# Modules that read the files of a folder beside them, which are as good as code.
TEMPLATES = {"chat/template.py": "chat/templates", "report/html.py": "report/templates"}


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
    """The files below `root` that decide what `script` does: itself, the modules that it imports, their templates.

    Imports inside functions count. `without`: modules to leave out, with all that only they import. `EXEMPT` ones
    and empty files are left out too.
    """
    finder = ModuleFinder(path=[str(root)], excludes=without)
    finder.run_script(str(script))
    modules = [Path(module.__file__).resolve() for module in finder.modules.values() if module.__file__]
    found = {path for path in modules if path.stat().st_size and within_library(path) not in EXEMPT}
    for module, folder in TEMPLATES.items():
        if LIBRARY / module in found:
            found |= set((LIBRARY / folder).iterdir())
    return sorted(found)


def within_library(path: Path) -> str:
    """A file's path inside the library, as in `evals/generate.py`; its name alone for a script."""
    return path.relative_to(LIBRARY).as_posix() if path.is_relative_to(LIBRARY) else path.name


def hashes(files: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of each file's bytes, by its path inside the library."""
    return {within_library(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def digest(found: Mapping[str, str]) -> str:
    """Sixteen hexadecimal digits that change with any name or hash of `hashes`."""
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]


def loaded_code() -> dict[str, str]:
    """`hashes` of this process's modules of the library, but for `EXEMPT` ones."""
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    paths = {Path(file).resolve() for file in modules if file}
    ours = [path for path in paths if path.is_relative_to(LIBRARY) and path.suffix == ".py" and path.stat().st_size]
    return {name: value for name, value in hashes(ours).items() if name not in EXEMPT}


def machine() -> dict[str, Any]:
    """Operating system, processor architecture, logical cores and memory (GB) of this machine."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }
