"""The certificate must let the truth pass and nothing else."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon.exact import certify
from recon.exact.two_layer import CERTIFIED
from recon.networks import TwoLayer
from recon.oracles import Reply

DIM, WIDTH, PADDED = 8, 10, 32
SEEDS = range(20)
EPS = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)


@pytest.fixture(autouse=True, scope="module")
def double():
    with jax.enable_x64(True):
        yield


def padded(network):
    """With units of weight zero up to one size, as the search hands networks over."""
    more = PADDED - network.width
    return TwoLayer(
        jnp.asarray(np.concatenate([network.rows, np.eye(1, DIM).repeat(more, 0)])),
        jnp.asarray(np.concatenate([network.bias, np.ones(more)])),
        jnp.asarray(np.pad(network.weights, ((0, 0), (0, more)))),
        jnp.asarray(network.slope),
        jnp.asarray(network.offset),
    )


def reply(network, x, dtype=np.float64):
    x = np.asarray(x, np.float64)
    active = (x @ network.rows.T + network.bias > 0).astype(float)
    hidden = active * (x @ network.rows.T + network.bias)
    gradient = np.einsum("nh,kh,hd->nkd", active, network.weights, network.rows) + network.slope
    value = hidden @ network.weights.T + x @ network.slope.T + network.offset
    return Reply(value.astype(dtype), gradient.astype(dtype))


def scale_of(network):
    """Of the largest gradient, within the factor that a random line would miss it by."""
    return float(
        np.sqrt(np.sum((network.weights @ network.rows) ** 2)) + np.abs(network.slope).max()
    )


def judged(found, truth, seed, dtype=np.float64):
    """The largest deviation that the certificate sees, in units of what it lets pass."""
    eps = float(np.finfo(dtype).eps)
    keys = jax.random.split(jax.random.key(seed), 3)
    u, v = (jax.random.normal(key, (DIM,)) for key in keys[:2])
    line = (u, v, jnp.asarray(scale_of(truth)))
    x = certify.points(keys[2], padded(found), found.width, eps, certify.NORMAL, *line)
    answers = Reply(*map(jnp.asarray, reply(truth, x.astype(dtype), dtype)))
    answers = Reply(*(a.astype(float) for a in answers))
    worst = certify.deviation(padded(found), x.astype(dtype), answers, line[2])
    return float(worst) / (CERTIFIED * eps)


def without(network, unit):
    keep = np.arange(network.width) != unit
    rows, bias, weights = network.rows[keep], network.bias[keep], network.weights[:, keep]
    return replace(network, rows=rows, bias=bias, weights=weights)


def merged(network):
    """Units 0 and 1 replaced by the one unit whose jump and intercept are the sums of theirs."""
    jump = network.weights[0, :2] @ network.rows[:2]
    offset = network.weights[0, :2] @ network.bias[:2]
    sign, size = np.sign(network.weights[0, 0]), np.linalg.norm(jump)
    rows, bias, weights = network.rows.copy(), network.bias.copy(), network.weights.copy()
    rows[0], bias[0], weights[:, 0] = sign * jump / size, sign * offset / size, sign * size
    return without(replace(network, rows=rows, bias=bias, weights=weights), 1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("bias", [True, False])
def test_the_truth_passes_by_a_wide_margin(random_truth, bias, dtype):
    for seed in SEEDS:
        truth = random_truth(seed, bias=bias)
        if dtype is np.float32:  # a victim whose parameters are float32 numbers
            truth = jax.tree.map(lambda a: a.astype(np.float32).astype(float), truth)
        assert judged(truth, truth, seed, dtype) < 0.1


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("bias", [True, False])
def test_two_units_taken_for_one_are_caught(random_truth, bias, sign, dtype):
    for seed in SEEDS:
        truth = random_truth(seed, bias=bias)
        weights = truth.weights.copy()
        weights[0, :2] = np.abs(weights[0, :2]) * [1, sign]
        truth = replace(truth, weights=weights)
        assert judged(merged(truth), truth, seed, dtype) > 1


@pytest.mark.parametrize("angle", [1e-2, 1e-4, 1e-6, 1e-8])
def test_two_nearly_equal_units_taken_for_one_are_caught(random_truth, angle):
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        truth = random_truth(seed)
        rows, bias, weights = truth.rows.copy(), truth.bias.copy(), truth.weights.copy()
        across = rng.normal(size=DIM)
        across -= across @ rows[0] * rows[0]
        rows[1] = np.cos(angle) * rows[0] + np.sin(angle) * across / np.linalg.norm(across)
        bias[1] = bias[0] + angle * rng.normal()
        weights[0, :2] = rng.uniform(1, 2, 2)
        truth = replace(truth, rows=rows, bias=bias, weights=weights)
        assert judged(merged(truth), truth, seed) > 1


@pytest.mark.parametrize("weight", [1.0, 1e-9])
def test_a_missing_unit_is_caught(random_truth, weight):
    for seed in SEEDS:
        truth = random_truth(seed)
        weights = np.where(np.arange(WIDTH) == 3, weight, truth.weights)
        truth = replace(truth, weights=weights)
        assert judged(without(truth, 3), truth, seed) > 1


def test_a_small_error_of_any_part_is_caught(random_truth):
    for seed in SEEDS:
        truth = random_truth(seed)
        scale = scale_of(truth)
        for name in ("weights", "slope"):
            wrong = getattr(truth, name) + 2 * CERTIFIED * EPS * scale
            assert judged(replace(truth, **{name: wrong}), truth, seed) > 1, name
        # values are judged by |f| + scale |x|, and the nearest fresh points have |x| near sqrt d
        wrong = truth.offset + 20 * CERTIFIED * EPS * (scale + np.abs(truth.offset))
        assert judged(replace(truth, offset=wrong), truth, seed) > 1


def test_points_lie_beside_every_hyperplane_on_both_sides(random_truth):
    truth = random_truth(0)
    keys = jax.random.split(jax.random.key(0), 3)
    u, v = (jax.random.normal(key, (DIM,)) for key in keys[:2])
    line = (u, v, jnp.asarray(scale_of(truth)))
    x = certify.points(keys[2], padded(truth), WIDTH, EPS, 5, *line)
    groups = -(-WIDTH // certify.group_size(DIM))
    assert len(x) == 5 + certify.ON_LINE + 4 * groups
    on_line = x[5] - np.asarray(u)
    np.testing.assert_allclose(on_line, on_line @ v / (v @ v) * np.asarray(v), atol=1e-12)
    margin = (x[6:] @ truth.rows.T + truth.bias) / np.linalg.norm(x[6:], axis=1)[:, None]
    beside = np.abs(margin) < 1e-8
    assert (beside.sum(0) >= 4).all()
    for unit in range(WIDTH):
        assert set(np.sign(margin[beside[:, unit], unit])) == {-1, 1}


def test_a_deviation_that_is_not_a_number_is_infinite(random_truth):
    truth = random_truth(0)
    x = np.ones((2, DIM))
    value, gradient = reply(truth, x)
    value[1] = np.nan
    answers = Reply(jnp.asarray(value), jnp.asarray(gradient))
    assert certify.deviation(padded(truth), jnp.asarray(x), answers, jnp.asarray(1.0)) == np.inf


def test_without_a_gradient_deviations_are_absolute(random_truth):
    nothing = jax.tree.map(np.zeros_like, random_truth(0))
    x = np.ones((1, DIM))
    answers = Reply(jnp.full((1, 1), 1e-3), jnp.zeros((1, 1, DIM)))
    worst = certify.deviation(padded(nothing), jnp.asarray(x), answers, jnp.asarray(0.0))
    assert worst == pytest.approx(1e-3)
