"""The record of a deep network against truths worked out apart from it, and its random victims."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon import networks, oracles, victims
from recon.exact.inputs import Inputs
from recon.networks import Deep, TwoLayer
from recon.victims import brought

# f(x) = 5 - max(2 a - 3 b + 1, 0) with a = max(x0 - x1, 0), b = max(x0 + x1 - 2, 0).
BY_HAND = Deep(
    weights=(np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[2.0, -3.0]]), np.array([[-1.0]])),
    biases=(np.array([0.0, -2.0]), np.array([1.0]), np.array([5.0])),
)


@pytest.mark.parametrize(
    ("x", "value", "gradient"),
    [
        ([2.0, 1.0], 5.0, [0.0, 0.0]),  # a = b = 1: at the kink of the second layer, which is off
        ([2.0, -1.0], -2.0, [-2.0, 2.0]),  # a = 3, b off
        ([3.0, 0.0], 1.0, [1.0, 5.0]),  # a = 3, b = 1
        ([1.0, 1.0], 4.0, [0.0, 0.0]),  # at the kinks of both units of the first layer
        ([0.0, 5.0], 5.0, [0.0, 0.0]),  # b = 3: the second layer is off
    ],
)
def test_a_network_worked_out_by_hand(x, value, gradient):
    x = np.array(x)
    assert (BY_HAND.sizes, BY_HAND.widths, BY_HAND.width) == ((2, 2, 1, 1), (2, 1), 3)
    assert (BY_HAND.dim, BY_HAND.outputs, BY_HAND.depth, str(BY_HAND)) == (2, 1, 2, "Deep(2-2-1-1)")
    assert BY_HAND(x).tolist() == [value]
    assert BY_HAND(x[None]).tolist() == [[value]]
    assert BY_HAND.gradient(x[None]).tolist() == [[gradient]]


def test_a_two_layer_record_says_the_same_of_itself():
    with jax.enable_x64(True):
        network = victims.random_network(jax.random.key(0), 5, 7, 2)
    assert (network.sizes, network.widths, network.width) == ((5, 7, 2), (7,), 7)
    assert (network.dim, network.outputs, network.depth) == (5, 2, 1)
    assert str(network) == "TwoLayer(5-7-2)"


SIZES = [(1, 1, 1), (3, 5, 4, 2), (4, 2, 7, 3, 1), (2, 6, 3)]  # few: each is compiled


def drawn(seed, sizes):
    """A network and inputs [6, d] by NumPy's generator, in float64."""
    r = np.random.default_rng(seed)
    weights = tuple(r.standard_normal((h, below)) for below, h in pairwise(sizes))
    network = Deep(weights, tuple(r.standard_normal(h) for h in sizes[1:]))
    return network, 2 * r.standard_normal((6, sizes[0]))


