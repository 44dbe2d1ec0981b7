"""The same import path and device as the workflow's scripts have; fixtures shared by the rooms."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from callsmith.runtime import device, logs  # noqa: E402

logs.setup()
device.configure()  # before any test module imports MLX


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT
