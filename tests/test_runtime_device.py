"""The BLAS that MLX uses, what the log says of it, and the accelerator's absence."""

import os
import subprocess
import sys

import mlx.core as mx
import pytest

from callwright.runtime import blas, device
from callwright.runtime.errors import CallwrightError

linux_cpu = pytest.mark.skipif(sys.platform != "linux", reason="macOS has its own BLAS")


def in_a_fresh_process(root, code, **environment):
    scripts = str(root / "workflow" / "scripts")
    return subprocess.run(
        [sys.executable, "-c", f"from callwright.runtime import logs, device, blas; logs.setup(); {code}"],
        env={**os.environ, "PYTHONPATH": scripts, **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip


@linux_cpu
def test_the_setup_put_a_fast_blas_in_place_and_the_log_names_it(root):
    result = in_a_fresh_process(root, "device.configure()", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    assert "openblas" in result.stderr
    assert "GFLOP/s" in result.stderr
    assert "slow" not in result.stderr


@linux_cpu
def test_a_slow_blas_earns_one_warning_with_the_remedy(root):
    result = in_a_fresh_process(root, "blas.candidates = lambda: []; device.configure(kind='cpu')")
    warnings = [line for line in result.stderr.splitlines() if " W " in line]
    assert len(warnings) == 1
    assert "make setup" in warnings[0]


@linux_cpu
def test_products_are_right_with_the_fast_blas():
    import numpy as np

    a, b = (np.random.default_rng(i).standard_normal((65, 65)).astype(np.float32) for i in (0, 1))
    assert np.allclose(np.array(mx.array(a) @ mx.array(b)), a.astype(float) @ b, atol=1e-4)


def test_a_missing_accelerator_is_named(monkeypatch, caplog):
    monkeypatch.setattr(device, "has_gpu", lambda: False)
    with pytest.raises(CallwrightError, match=r"device\.kind is `gpu`"):
        device.configure(kind="gpu")


def test_an_unusable_library_is_passed_over(monkeypatch, tmp_path):
    broken = tmp_path / "libopenblas.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setenv("CALLWRIGHT_BLAS", str(broken))
    assert blas.candidates()[0] == str(broken)
    if sys.platform == "linux":
        assert blas.load(1) != str(broken)
        blas.load(os.cpu_count() or 1)