def unit_by_unit(network, x):
    """f(x [d]) in loops over units, and the smallest |sum| of a hidden unit."""
    y, nearest = list(x), np.inf
    for i, (weights, biases) in enumerate(zip(network.weights, network.biases, strict=True)):
        sums = [
            sum(w * a for w, a in zip(row, y, strict=True)) + b
            for row, b in zip(weights, biases, strict=True)
        ]
        hidden = i < len(network.weights) - 1
        nearest = min(nearest, *map(abs, sums)) if hidden else nearest
        y = [max(s, 0.0) if hidden else s for s in sums]
    return np.array(y), nearest


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.sampled_from(SIZES))
def test_values_and_gradients_are_those_of_loops_and_of_finite_differences(seed, sizes):
    network, x = drawn(seed, sizes)
    value, gradient = network(x), network.gradient(x)
    assert isinstance(value, np.ndarray)
    assert value.dtype == gradient.dtype == np.float64
    assert gradient.shape == (len(x), sizes[-1], sizes[0])
    norms = np.prod([1 + np.abs(w).sum() for w in network.weights])
    for i, row in enumerate(x):
        truth, nearest = unit_by_unit(network, row)
        np.testing.assert_allclose(value[i], truth, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(network(row).shape, truth.shape)
        step = 1e-3 * nearest / norms  # no unit switches within it: the difference is exact
        if step < 1e-9:
            continue
        for k, axis in enumerate(np.eye(sizes[0])):
            ahead, behind = (unit_by_unit(network, row + s * step * axis)[0] for s in (1, -1))
            slope = (ahead - behind) / (2 * step)
            np.testing.assert_allclose(gradient[i, :, k], slope, atol=1e-14 * norms / step)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_numpy_jit_vmap_and_a_loop_agree_and_the_gradient_is_jaxs(sizes):
    network, x = drawn(3, sizes)
    with jax.enable_x64(True):
        traced, rows = jax.tree.map(jnp.asarray, network), jnp.asarray(x)
        results = {
            "jit": jax.jit(lambda net, x: net(x))(traced, rows),
            "vmap": jax.vmap(traced)(rows),
            "loop": jnp.stack([traced(row) for row in rows]),
        }
        for value in results.values():
            assert value.dtype == jnp.float64
            np.testing.assert_allclose(value, network(x), rtol=1e-12, atol=1e-12)
        jacobian = jax.vmap(jax.jacrev(traced))(rows)
        for gradient in (network.gradient(x), jax.jit(Deep.gradient)(traced, rows)):
            np.testing.assert_allclose(gradient, jacobian, rtol=1e-11, atol=1e-11)


def test_a_deep_network_is_a_pytree_of_its_arrays():
    leaves = jax.tree.leaves(BY_HAND)
    assert len(leaves) == 6
    doubled = jax.jit(lambda net: jax.tree.map(lambda leaf: 2 * leaf, net))(BY_HAND)
    assert isinstance(doubled, Deep)
    assert doubled.biases[2].tolist() == [10.0]


def test_networks_without_units_in_a_layer_are_constant():
    network, x = drawn(0, (3, 0, 2, 2))
    constant = network.weights[2] @ np.maximum(network.biases[1], 0) + network.biases[2]
    np.testing.assert_allclose(network(x), np.tile(constant, (6, 1)), rtol=1e-15)
    assert not network.gradient(x).any()


# --- victims


def test_random_deep_networks_are_he_normal_and_reproducible():
    sizes = (400, 300, 200, 10)
    with jax.enable_x64(True):
        settings = ((0, 0.5), (0, 0.5), (1, 2.0), (0, 0.0))
        drawn = [victims.random_deep(jax.random.key(a), sizes, bias=b) for a, b in settings]
    network, again, other, none = (jax.tree.map(np.asarray, net) for net in drawn)
    assert network.sizes == sizes
    for net, bias in ((network, 0.5), (other, 2.0)):
        for weights, below in zip(net.weights, sizes[:-1], strict=True):
            assert weights.dtype == np.float64
            assert np.std(weights) == pytest.approx(np.sqrt(2 / below), rel=0.1)
            assert abs(np.mean(weights)) < 5 * np.sqrt(2 / below / weights.size)
        for biases in net.biases[:-1]:
            assert np.std(biases) == pytest.approx(bias, rel=0.2)
    for ours, theirs in zip(*map(jax.tree.leaves, (network, again)), strict=True):
        assert np.array_equal(ours, theirs)
    assert not any(np.any(biases) for biases in none.biases)
    streams = [a.ravel()[:10] / np.std(a) for a in jax.tree.leaves(network)]
    assert len({tuple(np.round(a, 3)) for a in streams}) == len(streams)  # no two alike


@pytest.mark.parametrize("sizes", [(3, 2), (3,), (3, 0, 2), (0, 2, 2)])
def test_sizes_without_a_hidden_layer_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes are inputs, hidden units of each layer, outputs"):
        victims.random_deep(jax.random.key(0), sizes)


@pytest.mark.parametrize("sizes", [(3, 5, 4, 2), None], ids=["deep", "two-layer"])
def test_the_oracle_answers_as_the_record_and_kinds_share_a_function(sizes):
    with jax.enable_x64(True):
        key = jax.random.key(2)
        if sizes:
            network = victims.random_deep(key, sizes)
        else:
            network = victims.random_network(key, 3, 5, 2, bias=True)
        oracle = victims.oracle_of(network)
        x = np.random.default_rng(0).standard_normal((7, 3))
        reply, cost = oracles.ask(oracle, x)
    plain = jax.tree.map(np.asarray, network)
    np.testing.assert_allclose(reply.value, plain(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(reply.gradient, plain.gradient(x), rtol=1e-12, atol=1e-12)
    assert cost.queries == 7
    assert oracle.f is victims.oracle_of(network).f
    assert jax.tree.structure(oracle) == jax.tree.structure(victims.oracle_of(plain))


def test_a_saved_deep_network_is_a_victim(tmp_path):
    network, x = drawn(5, (3, 5, 4, 2))
    victim = brought.bring(brought.load(network.save(tmp_path / "net")))
    assert (victim.dim, victim.name) == (3, "Deep(3-5-4-2)")
    with jax.enable_x64(True):
        np.testing.assert_allclose(victim.oracle.values(x), network(x), rtol=1e-12, atol=1e-12)
    view = oracles.View("probabilities", of="probabilities")
    assert brought.oracle(network, view=view).view == view


def test_scaled_inputs_are_taken_out_of_the_first_layer():
    network, x = drawn(6, (3, 5, 4, 2))
    inputs = Inputs(np.array([0.5, -3.0, 8.0]), np.array([2.0, 0.25, 1.0]))
    restored = inputs.restored(network)
    np.testing.assert_allclose(restored(x), network(inputs.seen(x)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(restored.weights[0], axis=1), 1)


# --- flax


@pytest.mark.parametrize("kind", ["deep", "slope", "no slope", "no units"])
def test_the_flax_module_answers_as_the_network(kind):
    r = np.random.default_rng(1)
    network, x = drawn(1, (3, 5, 4, 2))
    if kind != "deep":
        width = 0 if kind == "no units" else 4
        shapes = ((width, 3), (width,), (2, width), (2, 3), (2,))
        rows, bias, weights, slope, offset = (r.standard_normal(shape) for shape in shapes)
        network = TwoLayer(rows, bias, weights, slope * (kind != "no slope"), offset)
    module, variables = network.to_flax()
    with jax.enable_x64(True):
        value = module.apply(variables, jnp.asarray(x))
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, network(x), rtol=1e-12, atol=1e-12)
        one = module.apply(variables, jnp.asarray(x[0]))
        np.testing.assert_allclose(one, network(x[0]), rtol=1e-12, atol=1e-12)
        fresh = module.init(jax.random.key(0), jnp.zeros(3, jnp.float32))
    shapes = [jax.tree.map(np.shape, tree) for tree in (variables, fresh)]
    assert shapes[0] == shapes[1]
    oracle = brought.oracle((module, variables), shape=(3,))
    with jax.enable_x64(True):
        np.testing.assert_allclose(oracle.values(x), network(x), rtol=1e-12, atol=1e-12)


def test_network_is_any_kind():
    assert isinstance(BY_HAND, networks.Network)
    assert networks.Network == TwoLayer | Deep
