"""Products into given memory against NumPy's, in float64."""

import numpy as np
import pytest

from callwright.lora.cpu import sgemm
from callwright.lora.cpu.sgemm import product


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def transposed(x: np.ndarray) -> np.ndarray:
    """The same matrix with contiguous columns."""
    return np.ascontiguousarray(x.T).T


def part(x: np.ndarray) -> np.ndarray:
    """The same matrix as a part of a wider one."""
    wide = np.full((x.shape[0], x.shape[1] + 5), 9, np.float32)
    wide[:, 2 : 2 + x.shape[1]] = x
    return wide[:, 2 : 2 + x.shape[1]]


@pytest.fixture(params=["fast", "without"])
def blas(request, monkeypatch):
    """With the fast BLAS, and as where there is none."""
    if request.param == "without":
        monkeypatch.setattr(sgemm, "_sgemm", lambda: None)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (1, 7, 9), (9, 7, 1), (9, 1, 7), (70, 33, 40)], ids=str)
@pytest.mark.parametrize("a_like", [np.array, transposed, part])
@pytest.mark.parametrize("b_like", [np.array, transposed, part])
@pytest.mark.parametrize("add", [False, True])
def test_a_product_or_a_sum_with_it_for_all_strides(blas, shape, a_like, b_like, add):
    m, k, n = shape
    a, b, out = drawn(m, k), drawn(k, n, seed=1), part(drawn(m, n, seed=2))
    expected = a.astype(np.float64) @ b + (out if add else 0)
    around = out.base.copy()
    product(a_like(a), b_like(b), out, add)
    assert out == pytest.approx(expected, rel=1e-4, abs=1e-4)
    around[:, 2 : 2 + n] = out
    assert np.array_equal(out.base, around), "nothing beside it was written"


def test_empty_sums_and_empty_results(blas):
    out = drawn(3, 4)
    before = out.copy()
    product(drawn(3, 0), drawn(0, 4), out, add=True)
    assert np.array_equal(out, before)
    product(drawn(3, 0), drawn(0, 4), out)
    assert not out.any()
    product(drawn(0, 5), drawn(5, 4), np.empty((0, 4), np.float32))


@pytest.mark.parametrize(
    ("a", "b", "out"),
    [
        (drawn(3, 4), drawn(5, 6), drawn(3, 6)),
        (drawn(3, 4), drawn(4, 6), drawn(3, 5)),
        (drawn(3, 4).astype(np.float64), drawn(4, 6), drawn(3, 6)),
        (drawn(3, 8)[:, ::2], drawn(4, 6), drawn(3, 6)),
        (drawn(3, 4)[:, ::-1], drawn(4, 6), drawn(3, 6)),
        (drawn(3, 4), drawn(4, 6), transposed(drawn(3, 6))),
        (np.broadcast_to(drawn(4), (3, 4)), drawn(4, 6), drawn(3, 6)),
    ],
    ids=["inner", "out", "type", "step", "backwards", "columns", "broadcast"],
)
def test_what_it_cannot_multiply_is_refused(a, b, out):
    if sgemm._sgemm() is None:
        pytest.skip("NumPy multiplies anything")
    with pytest.raises(ValueError, match="product"):
        product(a, b, out)
