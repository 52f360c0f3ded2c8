"""Algorithm 1 where it cannot succeed: failures are values, and bad input is named."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import key, planted, victim

from recon import oracles
from recon.exact import paper
from recon.exact.recovery import Status
from recon.networks import TwoLayer
from recon.oracles import Cost, ReplyError
from recon.victims import oracle_of, random_network


@given(st.integers(0, 10**6), st.sampled_from([(6, 2), (6, 4)]))
@settings(max_examples=8)
def test_width_too_small_is_never_ok(seed, size):
    dim, width = size
    result = paper.learn_model(oracle_of(victim(seed, dim, width)), dim, width - 1, key(seed))
    assert not result.ok


def test_width_too_large_is_notified():
    result = paper.learn_model(oracle_of(victim(0, 8, 3)), 8, 5, key(0))
    assert result.status is Status.SEARCH_FAILED
    assert result.network is None
    assert "3 of 5 rows" in result.detail


def test_more_rows_than_dimensions_cost_nothing():
    result = paper.learn_model(oracle_of(victim(0, 3, 6)), 3, 6, key(0))
    assert result.status is Status.UNSOLVED
    assert result.cost == Cost()


@pytest.mark.parametrize("seed", range(4))
def test_dependent_rows_are_unsolved(seed):
    rows = np.random.default_rng(seed).normal(size=(3, 5))
    rows[2] = rows[0] - 2 * rows[1]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    truth = planted(rows, np.array([1.0, -0.7, 0.4]))
    result = paper.learn_model(oracle_of(truth), 5, 3, key(seed), delta=1e-3)
    assert result.status is Status.UNSOLVED


@pytest.mark.parametrize(("width", "expected"), [(3, Status.SEARCH_FAILED), (2, Status.RECOVERED)])
def test_repeated_rows_count_once(width, expected):
    rows = np.eye(3)[[0, 1, 1]]
    truth = planted(rows, np.array([1.0, -0.7, 0.4]))
    result = paper.learn_model(oracle_of(truth), 3, width, key(0), delta=1e-3)
    assert result.status is expected


@pytest.mark.parametrize(
    ("width", "expected"), [(3, Status.SEARCH_FAILED), (2, Status.UNCERTIFIED)]
)
def test_antiparallel_rows_fail(width, expected):
    rows = np.array([[1.0, 0, 0], [0, 1, 0], [0, -1, 0]])
    truth = planted(rows, np.array([1.0, -0.7, 0.4]))
    result = paper.learn_model(oracle_of(truth), 3, width, key(0), delta=1e-3)
    assert result.status is expected


@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-9, 1e-11])
@pytest.mark.parametrize("weights", [(1.0, 0.8), (1.0, -0.8)])
@pytest.mark.parametrize("width", [1, 2])
def test_nearly_parallel_rows_taken_for_one_are_not_ok(angle, weights, width):
    """They differ from a single unit on a sliver only, which Gaussian points do not meet."""
    rows = np.array([[1.0, 0, 0], [math.cos(angle), math.sin(angle), 0]])
    truth = planted(rows, np.array(weights))
    result = paper.learn_model(oracle_of(truth), 3, width, key(1), eps=1e-2)
    assert not (result.ok and width == 1)
    if result.ok:
        assert result.network.width == 2


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 30.0, 1e4])
def test_biases_are_never_ok(scale):
    for seed in range(3):
        truth = victim(seed, 5, 3, bias=True)
        bias, offset = scale * np.asarray(truth.bias), np.zeros(1)
        truth = TwoLayer(truth.rows, bias, truth.weights, truth.slope, offset)
        assert not paper.learn_model(oracle_of(truth), 5, 3, key(seed)).ok


def test_constant_and_linear_functions_have_no_kinks():
    for f in (lambda x: 0 * x.sum(), lambda x: 0 * x.sum() + 3, lambda x: x.sum()):
        result = paper.learn_model(oracles.from_jax(f), 4, 2, key(0))
        assert result.status is Status.SEARCH_FAILED
        assert "0 of 2 rows" in result.detail


def test_a_smooth_function_is_not_ok():
    result = paper.learn_model(oracles.from_jax(lambda x: jnp.sum(jnp.tanh(x))), 4, 2, key(0))
    assert not result.ok


@given(st.integers(0, 200))
@settings(max_examples=20)
def test_budget_is_kept(counting_host, budget):
    seen = counting_host(victim(11, 6, 4))
    result = paper.learn_model(seen.oracle, 6, 4, key(11), budget=budget)
    assert result.cost == seen.cost
    assert result.cost.queries <= budget
    enough = paper.learn_model(oracle_of(victim(11, 6, 4)), 6, 4, key(11))
    assert enough.ok
    assert result.ok == (budget >= enough.cost.queries)
    assert result.ok or result.status is Status.BUDGET


def test_budget_stops_the_kernel_where_it_stops_the_host(counting_host):
    truth = victim(11, 6, 4)
    for budget in (20, 60, 100):
        traced = paper.learn_model(oracle_of(truth), 6, 4, key(11), budget=budget)
        host = paper.learn_model(counting_host(truth).oracle, 6, 4, key(11), budget=budget)
        assert (traced.status, traced.cost, traced.detail) == (host.status, host.cost, host.detail)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim 0"),
        ({"dim": -3}, "dim -3"),
        ({"width": 0}, "width 0"),
        ({"width": -1}, "width -1"),
        ({"eps": 0.0}, "eps"),
        ({"eps": math.nan}, "eps"),
        ({"reach": -1.0}, "reach"),
        ({"reach": math.inf}, "reach"),
        ({"delta": 2.0}, "delta"),
        ({"separation": 0.0}, "separation"),
        ({"budget": -1}, "budget"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    arguments = {"dim": 4, "width": 2} | arguments
    with pytest.raises(ValueError, match=message):
        paper.learn_model(oracle_of(victim(0, 4, 2)), key=key(0), **arguments)


def test_several_outputs_are_refused(counting_host):
    with jax.enable_x64(True):
        truth = random_network(jax.random.key(0), 4, 2, outputs=3)
    for oracle in (oracle_of(truth), counting_host(truth).oracle):
        with pytest.raises(ValueError, match="K = 3"):
            paper.learn_model(oracle, 4, 2, key(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("after", [0, 5])
def test_replies_that_are_not_finite_raise(counting_host, bad, after):
    fn, calls = counting_host(victim(0, 4, 2)).oracle.fn, []

    def broken(x):
        value, gradient = fn(x)
        calls.append(len(x))
        return value, np.full_like(gradient, bad) if len(calls) > after else gradient

    with pytest.raises(ReplyError, match="query row 0"):
        paper.learn_model(oracles.from_host(broken), 4, 2, key(0))
    assert len(calls) == after + 1

    def traced(x):
        return jnp.sum(jnp.where(x > 1e3, bad * x, jnp.maximum(x, 0)))

    with pytest.raises(ReplyError, match="not finite"):
        paper.learn_model(oracles.from_jax(traced), 4, 2, key(0), reach=1e6)


def test_an_oracle_that_raises_is_heard():
    def broken(x):
        raise ConnectionError("the service is gone")

    with pytest.raises(ConnectionError, match="gone"):
        paper.learn_model(oracles.from_host(broken), 4, 2, key(0))
