"""AdamW, clipping and the learning-rate schedules against their formulas in float64."""

import math

import mlx.core as mx
import numpy as np
import pytest

from callwright.lora.optimizer import AdamW, clip, global_norm
from callwright.lora.schedule import learning_rate

BETAS, EPS = (0.9, 0.99), 1e-8
SHAPES = {"a": (5, 3), "b": (3, 4), "c": (1,)}


def drawn(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def as_mlx(arrays: dict[str, np.ndarray], dtype: mx.Dtype = mx.float32) -> dict[str, mx.array]:
    return {name: mx.array(array).astype(dtype) for name, array in arrays.items()}


def adamw_twin(p: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float) -> np.ndarray:
    """Algorithm 2 of Loshchilov & Hutter, in float64; the decay is scaled by the learning rate, as in PyTorch."""
    p = p.astype(np.float64)
    m = v = np.zeros_like(p)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = g.astype(np.float64)
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g**2
        m_hat, v_hat = m / (1 - BETAS[0] ** t), v / (1 - BETAS[1] ** t)
        p = p - rate * decay * p - rate * m_hat / (np.sqrt(v_hat) + EPS)
    return p


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_hundred_steps_end_where_the_formula_does(decay):
    start = drawn(0)
    gradients = [drawn(seed) for seed in range(1, 101)]
    rates = [0.01 * (1 + math.sin(step)) for step in range(100)]
    parameters = as_mlx(start)
    optimizer = AdamW(parameters, BETAS, EPS, decay, factors={"b": 4.0})
    for gradient, rate in zip(gradients, rates, strict=True):
        parameters = optimizer.update(parameters, as_mlx(gradient), rate)
        mx.eval(parameters, optimizer.state())
    for name in SHAPES:
        own_rates = [4 * rate for rate in rates] if name == "b" else rates
        expected = adamw_twin(start[name], [gradient[name] for gradient in gradients], own_rates, decay)
        assert np.array(parameters[name]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_decay_shrinks_a_parameter_without_gradient_and_does_not_enter_the_moments():
    parameters = {"w": mx.array([2.0, -4.0])}
    optimizer = AdamW(parameters, BETAS, EPS, weight_decay=0.1)
    parameters = optimizer.update(parameters, {"w": mx.zeros(2)}, 0.5)
    assert parameters["w"].tolist() == pytest.approx([2 * 0.95, -4 * 0.95])
    assert optimizer.state()[0]["w"].tolist() == [0, 0]


def test_arrays_without_decay_keep_their_size():
    parameters = {"w": mx.array([2.0]), "x.m": mx.array([2.0])}
    optimizer = AdamW(parameters, BETAS, EPS, weight_decay=0.1, undecayed=["x.m"])
    parameters = optimizer.update(parameters, {name: mx.zeros(1) for name in parameters}, 0.5)
    assert [parameters[name].item() for name in ("w", "x.m")] == pytest.approx([1.9, 2.0])


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_hundred_steps_of_a_whole_run_end_where_float64_does(dtype):
    """Clipping, decay, warm-up, cosine and LoRA+ at once; a bfloat16 parameter is rounded once a step, as here."""
    start = {name: np.array(mx.array(a).astype(dtype).astype(mx.float32), np.float64) for name, a in drawn(0).items()}
    parameters = as_mlx(drawn(0), dtype)
    optimizer = AdamW(parameters, BETAS, EPS, 0.1, factors={"b": 16.0}, undecayed=["c"])
    m = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    v = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for step in range(1, 101):
        rate = learning_rate(step, 100, 0.01, 10, "cosine")
        gradients = {name: a * (0.2 if step % 3 else 3.0) for name, a in drawn(step).items()}
        clipped, _ = clip(as_mlx(gradients), 1.0)
        parameters = optimizer.update(parameters, clipped, rate)
        mx.eval(parameters, optimizer.state())

        plain = 0.01 * (step / 10 if step <= 10 else (1 + math.cos(math.pi * (step - 11) / 90)) / 2)
        norm = math.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients.values()))
        for name, g in gradients.items():
            g = g.astype(np.float64) * min(1.0, 1.0 / (norm + 1e-6))
            m[name] = BETAS[0] * m[name] + (1 - BETAS[0]) * g
            v[name] = BETAS[1] * v[name] + (1 - BETAS[1]) * g**2
            lr = plain * (16 if name == "b" else 1)
            moved = lr * m[name] / (1 - BETAS[0] ** step) / (np.sqrt(v[name] / (1 - BETAS[1] ** step)) + EPS)
            old = start[name] * (1 if name == "c" else 1 - lr * 0.1)
            start[name] = np.array(
                mx.array((old - moved).astype(np.float32)).astype(dtype).astype(mx.float32), np.float64
            )
        if dtype == mx.bfloat16:  # a rounding to the other neighbour is no error: go on from the same value
            for name in SHAPES:
                ours = np.array(parameters[name].astype(mx.float32), np.float64)
                assert np.abs(ours - start[name]).max() <= 2**-7 * np.abs(start[name]).max()
                start[name] = ours
    first, second = optimizer.state()
    for name in SHAPES:
        assert np.array(parameters[name].astype(mx.float32)) == pytest.approx(start[name], rel=1e-5, abs=1e-6)
        assert np.array(first[name]) == pytest.approx(m[name], rel=1e-4, abs=1e-6)
        assert np.array(second[name]) == pytest.approx(v[name], rel=1e-4, abs=1e-7)


