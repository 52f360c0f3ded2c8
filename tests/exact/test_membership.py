"""Appendix C: the same network from values alone."""

# ruff: noqa: E741  (l is the paper's name)

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon import oracles
from recon.exact import asking, binary_search, membership, paper
from recon.exact.recovery import Status
from recon.networks import TwoLayer
from recon.oracles import Cost, ReplyError
from recon.victims import oracle_of, random_network

SIZES = [(1, 1), (2, 2), (6, 4), (12, 12)]
learn = membership.learn_model_membership


def victim(seed: int, dim: int, width: int, bias: bool = False) -> TwoLayer:
    with jax.enable_x64(True):
        return random_network(jax.random.key(seed), dim, width, bias=bias)


def planted(rows: np.ndarray, weights: np.ndarray) -> TwoLayer:
    width, dim = rows.shape
    return TwoLayer(rows, np.zeros(width), weights[None], np.zeros((1, dim)), np.zeros(1))


def every_row(rows: np.ndarray) -> np.ndarray:
    """For the counting oracle: nothing here is padding."""
    return np.ones(len(rows), bool)


def key(seed: int) -> jax.Array:
    return jax.random.key(1000 + seed)


def error(found: TwoLayer, truth: TwoLayer) -> float:
    """Largest deviation over Gaussian x, relative to the largest value; networks without biases."""
    x = np.random.default_rng(0).normal(size=(1000, truth.rows.shape[1]))
    values, exact = (
        np.maximum(x @ np.asarray(n.rows).T, 0) @ np.asarray(n.weights[0]) for n in (found, truth)
    )
    return float(np.abs(values - exact).max() / np.abs(exact).max())


@given(st.sampled_from(SIZES), st.integers(0, 10**6))
@settings(max_examples=12)
def test_recovers_the_planted_function(size, seed):
    dim, width = size
    truth = victim(seed, dim, width)
    result = learn(oracle_of(truth), dim, width, key(seed))
    if result.ok:
        assert result.status is Status.RECOVERED
        assert result.network.width == width
        # Rows nearly dependent make the steps of the differences short beside x.
        angles = np.linalg.cond(np.asarray(truth.rows))
        assert error(result.network, truth) < 1e-13 * max(10, angles)
        assert result.certificate < 1e-13 * max(10, angles)
    else:
        assert result.status in (Status.SEARCH_FAILED, Status.UNCERTIFIED, Status.UNSOLVED)


def test_success_rate_keeps_the_promise_of_theorem_2():
    delta, trials = 0.25, 40
    ok = [learn(oracle_of(victim(s, 6, 4)), 6, 4, key(s), delta=delta).ok for s in range(trials)]
    assert np.mean(ok) >= 1 - delta - 3 * math.sqrt(delta * (1 - delta) / trials)


@pytest.mark.parametrize(("dim", "width"), SIZES)
@pytest.mark.parametrize("traced", [False, True])
def test_cost_is_what_the_oracle_saw(counting_host, counting_traced, traced, dim, width):
    truth = victim(3, dim, width)
    seen = counting_traced(truth, real=every_row) if traced else counting_host(truth)
    result = learn(seen.oracle, dim, width, key(3), delta=0.01)
    assert result.ok
    assert result.cost == seen.cost
    assert result.cost.gradients == 0


@pytest.mark.parametrize(("dim", "width"), [(6, 4), (24, 12)])
def test_count_has_the_form_the_docstring_gives(dim, width):
    delta = 0.01
    result = learn(oracle_of(victim(4, dim, width)), dim, width, key(4), delta=delta)
    assert result.ok
    eps, l = asking.theorem2_constants(width, delta, 0.1)
    halvings = math.ceil(math.log2(2 * l / eps))
    search = 2 + width * (halvings + 1)
    rows = (membership.TRIES + 1) * (width + 1) * (dim + 1)
    ends = 2 * width + paper.certificate_size(width, dim)
    fewest = 2 * (width + 1) * (dim + 1) + ends
    assert fewest < result.cost.values <= search + rows + ends
    assert result.cost.values < dim * width * halvings  # the paper's own form


def test_host_and_traced_oracles_agree(counting_host):
    truth = victim(5, 6, 4)
    traced = learn(oracle_of(truth), 6, 4, key(5))
    host = learn(counting_host(truth).oracle, 6, 4, key(5))
    assert traced.ok
    assert (traced.status, traced.cost) == (host.status, host.cost)
    np.testing.assert_allclose(traced.network.rows, host.network.rows, rtol=0, atol=1e-11)


def test_searches_the_line_of_the_gradient_method():
    truth, eps = victim(6, 12, 12), 1e-6
    by_values = membership.recover_z_membership(oracle_of(truth), 12, 12, key(6), eps, 1e3)
    by_gradients = binary_search.recover_z(oracle_of(truth), 12, 12, key(6), eps, 1e3)
    assert by_values.failure is None
    np.testing.assert_array_equal(by_values.v, by_gradients.v)
    np.testing.assert_allclose(by_values.t, by_gradients.t, rtol=0, atol=eps)
    sign = np.sign(np.sum(by_values.Z * by_gradients.Z, axis=1, keepdims=True))
    np.testing.assert_allclose(sign * by_values.Z, by_gradients.Z, rtol=0, atol=1e-11)


