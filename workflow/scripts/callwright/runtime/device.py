"""Where MLX computes: Metal, CUDA or the CPU, with how many threads."""

import logging
import os
import platform
from typing import Any

from callwright.runtime import blas, provenance
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)


def configure(cpu_threads: int = 0, kind: str = "auto") -> None:
    """Prepare MLX; call once per process, before anything imports it.

    `cpu_threads` 0 means all cores. `kind` is `auto` (the accelerator if there is one), `gpu`
    or `cpu`. Raises CallwrightError when `gpu` is asked for and there is none.
    """
    # transformers notes at import that PyTorch is missing; nothing here wants it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    active = blas.load(cpu_threads or os.cpu_count() or 1)
    import mlx.core as mx

    if kind == "gpu" and not has_gpu():
        raise CallwrightError(
            "config key device.kind is `gpu`, but MLX finds no Metal or CUDA device here: set it to `auto` or `cpu`"
        )
    if kind == "cpu" or not has_gpu():
        mx.set_default_device(mx.cpu)
        # Compiling there starts a C++ compiler where one is installed, for no gain; without it all machines do alike.
        mx.disable_compile()
        gflops = blas.measure_gflops()
        log.info("device: cpu (%s), BLAS: %s, %.0f GFLOP/s in float32", platform.machine(), active, gflops)
        # With an OpenBLAS in place a low rate only says that other programs are busy just now.
        if gflops < blas.SLOW_GFLOPS and not blas.is_fast():
            log.warning(
                "the active BLAS is slow (%.1f GFLOP/s): this run will take many times longer; %s", gflops, blas.REMEDY
            )
    else:
        log.info("device: %s", mx.device_info().get("device_name", "gpu"))


def describe() -> dict[str, Any]:
    """Where this process computes, for reports: `device` (cpu, or the accelerator's name), `blas`, and the machine."""
    import mlx.core as mx

    found = {"device": "cpu", "blas": blas.name()}
    if not on_cpu():
        found = {"device": str(mx.device_info().get("device_name", "gpu"))}
    return {**found, **provenance.machine()}


def has_gpu() -> bool:
    """True when this build of MLX has a usable Metal or CUDA device."""
    import mlx.core as mx

    return bool(mx.is_available(mx.gpu))


def on_cpu() -> bool:
    """True when arrays are computed on the CPU by default."""
    import mlx.core as mx

    return mx.default_device().type == mx.DeviceType.cpu
