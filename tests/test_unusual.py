"""Random deep victims with biases or units out of the common."""

import jax
import numpy as np
import pytest

from recon import victims


@pytest.mark.parametrize("kind", victims.UNUSUAL)
def test_a_unit_of_each_layer_is_on_as_often_as_its_kind_says(kind):
    with jax.enable_x64(True):
        drawn = victims.random_unusual(jax.random.key(5), kind, (20, 10, 8, 3))
        network = jax.tree.map(np.asarray, drawn)
    size, share = victims.UNUSUAL[kind]
    y = np.random.default_rng(0).standard_normal((20_000, 20))
    for weights, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        z = y @ weights.T + bias
        y = np.maximum(z, 0)
        on = np.mean(z[:, 0] > 0)
        if share is None:
            assert np.std(bias) == pytest.approx(size, rel=0.6)
        else:
            assert abs(on - share) <= share * (1 - share) + 1e-3


def test_no_other_kind():
    with pytest.raises(ValueError, match="no kind 'odd'; there are no biases"):
        victims.random_unusual(jax.random.key(0), "odd", (4, 3, 2))