def test_moments_of_bfloat16_parameters_are_float32_and_keep_small_gradients():
    parameters = as_mlx(drawn(0), mx.bfloat16)
    optimizer = AdamW(parameters, (0.9, 0.999), EPS, 0.0)
    gradient = {name: mx.full(shape, 1e-3, mx.bfloat16) for name, shape in SHAPES.items()}
    for _ in range(50):
        parameters = optimizer.update(parameters, gradient, 1e-3)
    first, second = optimizer.state()
    assert {array.dtype for array in parameters.values()} == {mx.bfloat16}
    assert {array.dtype for array in (*first.values(), *second.values())} == {mx.float32}
    g = gradient["c"].item()
    assert first["c"].item() == pytest.approx(g * (1 - 0.9**50), rel=1e-5)
    assert second["c"].item() == pytest.approx(g**2 * (1 - 0.999**50), rel=1e-4)


def test_clipping_scales_all_gradients_by_one_factor():
    gradients = drawn(0)
    norm = math.sqrt(sum(float(np.sum(g.astype(np.float64) ** 2)) for g in gradients.values()))
    clipped, before = clip(as_mlx(gradients), norm / 4)
    assert before.item() == pytest.approx(norm, rel=1e-6)
    assert global_norm(clipped).item() == pytest.approx(norm / 4, rel=1e-5)
    for name, gradient in gradients.items():
        assert np.array(clipped[name]) == pytest.approx(gradient / 4, rel=1e-5)


@pytest.mark.parametrize("limit", [0, 1e6])
def test_clipping_leaves_smaller_gradients_alone_and_zero_turns_it_off(limit):
    gradients = as_mlx({name: 100 * array for name, array in drawn(0).items()})
    clipped, norm = clip(gradients, limit)
    assert norm.item() > 100
    assert all(mx.array_equal(clipped[name], gradients[name]) for name in SHAPES)


def test_the_norm_of_bfloat16_gradients_is_summed_in_float32():
    gradients = {"g": mx.full((10_000,), 0.01, mx.bfloat16)}
    assert global_norm(gradients).item() == pytest.approx(100 * gradients["g"][0].item(), rel=1e-5)


# -- schedules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_the_rate_rises_linearly_to_its_peak_and_stays_there_for_the_step_after(kind):
    rates = [learning_rate(step, 100, 0.2, 10, kind) for step in range(1, 12)]
    assert rates[:10] == pytest.approx([0.02 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(0.2)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_without_warmup_the_first_step_has_the_peak(kind):
    assert learning_rate(1, 100, 0.2, 0, kind) == pytest.approx(0.2)


def test_half_way_and_at_the_end_each_schedule_is_where_its_formula_says():
    def at(step, kind):
        return learning_rate(step, 110, 1.0, 10, kind)

    assert [at(61, kind) for kind in ("constant", "linear", "cosine")] == pytest.approx([1, 0.5, 0.5])
    assert at(110, "constant") == 1
    assert at(110, "linear") == pytest.approx(1 / 100)
    assert at(110, "cosine") == pytest.approx((1 + math.cos(math.pi * 99 / 100)) / 2)
    assert at(36, "cosine") == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_rates_are_positive_and_fall_after_the_warmup(kind):
    rates = [learning_rate(step, 37, 0.3, 5, kind) for step in range(5, 38)]
    assert all(0 < later <= earlier for earlier, later in zip(rates, rates[1:], strict=False))


def test_a_run_shorter_than_its_warmup_never_reaches_the_peak():
    assert [learning_rate(step, 3, 1.0, 10, "cosine") for step in (1, 2, 3)] == pytest.approx([0.1, 0.2, 0.3])


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="'step'"):
        learning_rate(1, 10, 1.0, 0, "step")
