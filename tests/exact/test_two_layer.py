"""The tangent method against planted truths, easy and nearly degenerate.

Nearly all victims share the shape 8-10-1, and so one compiled attack.  What counts is that a
network that is `ok` is the victim, also right beside its kinks.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from planted import EXACT, truthful

from recon import victims
from recon.exact import Status


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


@pytest.mark.parametrize("told", [None, 1])
def test_a_single_unit(random_truth, attack, error, told):
    for seed in range(5):
        truth = random_truth(seed)
        truth = replace(truth, weights=np.where(np.arange(10) == 4, truth.weights, 0.0))
        found = attack(truth, seed, width=told)
        assert found.status is Status.RECOVERED
        assert found.network.width == 1
        assert truthful(found, truth, error)


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
