from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon import networks, victims
from recon.networks import TwoLayer

# Two inputs, one unit, one output: f(x) = 3 max(x0 - 2 x1 + 1, 0) + 10 x0 + 20 x1 + 5.
BY_HAND = TwoLayer(
    rows=np.array([[1.0, -2.0]]),
    bias=np.array([1.0]),
    weights=np.array([[3.0]]),
    slope=np.array([[10.0, 20.0]]),
    offset=np.array([5.0]),
)


@pytest.mark.parametrize(
    ("x", "value", "gradient"),
    [
        ([0.0, 0.0], 8.0, [13.0, 14.0]),  # on
        ([0.0, 1.0], 25.0, [10.0, 20.0]),  # off
        ([1.0, 1.0], 35.0, [10.0, 20.0]),  # at the kink: the side where the unit is off
    ],
)
def test_a_network_worked_out_by_hand(x, value, gradient):
    x, network = jnp.array(x), jax.tree.map(jnp.asarray, BY_HAND)
    assert network.width == 1
    assert network(x).tolist() == [value]
    # the record adds biases [h] to rows [n, h], which the strict mode of these tests would refuse
    with jax.numpy_rank_promotion("allow"):
        assert network(x[None]).tolist() == [[value]]
        assert network.gradient(x[None]).tolist() == [[gradient]]


SHAPES = [(1, 1, 1), (5, 2, 3), (3, 8, 1)]  # few: each is a compile


@jax.jit
def evaluated(network, x):
    return network(x), network.gradient(x), jax.vmap(jax.jacobian(network))(x)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from(SHAPES))
def test_the_gradient_is_the_derivative(seed, shape):
    dim, width, outputs = shape
    normal = np.random.default_rng(seed).normal
    sizes = (width, dim), width, (outputs, width), (outputs, dim), outputs
    network, x = TwoLayer(*map(partial(normal, 0.0, 1.0), sizes)), normal(size=(4, dim))
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        # the same sum unit by unit, written without the record's own code
        value = sum(
            np.outer(
                np.maximum([r @ network.rows[i] + network.bias[i] for r in x], 0),
                network.weights[:, i],
            )
            for i in range(width)
        )
        value = value + x @ network.slope.T + network.offset
        ours, gradient, derivative = evaluated(network, x)
        np.testing.assert_allclose(ours, value, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(gradient, derivative, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["net", "net.npz", "deep/er/net.v2"])
def test_saved_networks_load_bit_for_bit(tmp_path, name):
    with jax.enable_x64(True):
        network = victims.random_network(jax.random.key(0), 5, 7, 2, bias=True)
        path = network.save(tmp_path / name)
    assert path.suffix == ".npz"
    back = networks.load(path)
    for ours, theirs in zip(jax.tree.leaves(back), jax.tree.leaves(network), strict=True):
        assert ours.dtype == np.float64
        assert np.array_equal(ours, np.asarray(theirs))


def test_another_file_is_refused_by_name(tmp_path):
    np.savez(tmp_path / "other.npz", rows=np.zeros((2, 2)), bias=np.zeros(2))
    with pytest.raises(ValueError, match="lacks weights, slope, offset"):
        networks.load(tmp_path / "other.npz")


def test_a_network_is_a_pytree():
    doubled = jax.jit(lambda net: jax.tree.map(lambda leaf: 2 * leaf, net))(BY_HAND)
    assert isinstance(doubled, TwoLayer)
    assert doubled.slope.tolist() == [[20.0, 40.0]]
