"""Victims that hide units, cancel, or are of another kind, and arguments that make no sense."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import exact, oracles
from recon.exact import Status
from recon.networks import TwoLayer


def _hat(truth, gap):
    """Three parallel units whose jumps add up to zero: a bump `gap` wide, nothing elsewhere."""
    rows, bias, weights = truth.rows.copy(), truth.bias.copy(), truth.weights.copy()
    rows[:3], bias[:3], weights[:, :3] = rows[0], bias[0] - gap * np.arange(3), [1.0, -2.0, 1.0]
    return replace(truth, rows=rows, bias=bias, weights=weights)


def test_where_units_are_missing_the_search_goes_on(random_truth, attack, error):
    recovered = 0
    for seed in range(10):
        truth = _hat(random_truth(seed), 0.3)
        found = attack(truth, seed + 1000, width=10)
        assert not found.ok or error(found.network, truth) < 1e-11
        recovered += found.ok
    assert recovered >= 7


def test_a_function_that_is_zero_nearly_everywhere_is_not_taken_for_zero():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a, b, w = rng.normal(size=(10, 8)), rng.normal(size=10), rng.normal(size=10)

        def fn(x, a=a, b=b, w=w):
            z = x @ a.T + b
            inner = np.maximum(z, 0) @ w - 4
            return np.maximum(inner, 0), (((z > 0) * w) @ a) * (inner > 0)[:, None]

        mostly = np.mean(fn(rng.normal(size=(1000, 8)))[0] > 0)
        found = exact.recover(oracles.from_host(fn), dim=8, key=jax.random.key(seed), budget=600)
        assert not found.ok or mostly < 0.05


@pytest.mark.parametrize("angle", [1e-2, pytest.param(1e-4, marks=pytest.mark.slow)])
def test_units_that_all_but_cancel(random_truth, attack, error, angle):
    """The gradients stay small where the terms they sum are 1,000 times as large."""
    for seed in range(5):
        truth = random_truth(seed)
        rows, bias, weights = truth.rows.copy(), truth.bias.copy(), truth.weights.copy()
        rows[1] = rows[0] + angle * rows[2]
        bias[1] = bias[0] + angle
        weights[:, :2] = [1e3, -1e3]
        truth = replace(truth, rows=rows, bias=bias, weights=weights)
        found = attack(truth, seed, budget=3000)
        assert not found.ok or error(found.network, truth) < 1e-9
        if angle > 1e-3:
            assert found.ok


@pytest.mark.parametrize(("dim", "width"), [(16, 32), pytest.param(10, 64, marks=pytest.mark.slow)])
def test_float32_victims_with_more_units_than_inputs(random_truth, attack, error, dim, width):
    for seed in range(6):
        truth = jax.tree.map(np.float32, random_truth(seed, dim, width))
        found = attack(truth, seed + 1000)
        assert found.ok
        assert error(found.network, jax.tree.map(np.float64, truth)) < 1e-3
        assert found.cost.queries < 10 * width


@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_outputs_near_the_ends_of_the_range_are_no_error(random_truth, attack, size):
    truth = random_truth(0)
    truth = replace(truth, weights=size * truth.weights, offset=size * truth.offset)
    found = attack(truth, budget=3000)
    x = np.random.default_rng(0).normal(size=(100, 8))
    assert not found.ok or np.allclose(found.network(x), truth(x), rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize(
    ("bend", "width"),
    [
        (jnp.tanh, None),
        pytest.param(jnp.tanh, 10, marks=pytest.mark.slow),
        pytest.param(jnp.sin, None, marks=pytest.mark.slow),
        pytest.param(lambda z: jax.nn.softplus(10 * z) / 10, None, marks=pytest.mark.slow),
    ],
    ids=["tanh", "tanh, width told", "sin", "softplus"],
)
def test_smooth_victims_are_given_up_early(random_truth, bend, width):
    truth = jax.tree.map(np.asarray, random_truth(0))

    def f(params: TwoLayer, x):
        return params.weights @ bend(params.rows @ x + params.bias)

    oracle = oracles.from_jax(f, truth)
    found = exact.recover(oracle, dim=8, key=jax.random.key(0), width=width)
    assert found.status is Status.UNFIT
    assert "not piecewise linear" in str(found)
    assert found.cost.queries <= 10


@pytest.mark.parametrize("noise", [1e-2, 1e-8])
def test_noisy_replies_are_given_up_early(random_truth, noise):
    truth, rng = random_truth(0), np.random.default_rng(1)

    def fn(x):
        on = x @ truth.rows.T + truth.bias > 0
        gradient = (on * truth.weights) @ truth.rows
        return truth(x) + noise * rng.normal(size=(len(x), 1)), gradient[:, None] + (
            noise * rng.normal(size=(len(x), 1, 8))
        )

    found = exact.recover(oracles.from_host(fn), dim=8, key=jax.random.key(0))
    if noise > 1e-5:
        assert found.status is Status.UNFIT
        assert "noise in the explanation" in str(found)
        assert found.cost.queries <= 10
    else:  # as good as rounding
        assert found.cost.queries < 5000
        assert not found.ok or np.abs(found.network(np.eye(8)) - truth(np.eye(8))).max() < 1e-5


@pytest.mark.parametrize("name", ["dim", "width", "budget"])
@pytest.mark.parametrize("number", [float("inf"), float("nan"), 2.5, "x"])
def test_numbers_that_are_none_are_named(random_truth, name, number):
    arguments = {"dim": 8, "key": jax.random.key(0)} | {name: number}
    with pytest.raises(ValueError, match=f"{name} must be"):
        exact.recover(oracles.from_jax(lambda x: x.sum()), **arguments)


def test_a_host_victim_may_write_into_its_queries(random_truth, error):
    truth = random_truth(0)

    def fn(x):
        value, gradient = truth(x), np.asarray(truth.gradient(x))
        x[:] = np.nan
        return value, gradient

    found = exact.recover(oracles.from_host(fn), dim=8, key=jax.random.key(0))
    assert found.ok
    assert error(found.network, truth) < 1e-11


def test_a_host_victim_whose_outputs_change_is_named():
    def fn(x):
        outputs = 1 if len(x) == 1 else 2
        return np.zeros((len(x), outputs)), np.zeros((len(x), outputs, x.shape[1]))

    with pytest.raises(oracles.ReplyError, match="2 outputs, where earlier replies had 1"):
        exact.recover(oracles.from_host(fn), dim=8, key=jax.random.key(0))


def test_a_function_of_matrix_outputs_is_refused():
    oracle = oracles.from_jax(lambda x: jnp.ones((2, 2)) * x.sum())
    with pytest.raises(oracles.ReplyError, match=r"to \(2, 2\), not to"):
        exact.recover(oracle, dim=3, key=jax.random.key(0))
