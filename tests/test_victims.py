from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import data, victims


def unit_rows(network):
    return np.allclose(np.linalg.norm(network.rows, axis=1), 1, rtol=1e-12)


def test_a_random_network_meets_the_assumptions():
    with jax.enable_x64(True):
        network = victims.random_network(jax.random.key(0), 9, 7, 2)
    assert network.rows.shape == (7, 9)
    assert network.weights.shape == (2, 7)
    assert network.rows.dtype == np.float64
    assert unit_rows(network)
    assert np.linalg.matrix_rank(network.rows) == 7
    for name in ("bias", "slope", "offset"):
        assert not np.any(getattr(network, name))
    biased = victims.random_network(jax.random.key(0), 9, 7, 2, bias=True)
    assert np.all(biased.bias != 0)
    assert np.all(biased.offset != 0)


@pytest.fixture(scope="module", params=[(5, 6), (2, 3), (4, 2)], ids=str)
def outside(request):
    dim, width = request.param
    with jax.enable_x64(True):
        key = jax.random.key(7)
        networks = {kind: victims.random_outside(key, kind, dim, width) for kind in victims.KINDS}
        return jax.tree.map(np.asarray, networks)


def test_outside_networks_are_consistent_and_random(outside):
    assert set(outside) == set(victims.KINDS)
    for kind, network in outside.items():
        outputs, width = network.weights.shape
        assert network.rows.shape[0] == width == network.width
        assert network.slope.shape == (outputs, network.rows.shape[1])
        assert (network.bias.shape, network.offset.shape) == ((width,), (outputs,))
        assert unit_rows(network)
        with jax.enable_x64(True):
            other = victims.random_outside(jax.random.key(8), kind, network.rows.shape[1], 3)
        assert not np.array_equal(other.rows[0], network.rows[0])


def test_each_kind_breaks_what_it_says(outside):
    dim = outside["biases"].rows.shape[1]
    assert np.all(outside["biases"].bias != 0)
    assert outside["wide"].width == 3 * dim
    assert outside["outputs"].weights.shape[0] == 10
    assert np.sum(np.abs(outside["faint"].weights) == 1e-9) == 1
    assert np.sum(outside["far"].bias == -1e6) == 1
    x = np.random.default_rng(0).normal(size=(1000, dim))
    assert np.all(x @ outside["far"].rows[0] + outside["far"].bias[0] < 0)


@pytest.mark.parametrize(("kind", "sign"), [("antiparallel", -1), ("repeated", 1)])
def test_pairs_share_a_direction_and_some_a_hyperplane(kind, sign, outside):
    network = outside[kind]
    shared = []
    for i in range(0, network.width - 1, 2):
        assert np.array_equal(network.rows[i + 1], sign * network.rows[i])
        shared.append(bool(network.bias[i + 1] == sign * network.bias[i]))
    assert shared == [pair % 2 == 0 for pair in range(len(shared))]


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"no kind 'deep'; there are biases, .*outputs"):
        victims.random_outside(jax.random.key(0), "deep", 3, 3)


def test_one_pair_needs_two_units():
    network = victims.random_outside(jax.random.key(0), "repeated", 3, 1)
    assert network.width == 1


def direct(network, x):
    """The recorded function, in NumPy float64 and without the record's own code."""
    hidden = np.maximum(x @ network.rows.T + network.bias, 0)
    return hidden @ network.weights.T + network.offset


def test_the_digits_classifier_is_a_float64_record_of_its_accuracy():
    trained = victims.digits_classifier(jax.random.key(0), width=16)
    network = trained.network
    assert all(getattr(network, f.name).dtype == np.float64 for f in fields(network))
    assert network.rows.shape == (16, 64)
    assert network.weights.shape == (10, 16)
    assert np.any(network.bias != 0)
    assert np.any(network.offset != 0)
    test = data.digits(0).test
    accuracy = np.mean(direct(network, test.x).argmax(1) == test.y)
    assert trained.accuracy == accuracy
    assert accuracy > 0.9


def test_the_digits_scalar_is_equation_1():
    trained = victims.digits_scalar(jax.random.key(0), width=16)
    network = trained.network
    assert network.weights.shape == (1, 16)
    for name in ("bias", "slope", "offset"):
        assert not np.any(getattr(network, name))
    assert unit_rows(network)
    test = data.digits(0).test
    accuracy = np.mean((direct(network, test.x)[:, 0] > 0) == (test.y >= 5))
    assert trained.accuracy == accuracy
    assert accuracy > 0.9


def test_training_does_not_depend_on_the_precision_in_force():
    with jax.enable_x64(False):
        single = victims.digits_scalar(jax.random.key(1), width=4).network
    with jax.enable_x64(True):
        double = victims.digits_scalar(jax.random.key(1), width=4).network
    assert np.array_equal(single.rows, double.rows)


def test_flax_and_the_record_compute_the_same_function():
    from recon import models

    x = jax.random.normal(jax.random.key(0), (5, 3))
    for bias in (True, False):
        model = models.mlp(4, 2, bias)
        variables = model.init(jax.random.key(1), x)
        if bias:  # flax starts biases at zero
            variables = jax.tree.map(lambda leaf: leaf + jnp.float32(0.1), variables)
        network = victims.TwoLayer(**models.mlp_arrays(variables["params"]))
        np.testing.assert_allclose(
            jax.vmap(network)(x), model.apply(variables, x), rtol=1e-5, atol=1e-6
        )
