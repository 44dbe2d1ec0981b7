"""Float32 matrix products into memory that is there already, on one core, by the BLAS that MLX uses.

MLX's own products allocate their result. Writing into a given array, a part of one, or adding to
it, saves a pass over the memory for each sum, and makes the peak of memory a matter of what was
allocated on purpose. Rows or columns must be contiguous; the other stride is free, so a slice of
columns, a head of many, or a transposed weight needs no copy.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np

from callwright.runtime import blas

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray, add: bool = False) -> None:
    """out = a @ b, or out += a @ b with `add`, for float32 `a` [m, k], `b` [k, n], `out` [m, n].

    `out` needs contiguous rows and shares no memory with `a` or `b`. Raises ValueError for other
    shapes, types or strides.
    """
    m, k = a.shape
    n = b.shape[1]
    if b.shape[0] != k or out.shape != (m, n):
        raise ValueError(f"product of {a.shape} and {b.shape} into {out.shape}")
    if not (a.dtype == b.dtype == out.dtype == np.float32):
        raise ValueError(f"product of {a.dtype} and {b.dtype} into {out.dtype}: expected float32")
    if m == 0 or n == 0:
        return
    function = _sgemm()
    if function is None or k == 0:
        if add:
            out += a @ b
        else:
            np.matmul(a, b, out=out)
        return
    order_a, stride_a = _stride(a)
    order_b, stride_b = _stride(b)
    order_out, stride_out = _stride(out)
    if order_out != PLAIN or not out.flags.writeable:
        raise ValueError("product into an array that is read-only or whose rows are not contiguous")
    function(
        ROW_MAJOR, order_a, order_b, m, n, k, 1.0, _address(a), stride_a, _address(b), stride_b,
        1.0 if add else 0.0, _address(out), stride_out,
    )  # fmt: skip


def _stride(x: np.ndarray) -> tuple[int, int]:
    """(whether it is read transposed, numbers from one row, or column, to the next)."""
    rows, columns = x.shape
    down, along = x.strides
    if (along == 4 or columns == 1) and (rows == 1 or (down >= 4 * columns and down % 4 == 0)):
        return PLAIN, max(down // 4, columns)
    if (down == 4 or rows == 1) and (columns == 1 or (along >= 4 * rows and along % 4 == 0)):
        return TRANSPOSED, max(along // 4, rows)
    raise ValueError(f"product with strides {x.strides} for shape {x.shape}: neither rows nor columns are contiguous")


def _address(x: np.ndarray) -> int:
    return x.__array_interface__["data"][0]


@cache
def _sgemm() -> Any:
    """The fast BLAS's `cblas_sgemm`, or None where there is none (NumPy then multiplies)."""
    if blas._loaded is None:
        return None
    function = blas._loaded[1].cblas_sgemm
    integer, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    function.argtypes = [*[integer] * 6, real, pointer, integer, pointer, integer, real, pointer, integer]
    function.restype = None
    return function
