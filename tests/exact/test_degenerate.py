"""The tangent method on nearly degenerate networks: one that is `ok` is the victim."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from planted import EXACT, truthful

few = pytest.mark.parametrize(
    "seeds", [range(4), pytest.param(range(4, 10), marks=pytest.mark.slow)]
)


@few
@pytest.mark.parametrize("told", [5, 9, 10])
def test_parallel_rows_and_a_width_too_small(random_truth, attack, error, told, seeds):
    for seed in seeds:
        truth = parallel_rows(random_truth(seed), None)
        assert truthful(attack(truth, seed, width=told), truth, error)


def close_pair(truth, seed, angle, sign):
    """Units 0 and 1 at an angle, their hyperplanes as near, their weights equal or opposite."""
    rng = np.random.default_rng(seed)
    rows, bias, weights = truth.rows.copy(), truth.bias.copy(), truth.weights.copy()
    across = rng.normal(size=rows.shape[1])
    across -= across @ rows[0] * rows[0]
    rows[1] = np.cos(angle) * rows[0] + np.sin(angle) * across / np.linalg.norm(across)
    bias[1] = bias[0] + angle * rng.normal()
    weights[:, 1] = sign * weights[:, 0]
    return replace(truth, rows=rows, bias=bias, weights=weights)


@few
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-8, 1e-10])
def test_nearly_equal_rows(random_truth, attack, error, angle, sign, seeds):
    for seed in seeds:
        truth = close_pair(random_truth(seed), seed, angle, sign)
        found = attack(truth, seed)
        # below a quarter of the digits a pair is one unit to within what double precision
        # lets anyone see: at most the angle times the weight, beside the kink
        exact = truthful(found, truth, error, 1e-9 if angle <= 1e-8 else EXACT)
        assert exact or angle <= 1e-6


def spread_weights(truth, rng):
    return replace(truth, weights=truth.weights * 10.0 ** rng.uniform(-4, 4, truth.width))


def scaled_rows(truth, rng):
    scale = 10.0 ** rng.uniform(-3, 3, truth.width)
    return replace(truth, rows=truth.rows * scale[:, None], bias=truth.bias * scale)


def scaled_biases(truth, rng):
    return replace(truth, bias=truth.bias * rng.choice([1e2, 1e4]))


def unused_inputs(truth, rng):
    return replace(truth, rows=np.where(np.arange(truth.rows.shape[1]) < 3, truth.rows, 0.0))


def one_input_used(truth, rng):
    return replace(truth, rows=np.where(np.arange(truth.rows.shape[1]) < 1, truth.rows, 0.0))


def parallel_rows(truth, rng):
    return replace(truth, rows=np.repeat(truth.rows[:1], truth.width, 0))


def whole_numbers(truth, rng):
    return jax.tree.map(lambda a: rng.integers(-2, 3, a.shape).astype(float), truth)


def wide_hat(truth, rng):
    """Units 0, 1, 2 add up to a hat: between its kinks only, f differs from the rest."""
    rows, bias, weights = truth.rows.copy(), truth.bias.copy(), truth.weights.copy()
    rows[:3], bias[:3], weights[:, :3] = rows[0], bias[0] - [0.0, 2.0, 4.0], [1.0, -2.0, 1.0]
    return replace(truth, rows=rows, bias=bias, weights=weights)


def linear_pair(truth, rng):
    """Units 0 and 1 are antiparallel and add up to a linear function with huge weights."""
    rows, bias, weights = truth.rows.copy(), truth.bias.copy(), truth.weights.copy()
    rows[1], bias[1], weights[:, :2] = -rows[0], -bias[0], [1e4, -1e4]
    return replace(truth, rows=rows, bias=bias, weights=weights)


def small_biases(truth, rng):
    """Far out, a small intercept is below its rounding error: it is in doubt, and not zero."""
    size = 10.0 ** -rng.integers(4, 14)
    return replace(truth, bias=size * truth.bias, offset=size * truth.offset)


def a_small_offset_alone(truth, rng):
    size = 10.0 ** -rng.integers(4, 14)
    return replace(truth, bias=0 * truth.bias, offset=0 * truth.offset + size)


def a_far_strong_unit(truth, rng):
    """Far from the origin, it sets the rounding error for all; beside its kink, for values."""
    weights, bias = truth.weights.copy(), truth.bias.copy()
    weights[:, 0], bias[0] = 1e3, -1e2
    return replace(truth, weights=weights, bias=bias)


def large_offset(truth, rng):
    return replace(truth, offset=truth.offset + 1e3, slope=truth.slope + 1e3)


DEGENERATE = {
    f.__name__: f
    for f in (
        spread_weights,
        scaled_rows,
        scaled_biases,
        unused_inputs,
        one_input_used,
        parallel_rows,
        whole_numbers,
        wide_hat,
        linear_pair,
        large_offset,
        small_biases,
        a_small_offset_alone,
        a_far_strong_unit,
    )
}


@few
@pytest.mark.parametrize("change", DEGENERATE)
def test_nearly_degenerate_networks_are_exact(random_truth, attack, error, change, seeds):
    tolerance = {"a_far_strong_unit": 1e-10}.get(change, EXACT)
    for seed in seeds:
        truth = DEGENERATE[change](random_truth(seed), np.random.default_rng(seed))
        found = attack(truth, seed, budget=3000)  # far more than it takes: no search is endless
        assert truthful(found, truth, error, tolerance), f"{change} {seed}: {found}"


@few
@pytest.mark.parametrize("weight", [1e5, 1e7, 1e10])
def test_a_unit_that_dwarfs_all_others_ends_the_search(random_truth, attack, weight, seeds):
    for seed in seeds:
        truth = random_truth(seed)
        weights, bias = truth.weights.copy(), truth.bias.copy()
        weights[:, 0], bias[0] = weight, -1e2
        found = attack(replace(truth, weights=weights, bias=bias), seed, budget=3000)
        assert found.cost.queries < 1000


def opposite_outputs(truth):
    weights = truth.weights.copy()
    weights[1:] = 0.0
    weights[1] = -weights[0]
    return replace(truth, weights=weights)


def equal_columns(truth):
    return replace(truth, weights=np.repeat(truth.weights[:, :1], truth.width, 1))


def shared_hyperplane(truth):
    rows, bias = truth.rows.copy(), truth.bias.copy()
    rows[1], bias[1] = rows[0], bias[0]
    rows[3], bias[3] = -rows[2], -bias[2]
    return replace(truth, rows=rows, bias=bias)


def silent_outputs(truth):
    return replace(truth, weights=truth.weights * (np.arange(10) == 3)[:, None])


@pytest.mark.parametrize(
    "change", [opposite_outputs, equal_columns, shared_hyperplane, silent_outputs]
)
def test_outputs_with_dependent_weights(random_truth, attack, error, change):
    for seed in range(5):
        truth = change(random_truth(seed, outputs=10))
        found = attack(truth, seed)
        assert truthful(found, truth, error), found
        assert found.network.width == (8 if change is shared_hyperplane else 10)
