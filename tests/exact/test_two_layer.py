"""The tangent method against planted truths, easy and nearly degenerate.

Nearly all victims share the shape 8-10-1, and so one compiled attack.  What counts is that a
network that is `ok` is the victim, also right beside its kinks.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from recon import victims
from recon.exact import Status

EXACT = 1e-11


def truthful(recovery, truth, error, tolerance=EXACT):
    """Whether it is exact; fails if it says so and is not, or fails without a sentence."""
    if recovery.ok:
        assert error(recovery.network, truth) <= tolerance, str(recovery)
        assert recovery.certificate <= tolerance
    else:
        assert len(str(recovery)) > 20
    return recovery.ok


def matched(found, truth):
    """Indices [h] of the found units in the order of the planted ones, and their signs [h]."""
    cosines = found.rows @ truth.rows.T / np.linalg.norm(truth.rows, axis=1)
    order = np.abs(cosines).argmax(0)
    return order, np.sign(cosines[order, np.arange(len(order))])


@pytest.mark.parametrize("told", [False, True], ids=["width unknown", "width known"])
@pytest.mark.parametrize("bias", [False, True], ids=["bias-free", "biased"])
def test_random_networks_are_recovered_unit_by_unit(random_truth, attack, error, bias, told):
    for seed in range(10):
        truth = random_truth(seed, bias=bias)
        found = attack(truth, seed, width=10 if told else None)
        assert found.status is Status.RECOVERED
        assert truthful(found, truth, error)
        network = found.network
        order, sign = matched(network, truth)
        assert sorted(order) == list(range(10)) == list(range(network.width))
        close = {"rtol": 1e-9, "atol": 1e-11}
        np.testing.assert_allclose(network.rows[order] * sign[:, None], truth.rows, **close)
        np.testing.assert_allclose(network.bias[order] * sign, truth.bias, **close)
        # w max(z, 0) = w max(-z, 0) + w z: the weight does not depend on the orientation
        np.testing.assert_allclose(network.weights[:, order], truth.weights, **close)


@pytest.mark.parametrize("kind", victims.KINDS)
def test_networks_outside_the_assumptions_are_exact(attack, error, kind):
    told = kind not in ("wide", "outputs")  # their shapes are compiled once only
    for seed in range(6):
        with jax.enable_x64(True):
            truth = victims.random_outside(jax.random.key(seed), kind, 8, 10)
        truth = jax.tree.map(np.asarray, truth)
        found = attack(truth, seed, width=truth.width if told and seed % 2 else None)
        far = {"far": 1e-8}.get(kind, EXACT)  # beside a kink 1e6 away eps is worth that much
        assert truthful(found, truth, error, far), f"{kind} {seed}: {found}"


def test_ten_outputs(random_truth, attack, error):
    for seed in range(5):
        truth = random_truth(seed, outputs=10)
        found = attack(truth, seed)
        assert found.status is Status.RECOVERED
        assert found.network.width == 10
        assert truthful(found, truth, error)


@pytest.mark.parametrize("width", [1, 5, 9, 11, 40])
def test_a_wrong_width_is_said_and_does_no_harm(random_truth, attack, error, width):
    for seed in range(5):
        truth = random_truth(seed)
        found = attack(truth, seed, width=width)
        assert found.status is Status.OTHER_WIDTH
        assert "Units found: 10." in str(found)
        assert truthful(found, truth, error)


@pytest.mark.parametrize("told", [None, 6, 5, 2])
def test_one_input(random_truth, attack, error, told):
    """With a width too small the search can end with two kinks taken for one."""
    for seed in range(10):
        truth = random_truth(seed, 1, 6)
        found = attack(truth, seed, width=told)
        assert found.status is (Status.RECOVERED if told in (None, 6) else Status.OTHER_WIDTH)
        assert found.network.width == 6
        assert truthful(found, truth, error)


@pytest.mark.parametrize("told", [5, 9, 10])
def test_parallel_rows_and_a_width_too_small(random_truth, attack, error, told):
    for seed in range(10):
        truth = parallel_rows(random_truth(seed), None)
        assert truthful(attack(truth, seed, width=told), truth, error)


@pytest.mark.parametrize("told", [None, 1])
def test_a_single_unit(random_truth, attack, error, told):
    for seed in range(5):
        truth = random_truth(seed)
        truth = replace(truth, weights=np.where(np.arange(10) == 4, truth.weights, 0.0))
        found = attack(truth, seed, width=told)
        assert found.status is Status.RECOVERED
        assert found.network.width == 1
        assert truthful(found, truth, error)


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


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-8, 1e-10])
def test_nearly_equal_rows(random_truth, attack, error, angle, sign):
    for seed in range(8):
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


@pytest.mark.parametrize("change", DEGENERATE)
def test_nearly_degenerate_networks_are_exact(random_truth, attack, error, change):
    tolerance = {"a_far_strong_unit": 1e-10}.get(change, EXACT)
    for seed in range(10):
        truth = DEGENERATE[change](random_truth(seed), np.random.default_rng(seed))
        found = attack(truth, seed, budget=3000)  # far more than it takes: no search is endless
        assert truthful(found, truth, error, tolerance), f"{change} {seed}: {found}"


@pytest.mark.parametrize("weight", [1e5, 1e7, 1e10])
def test_a_unit_that_dwarfs_all_others_ends_the_search(random_truth, attack, weight):
    for seed in range(10):
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


@pytest.mark.parametrize("slope", [0.0, 3.0])
@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_constant_and_linear_functions_have_no_units(random_truth, attack, error, slope, offset):
    truth = jax.tree.map(np.zeros_like, random_truth(0))
    truth = replace(truth, slope=truth.slope + slope, offset=truth.offset + offset)
    found = attack(truth)
    assert found.status is Status.RECOVERED
    assert found.network.width == 0
    assert truthful(found, truth, error)
    assert attack(truth, width=10).status is Status.OTHER_WIDTH


@pytest.mark.parametrize(
    "train",
    [victims.digits_classifier, pytest.param(victims.digits_scalar, marks=pytest.mark.slow)],
)
def test_networks_trained_on_digits(attack, error, train):
    truth = train(jax.random.key(0)).network
    found = attack(truth)
    assert found.ok, found
    assert truthful(found, truth, error)


def test_float32_victims_are_recovered_to_float32_accuracy(random_truth, attack, error):
    exact = 0
    for seed in range(8):
        truth = jax.tree.map(np.float32, random_truth(seed, bias=seed % 2 == 0))
        found = attack(truth, seed)
        exact += found.ok
        if found.ok:
            double = jax.tree.map(np.float64, truth)
            assert error(found.network, double) <= 1e-4
            assert found.certificate <= 1e-4
        else:
            assert found.status is Status.UNCERTIFIED
    assert exact >= 6


def test_the_recovered_network_can_be_called_and_saved(random_truth, attack, values, tmp_path):
    from recon import networks

    truth = random_truth(3)
    found = attack(truth, 3).network
    x = np.random.default_rng(0).normal(size=(5, 8))
    again = networks.load(found.save(tmp_path / "found"))
    np.testing.assert_array_equal(values(again, x), values(found, x))
    with jax.enable_x64(True):
        np.testing.assert_allclose(found(x), values(truth, x), rtol=1e-10)
        np.testing.assert_allclose(found(x[0]), values(truth, x)[0], rtol=1e-10)
