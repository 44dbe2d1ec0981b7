"""The fast BLAS for MLX on Linux CPUs.

MLX's Linux wheel links the reference BLAS, which multiplies float32 matrices one hundred
times slower than OpenBLAS does. The dynamic linker takes the first `cblas_sgemm` it meets,
so an OpenBLAS loaded globally *before* `import mlx.core` replaces the slow one. The PyPI
wheel `scipy-openblas32` is a current OpenBLAS whose symbols begin with `scipy_`; `install`
writes a copy of it with plain names into the environment, once, at set-up.

    python -m callwright.runtime.blas install     (`make` does this)
    python -m callwright.runtime.blas             says what is active and how fast it is
"""

import ctypes
import glob
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What MLX calls; every other symbol keeps its `scipy_` prefix and disturbs nobody.
MLX_SYMBOLS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
PLAIN_COPY = Path(sys.prefix) / "lib" / "callwright" / "libopenblas.so"
# The reference BLAS reaches about 2 GFLOP/s, OpenBLAS on one old core more than 20.
SLOW_GFLOPS = 10.0
REMEDY = "run `make setup` (or `python -m callwright.runtime.blas install`), or install your system's libopenblas"

_loaded: tuple[str, ctypes.CDLL] | None = None


def install() -> Path:
    """Write a copy of scipy-openblas32's library whose CBLAS symbols have their plain names.

    Returns the path of the copy. Raises ImportError when `scipy-openblas32` is missing and
    `subprocess.CalledProcessError` when `patchelf` fails.
    """
    import scipy_openblas32

    source = Path(scipy_openblas32.get_lib_dir()) / "libscipy_openblas.so"
    PLAIN_COPY.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLAIN_COPY.parent) as scratch:
        names = Path(scratch) / "names"
        names.write_text("".join(f"scipy_{name} {name}\n" for name in MLX_SYMBOLS))
        copy = Path(scratch) / "libopenblas.so"
        shutil.copy(source, copy)
        patchelf = shutil.which("patchelf", path=f"{sys.prefix}/bin:{os.environ.get('PATH', '')}")
        if patchelf is None:
            raise FileNotFoundError("patchelf is not installed; it comes with requirements.lock")
        subprocess.run([patchelf, "--rename-dynamic-symbols", names, copy], check=True)
        os.replace(copy, PLAIN_COPY)
    return PLAIN_COPY


def candidates() -> list[str]:
    """Libraries with plain CBLAS names, best first: an override, ours, conda's, the system's."""
    named = os.environ.get("CALLWRIGHT_BLAS")
    found = [named] if named else []
    if PLAIN_COPY.exists():
        found.append(str(PLAIN_COPY))
    found += sorted(glob.glob(f"{sys.prefix}/lib/libopenblas.so*"))
    found += sorted(glob.glob(f"/usr/lib/{platform.machine()}-linux-gnu/libopenblas.so*"))
    found += sorted(glob.glob("/usr/lib64/libopenblas.so*"))
    return found


def load(threads: int) -> str:
    """Load the best OpenBLAS globally and give it `threads` threads; call before MLX is imported.

    Returns what is active, for the log: a path, or the reason why MLX's own BLAS stays.
    Does nothing on macOS, where MLX uses Accelerate and Metal.
    """
    global _loaded
    if sys.platform != "linux":
        return "Accelerate (macOS)"
    if _loaded is None:
        if "mlx.core" in sys.modules:
            return "MLX's own (mlx was imported before the fast BLAS could be loaded)"
        for path in candidates():
            try:
                library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
                for name in MLX_SYMBOLS:
                    getattr(library, name)
            except (OSError, AttributeError):
                continue
            _loaded = (path, library)
            break
        else:
            return "MLX's own (no OpenBLAS found)"
    path, library = _loaded
    # Snakemake exports OPENBLAS_NUM_THREADS=1 to every script, so the environment cannot say it.
    for setter in ("openblas_set_num_threads", "scipy_openblas_set_num_threads"):
        if hasattr(library, setter):
            getattr(library, setter)(ctypes.c_int(threads))
            break
    return path


def name() -> str:
    """Which BLAS computes MLX's products on the CPU, for reports."""
    if sys.platform != "linux":
        return "Accelerate"
    return "OpenBLAS" if _loaded else "MLX's own"


def kernels() -> str:
    """The processor family whose kernels OpenBLAS chose, as `Haswell`; they differ in the last bits. Else empty."""
    for name in ("openblas_get_corename", "scipy_openblas_get_corename"):
        function = getattr(_loaded[1], name, None) if _loaded else None
        if function is not None:
            function.restype = ctypes.c_char_p
            return function().decode()
    return ""


def is_fast() -> bool:
    """True when `load` has put an OpenBLAS in place, or on macOS, whose own is fast."""
    return _loaded is not None or sys.platform != "linux"


def measure_gflops(size: int = 512, repeats: int = 5) -> float:
    """The float32 matrix-product rate that MLX reaches on the CPU now, in GFLOP/s (best of `repeats`)."""
    import mlx.core as mx

    with mx.stream(mx.cpu):
        a = mx.ones((size, size))
        mx.eval(a, a @ a)
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            mx.eval(a @ a)
            best = min(best, time.perf_counter() - start)
            if best > 0.05:  # the reference BLAS: one look is enough
                break
    return 2 * size**3 / best / 1e9


def main() -> None:
    if sys.argv[1:] == ["install"]:
        if sys.platform != "linux":
            print("nothing to install: MLX uses Accelerate on macOS")
            return
        print(f"installed {install()}")
    print(f"BLAS: {load(os.cpu_count() or 1)}, {measure_gflops():.0f} GFLOP/s in float32")


if __name__ == "__main__":
    main()
