"""Algorithm 1a: the search for the hyperplanes along a line."""

# ruff: noqa: E741  (l is the paper's name)

from __future__ import annotations

import numpy as np
import pytest
from planted import error, key, planted, victim

from recon import oracles
from recon.exact import binary_search, paper
from recon.networks import TwoLayer
from recon.victims import oracle_of


def kinks(network: TwoLayer, planes: binary_search.Hyperplanes) -> np.ndarray:
    rows = np.asarray(network.rows)
    return -(rows @ planes.u) / (rows @ planes.v)


def test_rows_come_in_the_order_of_their_kinks():
    truth, eps = victim(4, 12, 12), 1e-7
    planes = binary_search.recover_z(oracle_of(truth), 12, 12, key(4), eps, 1000.0)
    t = kinks(truth, planes)
    order = np.argsort(t)
    assert planes.failure is None
    assert np.all(planes.t >= t[order])
    assert np.all(planes.t - t[order] <= eps)
    weighted = np.asarray(truth.weights[0])[order, None] * np.asarray(truth.rows)[order]
    sign = np.sign(np.sum(weighted * planes.Z, axis=1, keepdims=True))
    np.testing.assert_allclose(sign * planes.Z, weighted, rtol=0, atol=1e-14)


def test_search_asks_the_printed_midpoints_in_the_printed_order(counting_host):
    """A literal reading of Algorithm 1a, which asks again and again, on the same line."""
    truth, eps, l = victim(6, 5, 3), 1e-3, 500.0
    seen = counting_host(truth)
    planes = binary_search.recover_z(seen.oracle, 5, 3, key(6), eps, l)
    assert planes.failure is None
    first_asked: list[float] = []

    def gradient(t: float) -> np.ndarray:
        if t not in first_asked:
            first_asked.append(t)
        active = np.asarray(truth.rows) @ (planes.u + t * planes.v) > 0
        return np.asarray(truth.weights[0]) * active @ np.asarray(truth.rows)

    def printed_search(t_l: float, t_r: float) -> tuple[np.ndarray, float]:
        while True:
            t_m = (t_l + t_r) / 2
            if t_r - t_l <= eps:
                return gradient(t_r) - gradient(t_l), t_r
            if np.linalg.norm(gradient(t_l) - gradient(t_m)) > 1e-12:
                t_r = t_m
            else:
                assert np.linalg.norm(gradient(t_m) - gradient(t_r)) > 1e-12
                t_l = t_m

    t_l, rows = -l, []
    for _ in range(3):
        row, t_l = printed_search(t_l, l)
        rows.append(row)
    asked = np.concatenate(seen.log.gradients)
    near, far, midpoints = asked[0], asked[1], asked[2:]
    t = np.array([t for t in first_asked if t != l])  # needed late or never, asked up front here
    points = planes.u + t[:, None] * planes.v
    np.testing.assert_allclose([near, *midpoints], points, atol=1e-9)
    np.testing.assert_allclose(far, planes.u + l * planes.v, atol=1e-9)
    np.testing.assert_allclose(planes.Z, rows, rtol=0, atol=1e-13)


def test_a_kink_in_the_last_stretch_is_a_row():
    """Within eps of the far end the printed search returns at once, without a midpoint."""
    truth, l = planted(np.eye(2), np.array([1.0, -2.0])), 100.0
    for seed in range(20):
        planes = binary_search.recover_z(oracle_of(truth), 2, 2, key(seed), 1.2 * l, l)
        first, last = np.sort(kinks(truth, planes))
        if -l < first < 0 < last < l:
            break
    assert -l < first < 0 < last < l
    assert planes.failure is None
    assert planes.cost.gradients == 3  # both ends and one midpoint, 0
    np.testing.assert_allclose(planes.t, [0, l])
    np.testing.assert_allclose(np.abs(planes.Z).sum(0), [1, 2])


def test_eps_below_rounding_still_ends():
    truth = victim(8, 6, 4)
    result = paper.learn_model(oracle_of(truth), 6, 4, key(8), eps=1e-300, reach=1e4)
    assert result.ok
    assert error(result.network, truth) < 1e-12


def test_gradients_that_round_differently_at_every_point(counting_host):
    """A batched or parallel victim repeats a gradient to rounding only."""
    truth, noise = victim(9, 6, 4), np.random.default_rng(0)
    fn = counting_host(truth).oracle.fn

    def jittered(x):
        value, gradient = fn(x)
        return value, gradient * (1 + 4e-16 * noise.normal(size=gradient.shape))

    result = paper.learn_model(oracles.from_host(jittered), 6, 4, key(9))
    assert result.ok
    assert error(result.network, truth) < 1e-12


def test_search_refuses_a_budget_below_its_two_ends():
    with pytest.raises(ValueError, match="budget 1"):
        binary_search.recover_z(oracle_of(victim(0, 4, 2)), 4, 2, key(0), 1e-6, 10.0, budget=1)
