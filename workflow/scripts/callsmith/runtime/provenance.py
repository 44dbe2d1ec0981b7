"""Which versions and which machine a result came from."""

import platform
from importlib import metadata
from typing import Any

import psutil

PACKAGES = ("callsmith", "mlx", "mlx-lm", "transformers", "tokenizers", "numpy", "datasets", "snakemake")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that results depend on; `-` where not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "-"
    return found


def machine() -> dict[str, Any]:
    """Operating system, processor architecture, logical cores and memory (GB) of this machine."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }
