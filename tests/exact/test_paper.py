"""Algorithm 1 as printed against planted networks, counting oracles and a second derivation."""

# ruff: noqa: E741  (l is the paper's name)

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import SIZES, error, evaluate, every_row, key, victim

from recon import oracles
from recon.exact import asking, paper
from recon.exact.recovery import Status
from recon.networks import TwoLayer
from recon.oracles import Cost
from recon.victims import oracle_of

# --- The theorem's constants --------------------------------------------------------------------


@given(st.integers(1, 500), st.floats(1e-4, 0.99), st.floats(0.01, 1))
def test_constants_split_delta_between_the_two_lemmas(width, delta, separation):
    eps, l = asking.theorem2_constants(width, delta, separation)
    close = 3 ** (4 / 3) * (eps / separation) ** (2 / 3) * width**2  # Lemma 2, union bound
    far = 2 / (math.pi * l) * width  # Lemma 3, union bound
    assert close == pytest.approx(delta / 2)
    assert far == pytest.approx(delta / 2)


@pytest.mark.parametrize(("delta", "separation"), [(0, 0.1), (1, 0.1), (0.1, 0), (0.1, 1.5)])
def test_constants_refuse_what_is_no_probability(delta, separation):
    with pytest.raises(ValueError, match="delta"):
        asking.theorem2_constants(4, delta, separation)


def test_success_rate_keeps_the_promise_of_theorem_2():
    delta, trials = 0.25, 60
    ok = [
        paper.learn_model(oracle_of(victim(s, 6, 4)), 6, 4, key(s), delta=delta).ok
        for s in range(trials)
    ]
    # Rows at random may be nearer than the separation, so allow three standard deviations.
    assert np.mean(ok) >= 1 - delta - 3 * math.sqrt(delta * (1 - delta) / trials)


# --- Algorithm 1 on victims that meet the assumptions --------------------------------------------


@given(st.data())
@settings(max_examples=25)
def test_recovers_the_planted_function(data):
    dim, width = data.draw(st.sampled_from(SIZES))
    seed = data.draw(st.integers(0, 10**6))
    truth = victim(seed, dim, width)
    result = paper.learn_model(oracle_of(truth), dim, width, key(seed))
    if result.ok:
        assert result.status is Status.RECOVERED
        assert result.network.width == width
        assert result.certificate < 1e-12
        assert error(result.network, truth) < 1e-12
    else:  # a kink beyond l: rare, and notified
        assert result.status in (Status.SEARCH_FAILED, Status.UNCERTIFIED)


@pytest.mark.parametrize(("dim", "width"), SIZES)
@pytest.mark.parametrize("traced", [False, True])
def test_cost_is_what_the_oracle_saw(counting_host, counting_traced, traced, dim, width):
    truth = victim(3, dim, width)
    seen = counting_traced(truth, real=every_row) if traced else counting_host(truth)
    result = paper.learn_model(seen.oracle, dim, width, key(3), delta=0.01)
    assert result.ok
    assert result.cost == seen.cost
    assert result.cost.values == 2 * width + paper.certificate_size(width, dim)


@pytest.mark.parametrize(("dim", "width"), SIZES)
def test_kernel_and_host_loop_agree(counting_host, dim, width):
    truth = victim(5, dim, width)
    traced = paper.learn_model(oracle_of(truth), dim, width, key(5), delta=0.01)
    host = paper.learn_model(counting_host(truth).oracle, dim, width, key(5), delta=0.01)
    assert traced.ok
    assert (traced.status, traced.cost) == (host.status, host.cost)
    np.testing.assert_allclose(traced.network.rows, host.network.rows, rtol=0, atol=1e-12)
    np.testing.assert_allclose(traced.network.weights, host.network.weights, rtol=1e-12)


def test_asks_every_point_once(counting_host):
    seen = counting_host(victim(1, 12, 12))
    paper.learn_model(seen.oracle, 12, 12, key(1))
    asked = np.concatenate(seen.log.gradients + seen.log.values)
    assert len(np.unique(asked, axis=0)) == len(asked)


def test_result_is_the_same_whatever_the_precision_outside():
    truth = victim(2, 6, 4)
    outside = paper.learn_model(oracle_of(truth), 6, 4, key(2))
    with jax.enable_x64(True):
        inside = paper.learn_model(oracle_of(truth), 6, 4, key(2))
    assert outside.ok
    assert outside.network.rows.dtype == np.float64
    np.testing.assert_array_equal(outside.network.rows, inside.network.rows)


# --- Algorithm 1b ------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from(SIZES))
@settings(max_examples=25)
def test_linear_program_puts_x_in_one_cell_with_full_rank(seed, size):
    dim, width = size
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(width, dim)) * 10.0 ** rng.uniform(-4, 4, size=(width, 1))
    X = paper.choose_x(Z)
    assert X.shape == (dim, width)
    N = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    assert np.all(N @ X > 0)
    assert np.linalg.matrix_rank(N @ X) == width


@pytest.mark.parametrize(("dim", "width"), SIZES)
def test_signs_equal_those_of_the_pseudoinverse_construction(dim, width):
    """X = pinv(Z) P with P > 0 of rank h needs no linear program and must give the same s."""
    truth = victim(10, dim, width)
    flip = np.resize([1.0, -1.0], width)
    Z = flip[:, None] * np.asarray(truth.weights[0])[:, None] * np.asarray(truth.rows)
    signs = paper.recover_s(oracle_of(truth), Z)
    P = np.ones((width, width)) + np.eye(width)
    X = np.linalg.pinv(Z) @ P
    M = np.block([[P.T, np.zeros_like(P)], [np.zeros_like(P), P.T]])
    expected = np.linalg.solve(M, evaluate(truth, np.concatenate([X.T, -X.T])))
    np.testing.assert_allclose(signs.s, expected, rtol=0, atol=1e-8)
    # Section 3.2: sgn(w_i) in the first half where z_i = |w_i| A_i, else in the second.
    sign = np.sign(np.asarray(truth.weights[0]))
    along = flip * sign > 0
    planted_s = np.concatenate([np.where(along, sign, 0), np.where(along, 0, sign)])
    np.testing.assert_allclose(signs.s, planted_s, rtol=0, atol=1e-8)
    assert signs.cost == Cost(values=2 * width, numbers=2 * width, rounds=1)


@pytest.mark.parametrize(
    "Z",
    [
        [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]],
        [[1.0, 2.0, 3.0], [-2.0, -4.0, -6.0]],
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]],
        [[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]],
        [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
    ],
)
def test_dependent_rows_have_no_x(Z):
    assert paper.choose_x(np.array(Z)) is None


# --- The certificate ----------------------------------------------------------------------------


def certificate(truth: TwoLayer, found: TwoLayer, seed: int) -> float:
    with jax.enable_x64(True):
        Z = np.asarray(found.rows) * np.asarray(found.weights[0])[:, None]
        return paper.certify(oracle_of(truth), found, Z, key(seed), 1e3, 1e-12)[0]


@pytest.mark.parametrize("seed", range(30))
def test_certificate_sees_a_unit_that_is_missing(seed):
    truth = victim(seed, 6, 3)
    network = TwoLayer(*(np.asarray(a) for a in jax.tree.leaves(truth)))
    assert certificate(truth, network, seed) < 1e-14
    fewer = TwoLayer(
        network.rows[:2], network.bias[:2], network.weights[:, :2], network.slope, network.offset
    )
    assert certificate(truth, fewer, seed) > 1e-4


@pytest.mark.parametrize("bias", [-30.0, 30.0])
def test_certificate_sees_a_unit_that_a_bias_keeps_off_nearby(bias):
    truth = victim(0, 6, 3)
    network = TwoLayer(*(np.asarray(a) for a in jax.tree.leaves(truth)))
    far = TwoLayer(
        network.rows, np.array([bias, 0, 0]), network.weights, network.slope, network.offset
    )
    fewer = TwoLayer(
        network.rows[1:], network.bias[1:], network.weights[:, 1:], network.slope, network.offset
    )
    for seed in range(10):
        assert certificate(far, fewer, seed) > 1e-4


# --- A victim in single precision ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_float32_victims_at_float32_accuracy(counting_host, seed):
    truth = victim(seed, 6, 4)
    params = jax.tree.map(lambda a: np.asarray(a, np.float32), truth)
    traced = oracles.from_jax(lambda p, x: p(x.astype(jnp.float32)), params)
    host = counting_host(truth, np.float32).oracle
    single = oracles.from_host(
        lambda x: tuple(np.float32(a) for a in host.fn(np.float32(x))),
        lambda x: np.float32(host.value_fn(np.float32(x))),
    )
    for oracle in (traced, single):
        result = paper.learn_model(oracle, 6, 4, key(seed), delta=0.01)
        assert result.ok, str(result)
        assert error(result.network, truth) < 1e-5