@given(st.integers(1, 30), st.floats(-6, 3), st.floats(-3, 3))
def test_a_difference_inside_a_cell_is_exact_to_rounding(dim, log_step, log_size):
    rng = np.random.default_rng(dim)
    w, x, step = rng.normal(size=dim), 10**log_size * rng.normal(size=dim), 10**log_step
    values = membership._Values(oracles.from_host(None, lambda x: x @ w), math.inf)
    found = membership.difference(values, x, step)
    size = np.linalg.norm(w) * (np.linalg.norm(x) + step)
    np.testing.assert_allclose(found, w, rtol=0, atol=16 * values.precision * size / step)
    assert values.cost == Cost(values=dim + 1, numbers=dim + 1, rounds=1)


def test_sparse_rows_shorten_the_steps():
    """Rows along the axes: one coordinate step moves straight at a hyperplane."""
    truth = planted(np.eye(8), np.linspace(-1, 1.5, 8))
    result = learn(oracle_of(truth), 8, 8, key(1))
    assert result.ok
    assert error(result.network, truth) < 1e-12


@given(st.integers(0, 10**6), st.sampled_from([(6, 2), (6, 4), (12, 12)]))
@settings(max_examples=20)
def test_width_too_small_is_never_ok(seed, size):
    dim, width = size
    assert not learn(oracle_of(victim(seed, dim, width)), dim, width - 1, key(seed)).ok


def test_width_too_large_is_notified():
    result = learn(oracle_of(victim(0, 6, 3)), 6, 5, key(0))
    assert result.status is Status.SEARCH_FAILED
    assert "3 of 5 rows" in result.detail


def test_more_rows_than_dimensions_cost_nothing():
    result = learn(oracle_of(victim(0, 3, 6)), 3, 6, key(0))
    assert (result.status, result.cost) == (Status.UNSOLVED, Cost())


def test_dependent_rows_are_not_ok():
    rows = np.random.default_rng(0).normal(size=(3, 5))
    rows[2] = rows[0] - 2 * rows[1]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    result = learn(oracle_of(planted(rows, np.array([1.0, -0.7, 0.4]))), 5, 3, key(0), delta=1e-3)
    assert result.status is Status.UNSOLVED


@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("weights", [(1.0, 0.8), (1.0, -0.8)])
def test_nearly_parallel_rows_taken_for_one_are_not_ok(angle, weights):
    rows = np.array([[1.0, 0, 0], [math.cos(angle), math.sin(angle), 0]])
    assert not learn(oracle_of(planted(rows, np.array(weights))), 3, 1, key(1), eps=1e-2).ok


@pytest.mark.parametrize("scale", [1e-6, 1.0, 30.0])
def test_biases_are_never_ok(scale):
    for seed in range(3):
        truth = victim(seed, 5, 3, bias=True)
        bias = scale * np.asarray(truth.bias)
        truth = TwoLayer(truth.rows, bias, truth.weights, truth.slope, np.zeros(1))
        assert not learn(oracle_of(truth), 5, 3, key(seed)).ok


def test_functions_that_are_no_network_are_not_ok():
    for f in (lambda x: 0 * x.sum(), lambda x: x.sum(), lambda x: x @ x, lambda x: jnp.sin(x[0])):
        assert not learn(oracles.from_jax(f), 4, 2, key(0)).ok


@given(st.integers(0, 400))
@settings(max_examples=25)
def test_budget_is_kept(counting_host, budget):
    truth = victim(11, 6, 4)
    seen = counting_host(truth)
    result = learn(seen.oracle, 6, 4, key(11), budget=budget)
    assert result.cost == seen.cost
    assert result.cost.queries <= budget
    enough = learn(counting_host(truth).oracle, 6, 4, key(11))
    assert enough.ok
    assert result.ok == (budget >= enough.cost.queries)
    assert result.ok or result.status is Status.BUDGET


@pytest.mark.parametrize("arguments", [{"dim": 0}, {"width": -1}, {"eps": 0.0}, {"budget": -1}])
def test_bad_arguments_are_named(arguments):
    arguments = {"dim": 4, "width": 2} | arguments
    (name,) = arguments.keys() - {"dim", "width"} or [n for n in arguments if arguments[n] < 1]
    with pytest.raises(ValueError, match=name):
        learn(oracle_of(victim(0, 4, 2)), key=key(0), **arguments)


def test_several_outputs_are_refused():
    with pytest.raises(ValueError, match="K = 4"):
        learn(oracles.from_jax(lambda x: x), 4, 2, key(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_replies_that_are_not_finite_raise(counting_host, bad):
    broken = oracles.from_host(None, lambda x: np.full(len(x), bad))
    with pytest.raises(ReplyError, match="query row 0"):
        learn(broken, 4, 2, key(0))
    with pytest.raises(ReplyError, match="query row 0"):
        learn(oracles.from_jax(lambda x: bad * jnp.sum(x * x + 1)), 4, 2, key(0))


@pytest.mark.parametrize("seed", range(3))
def test_float32_victims_at_float32_accuracy_or_not_ok(counting_host, seed):
    truth = victim(seed, 6, 3)
    host = counting_host(truth, np.float32).oracle
    single = oracles.from_host(None, lambda x: host.value_fn(np.float32(x)))
    result = learn(single, 6, 3, key(seed), delta=0.2)
    assert not result.ok or error(result.network, truth) < 1e-3
