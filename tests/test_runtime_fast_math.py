"""Elementwise CPU mathematics against plain formulas in float64, its gradients against differences."""

import threading
import time
import warnings

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from callsmith.runtime import fast_math

ROWS = 2 * fast_math.ROWS + 5  # two whole blocks and a part


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def differences(function, x: np.ndarray, direction: np.ndarray, step: float = 1e-5) -> float:
    """The derivative of the scalar `function` at `x` along `direction`, central, in float64."""
    x, direction = x.astype(np.float64), direction.astype(np.float64)
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def test_a_host_view_is_the_arrays_own_memory():
    array = mx.zeros((3, 4))
    (view,) = fast_math.host(array)
    view[1, 2] = 7
    assert array[1, 2].item() == 7
    assert mx.sum(array * 2).item() == 14


@pytest.mark.parametrize("scale", [1, 200])
def test_softmax_is_exp_by_its_sum_masked_places_are_zero(scale):
    scores = drawn(3, 4, 9, scale=scale)
    scores[:, :, 6:] = -np.inf
    expected = np.array(mx.softmax(mx.array(scores), axis=-1))
    sums = fast_math.softmax_(scores)
    assert sums.shape == (3, 4)
    assert scores / sums[:, :, None] == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert not scores[:, :, 6:].any()


@pytest.mark.parametrize("keep", [False, True])
def test_swiglu_is_silu_of_the_gate_times_up(keep):
    gate_up = drawn(ROWS, 14)
    hidden = np.empty((ROWS, 7), np.float32)
    sigmoid = np.empty((ROWS, 7), np.float32) if keep else None
    fast_math.swiglu(gate_up, hidden, sigmoid)
    gate, up = gate_up[:, :7].astype(np.float64), gate_up[:, 7:].astype(np.float64)
    assert hidden == pytest.approx(silu(gate) * up, rel=1e-5, abs=1e-6)
    assert hidden == pytest.approx(np.array(nn.silu(mx.array(gate_up[:, :7])) * mx.array(gate_up[:, 7:])), abs=1e-5)
    if keep:
        assert sigmoid == pytest.approx(1 / (1 + np.exp(-gate)), rel=1e-5)


@pytest.mark.parametrize("keep", [False, True])
def test_swiglu_of_a_far_negative_gate_is_zero_without_a_warning(keep):
    gate_up = np.array([[-1000.0, 1000.0, 3.0, 3.0]], np.float32)
    hidden = np.empty((1, 2), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast_math.swiglu(gate_up, hidden, np.empty((1, 2), np.float32) if keep else None)
    assert hidden.tolist() == [[0, 3000]]


def test_swiglus_gradient_is_that_of_differences_and_of_autograd():
    gate_up, gradient, direction = drawn(ROWS, 14), drawn(ROWS, 7, seed=1), drawn(ROWS, 14, seed=2)
    hidden, sigmoid = np.empty((ROWS, 7), np.float32), np.empty((ROWS, 7), np.float32)
    fast_math.swiglu(gate_up, hidden, sigmoid)
    forward, out = hidden.copy(), np.empty_like(gate_up)
    fast_math.swiglu_backward(gradient, gate_up, sigmoid, out, hidden)
    assert np.allclose(hidden, forward, rtol=1e-5, atol=1e-6)
    along = differences(lambda x: np.sum(gradient * silu(x[:, :7]) * x[:, 7:]), gate_up, direction)
    assert np.sum(out.astype(np.float64) * direction) == pytest.approx(along, rel=1e-5)
    _, [expected] = mx.vjp(lambda x: nn.silu(x[:, :7]) * x[:, 7:], [mx.array(gate_up)], [mx.array(gradient)])
    assert out == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)


def test_rms_normalize_is_mlxs_rms_norm_without_a_weight():
    x, out = drawn(ROWS, 12), np.empty((ROWS, 12), np.float32)
    inverse = fast_math.rms_normalize(x, out, 1e-2)
    assert inverse.shape == (ROWS, 1)
    assert inverse == pytest.approx(1 / np.sqrt(np.mean(x.astype(np.float64) ** 2, axis=1, keepdims=True) + 1e-2))
    assert out == pytest.approx(np.array(mx.fast.rms_norm(mx.array(x), None, 1e-2)), rel=1e-5, abs=1e-6)


def test_rms_normalizes_gradient_is_that_of_differences_and_of_autograd():
    x, gradient, direction = drawn(ROWS, 12), drawn(ROWS, 12, seed=1), drawn(ROWS, 12, seed=2)
    out = np.empty_like(x)
    inverse = fast_math.rms_normalize(x, out, 0.5)
    found = gradient.copy()
    fast_math.rms_normalize_backward_(found, out, inverse)

    def normalized(x):
        return x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 0.5)

    along = differences(lambda x: np.sum(gradient * normalized(x)), x, direction)
    assert np.sum(found.astype(np.float64) * direction) == pytest.approx(along, rel=1e-5)
    _, [expected] = mx.vjp(lambda x: mx.fast.rms_norm(x, None, 0.5), [mx.array(x)], [mx.array(gradient)])
    assert found == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)


# -- threads ---------------------------------------------------------------------------------------


def test_workers_return_results_in_the_jobs_order_and_begin_with_the_costly_ones():
    begun = []
    workers = fast_math.Workers(1)
    results = workers.map(lambda job: begun.append(job) or job * 10, [2, 5, 1, 4], cost=lambda job: job)
    workers.close()
    assert results == [20, 50, 10, 40]
    assert begun == [5, 4, 2, 1]


def test_workers_run_jobs_at_the_same_time_with_one_blas_thread_each():
    before = fast_math.cores()
    barrier = threading.Barrier(2, timeout=30)  # passes only if both jobs are there together
    workers = fast_math.Workers(2)

    def job(_):
        barrier.wait()
        return fast_math._blas_call("get_num_threads", [])

    assert set(workers.map(job, [0, 1], cost=lambda _: 0)) <= {1, None}
    workers.close()
    assert fast_math.cores() == before


def test_workers_raise_what_a_job_raised_after_the_others_are_done():
    before, done = fast_math.cores(), []
    workers = fast_math.Workers(2)

    def job(number):
        if number == 0:
            raise ValueError("job 0")
        time.sleep(0.1)
        done.append(number)

    with pytest.raises(ValueError, match="job 0"):
        workers.map(job, [0, 1], cost=lambda _: 0)
    assert done == [1]  # or the BLAS would get its threads back while a job still runs
    workers.close()
    assert fast_math.cores() == before


def test_closed_workers_leave_no_thread_behind():
    before = threading.active_count()
    workers = fast_math.Workers(2)
    workers.map(lambda job: job, [1, 2, 3], cost=lambda job: job)
    workers.close()
    assert threading.active_count() == before
