"""Elementwise CPU mathematics against plain formulas in float64, its gradients against differences."""

import threading
import time
import warnings

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from callwright.lora.cpu import fast_math
from callwright.runtime import threads

WIDTH = 7
ROWS = 2 * (fast_math.TILE // WIDTH) + 5  # two whole tiles and a part


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {"silu": (silu, nn.silu), "gelu": (gelu, nn.gelu_approx)}


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
    logs = np.array(mx.logsumexp(mx.array(scores), axis=-1, keepdims=True))
    sums, found = fast_math.softmax_(scores)
    assert sums.shape == found.shape == (3, 4, 1)
    assert scores / sums == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert not scores[:, :, 6:].any()
    assert found == pytest.approx(logs, rel=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gated_is_the_activation_of_the_gate_times_up(name):
    plain, mlxs = ACTIVATIONS[name]
    gate_up = drawn(ROWS, 2 * WIDTH)
    wide = np.full((ROWS, WIDTH + 3), 9, np.float32)
    fast_math.gated(gate_up, wide[:, :WIDTH], name)
    gate, up = gate_up[:, :WIDTH].astype(np.float64), gate_up[:, WIDTH:].astype(np.float64)
    assert wide[:, :WIDTH] == pytest.approx(plain(gate) * up, rel=1e-5, abs=1e-6)
    expected = mlxs(mx.array(gate_up[:, :WIDTH])) * mx.array(gate_up[:, WIDTH:])
    assert wide[:, :WIDTH] == pytest.approx(np.array(expected), rel=1e-5, abs=1e-5)
    assert (wide[:, WIDTH:] == 9).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_far_negative_gate_gives_zero_without_a_warning_and_no_gradient(name):
    gate_up = np.array([[-1000.0, 1000.0, 3.0, 3.0]], np.float32)
    hidden = np.empty((1, 2), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast_math.gated(gate_up, hidden, name)
        fast_math.gated_backward_(np.ones((1, 2), np.float32), gate_up, name)
    assert hidden.tolist() == [[0, 3000]]
    assert gate_up.tolist() == [[0, 3, 0, 1000]]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gateds_gradient_is_that_of_differences_and_of_autograd(name):
    plain, mlxs = ACTIVATIONS[name]
    gate_up, gradient = drawn(ROWS, 2 * WIDTH), drawn(ROWS, WIDTH, seed=1)
    direction = drawn(ROWS, 2 * WIDTH, seed=2)
    found = gate_up.copy()
    again = np.empty((ROWS, WIDTH), np.float32)
    fast_math.gated_backward_(gradient, found, name, again)
    assert again == pytest.approx(plain(gate_up[:, :WIDTH].astype(np.float64)) * gate_up[:, WIDTH:], rel=1e-5, abs=1e-6)
    along = differences(lambda x: np.sum(gradient * plain(x[:, :WIDTH]) * x[:, WIDTH:]), gate_up, direction)
    assert np.sum(found.astype(np.float64) * direction) == pytest.approx(along, rel=1e-5)

    def function(x):
        return mlxs(x[:, :WIDTH]) * x[:, WIDTH:]

    _, [expected] = mx.vjp(function, [mx.array(gate_up)], [mx.array(gradient)])
    assert found == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)


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


def test_workers_return_results_in_the_jobs_order():
    workers = threads.ThreadPool(2)
    results = workers.map(lambda job: time.sleep(0.01 * job) or job * 10, [3, 1, 2, 0])
    workers.close()
    assert results == [30, 10, 20, 0]


def test_workers_run_jobs_at_the_same_time_with_one_blas_thread_each():
    before = threads.cores()
    barrier = threading.Barrier(2, timeout=30)  # passes only if both jobs are there together
    workers = threads.ThreadPool(2)

    def job(_):
        barrier.wait()
        return threads._blas_call("get_num_threads", [])

    assert set(workers.map(job, [0, 1])) <= {1, None}
    workers.close()
    assert threads.cores() == before


def test_workers_raise_what_a_job_raised_after_the_others_are_done():
    before, done = threads.cores(), []
    workers = threads.ThreadPool(2)

    def job(number):
        if number == 0:
            raise ValueError("job 0")
        time.sleep(0.1)
        done.append(number)

    with pytest.raises(ValueError, match="job 0"):
        workers.map(job, [0, 1])
    assert done == [1]  # or the BLAS would get its threads back while a job still runs
    workers.close()
    assert threads.cores() == before


def test_closed_workers_leave_no_thread_behind():
    before = threading.active_count()
    workers = threads.ThreadPool(2)
    workers.map(lambda job: job, [1, 2, 3])
    workers.close()
    assert threading.active_count() == before
