"""The record of a convolutional network against truths worked out apart from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import networks, victims
from recon.networks import Convolutional, Deep

SMALL = {"shape": (18, 16, 2), "kernels": ((3, 3), (3, 4)), "dense": (6, 3)}


def planted(seed, **sizes):
    with jax.enable_x64(True):
        network = victims.random_convolutional(jax.random.key(seed), **(sizes or SMALL))
    return jax.tree.map(np.asarray, network)


def test_a_network_worked_out_by_hand():
    # a 3x3 image, a kernel that takes x00 - x11, and the largest of four such differences
    kernel = np.array([[1.0, 0.0], [0.0, -1.0]])[:, :, None, None]
    head = Deep((np.array([[2.0]]), np.array([[3.0]])), (np.array([-1.0]), np.array([0.5])))
    network = Convolutional((kernel,), (np.array([1.0]),), head, (3, 3, 1))
    x = np.array([0.0, 4.0, 0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 1.0])
    # differences -2, 3, 0, 1; 3 + 1 = 4 is the pixel, 2 * 4 - 1 = 7 the unit
    assert network(x).tolist() == [21.5]
    gradient = np.zeros(9)
    gradient[[1, 5]] = 6.0, -6.0
    assert network.gradient(x[None])[0].tolist() == [gradient.tolist()]
    assert (network.dim, network.outputs, network.widths) == (9, 1, (1, 1))
    assert str(network) == "Convolutional(3x3x1, 1 of 2x2, 1, 1)"


def test_values_and_gradients_are_those_of_jax():
    network = planted(0)
    x = np.random.default_rng(0).standard_normal((4, network.dim))
    with jax.enable_x64(True):
        traced = jax.tree.map(jnp.asarray, network)
        both = jax.jit(jax.vmap(lambda x: (traced(x), jax.jacrev(traced)(x))))
        value, jacobian = map(np.asarray, both(jnp.asarray(x)))
    assert np.abs(network(x) - value).max() < 1e-13
    assert np.abs(network.gradient(x) - jacobian).max() < 1e-13
    assert network(x).dtype == network.gradient(x).dtype == np.float64


def test_flax_computes_the_same():
    network = planted(2)
    x = np.random.default_rng(2).standard_normal((3, network.dim))
    with jax.enable_x64(True):
        module, variables = network.to_flax()
        assert np.abs(network(x) - jax.jit(module.apply)(variables, x)).max() < 1e-13


def test_files_hold_the_network(tmp_path):
    network = planted(3)
    for again in (
        networks.load(network.save(tmp_path / "a")),
        networks.from_json(network.to_json()),
    ):
        assert (again.sizes, again.shape) == (network.sizes, network.shape)
        for name, array in network.arrays().items():
            assert np.array_equal(again.arrays()[name], array)


def test_a_file_that_lost_something_is_none(tmp_path):
    network = planted(3)
    arrays = network.arrays()
    for name in ("kernels_1", "biases_0"):
        np.savez(tmp_path / "b.npz", sizes=network.sizes, **{**arrays, name: arrays[name][:1]})
        with pytest.raises(ValueError, match=name):
            networks.load(tmp_path / "b.npz")
    for sizes in ((2, 18, 16, 2), (2, 4, 4, 1, 3, 1, 3, 1, 1, 1), (0, 3, 3, 1, 2, 2)):
        with pytest.raises(ValueError, match="sizes"):
            Convolutional.shapes(sizes)


def test_the_default_is_the_network_of_the_paper():
    network = planted(0, bias=0.3)
    assert sum(a.size for a in network.arrays().values()) == 21_840
