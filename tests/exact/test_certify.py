"""The certificate must let the truth pass and nothing else."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from recon.exact import certify
from recon.exact.recovery import promise

DIM, WIDTH = 8, 10
SEEDS = range(20)
EPS = float(np.finfo(np.float64).eps)


def reply(network, x, dtype=np.float64):
    x = np.asarray(x, np.float64)
    active = (x @ network.rows.T + network.bias > 0).astype(float)
    hidden = active * (x @ network.rows.T + network.bias)
    gradient = np.einsum("nh,kh,hd->nkd", active, network.weights, network.rows) + network.slope
    value = hidden @ network.weights.T + x @ network.slope.T + network.offset
    return value.astype(dtype).astype(float), gradient.astype(dtype).astype(float)


def scale_of(network):
    """Of the largest gradient, within the factor that a random line would miss it by."""
    return float(
        np.sqrt(np.sum((network.weights @ network.rows) ** 2)) + np.abs(network.slope).max()
    )


def line_of(truth, seed, eps):
    u, v = np.random.default_rng(seed).normal(size=(2, DIM))
    return certify.Line(u, v, eps**-0.5, scale_of(truth))


def verdict(found, truth, seed, dtype=np.float64):
    eps = float(np.finfo(dtype).eps)
    line, places = line_of(truth, seed, eps), certify.normal_places(seed, DIM, certify.NORMAL)
    asked = certify.points(seed + 1, found, line, eps, places)
    asked = asked._replace(x=asked.x.astype(dtype).astype(float))
    return certify.judge(found, asked, *reply(truth, asked.x, dtype), line.scale, eps, places)


def judged(found, truth, seed, dtype=np.float64):
    """The largest deviation that the certificate sees, in units of what it lets pass."""
    return verdict(found, truth, seed, dtype).rounding


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
        seen = verdict(truth, truth, seed, dtype)
        assert seen.rounding < 0.5
        assert seen.error < 0.1 * promise(float(np.finfo(dtype).eps)) / certify.SAFETY


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
            wrong = getattr(truth, name) + 4 * certify.GRADIENT * EPS * scale
            assert judged(replace(truth, **{name: wrong}), truth, seed) > 1, name
        # values are judged by |f| + scale |x|, and the nearest fresh points have |x| near sqrt d
        wrong = truth.offset + 20 * certify.VALUE * EPS * (scale + np.abs(truth.offset))
        assert judged(replace(truth, offset=wrong), truth, seed) > 1


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-2])
def test_the_error_is_what_normal_points_see(random_truth, size):
    for seed in SEEDS:
        truth = random_truth(seed)
        wrong = replace(truth, weights=truth.weights * (1 + size))
        x = np.random.default_rng(seed).normal(size=(4000, DIM))
        off = reply(wrong, x)[0] - reply(truth, x)[0]
        worst = np.abs(off).max() / np.sqrt(np.mean(reply(truth, x)[0] ** 2))
        assert verdict(wrong, truth, seed).error > worst / certify.SAFETY


def test_the_users_inputs_are_asked_and_judged(random_truth):
    """A network that is right but where the data lie: far out, along one input."""
    truth = random_truth(0)
    data = np.random.default_rng(0).normal(size=(200, DIM))
    data[:, 0] += 1e3
    bend = np.eye(1, DIM), np.array([-500.0])
    wrong = replace(
        truth,
        rows=np.concatenate([truth.rows, bend[0]]),
        bias=np.append(truth.bias, bend[1]),
        weights=np.append(truth.weights, [[0.1]], axis=1),
    )
    places = [*certify.normal_places(0, DIM, 2), certify.Place(data, 32, 32)]
    asked = certify.points(1, truth, line_of(truth, 0, EPS), EPS, places)
    assert (asked.place == 2).sum() == 64
    told = certify.judge(truth, asked, *reply(wrong, asked.x), scale_of(truth), EPS, places)
    assert told.error > 1e-3


def test_points_lie_beside_every_hyperplane_on_both_sides(random_truth):
    truth = random_truth(0)
    places = certify.normal_places(0, DIM, 5)
    asked = certify.points(0, truth, line_of(truth, 0, EPS), EPS, places)
    groups = -(-WIDTH // certify.group_size(DIM))
    assert len(asked.x) == certify.ON_LINE + 5 + 4 * groups
    line = line_of(truth, 0, EPS)
    on_line = asked.x[0] - line.u
    np.testing.assert_allclose(on_line, on_line @ line.v / (line.v @ line.v) * line.v, atol=1e-12)
    x = asked.x[certify.ON_LINE + 5 :]
    margin = (x @ truth.rows.T + truth.bias) / np.linalg.norm(x, axis=1)[:, None]
    beside = np.abs(margin) < 1e-8
    assert (beside.sum(0) >= 4).all()
    for unit in range(WIDTH):
        assert set(np.sign(margin[beside[:, unit], unit])) == {-1, 1}


def test_a_deviation_that_is_not_a_number_is_infinite(random_truth):
    truth = random_truth(0)
    x = np.ones((2, DIM))
    value, gradient = reply(truth, x)
    value[1] = np.nan
    places = certify.normal_places(0, DIM, 2)
    asked = certify.Points(x, np.zeros(2, int))
    assert certify.judge(truth, asked, value, gradient, 1.0, EPS, places) == (np.inf, np.inf)


def test_a_wide_network_is_judged_in_parts_as_at_once(random_truth, monkeypatch):
    truth, x = random_truth(3), np.random.default_rng(0).standard_normal((40, DIM))
    asked, places = certify.Points(x, np.zeros(40, int)), certify.normal_places(0, DIM, 2)
    reply = truth(x) * (1 + 1e-9), truth.gradient(x)
    once = certify.judge(truth, asked, *reply, 1.0, EPS, places)
    monkeypatch.setattr(certify, "BLOCK", 7 * truth.weights.size)
    assert max(map(len, certify.parts(truth, x))) < 40
    assert np.allclose(certify.judge(truth, asked, *reply, 1.0, EPS, places), once, rtol=1e-6)


def test_a_network_of_nothing_is_held_to_nothing(random_truth):
    nothing = jax.tree.map(np.zeros_like, random_truth(0))
    asked = certify.Points(np.ones((1, DIM)), np.zeros(1, int))
    places, gradient = certify.normal_places(0, DIM, 2), np.zeros((1, 1, DIM))
    for value, right in ((0.0, True), (1e-3, False)):
        told = certify.judge(nothing, asked, np.full((1, 1), value), gradient, 0.0, EPS, places)
        assert (told == (0, 0)) == right
        assert right or told.error > 1
