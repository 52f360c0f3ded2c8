"""Victims, attacks and errors that the tests of exact recovery share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from recon import exact
from recon.networks import Deep, TwoLayer
from recon.victims import random_network

DIM, WIDTH = 8, 10  # of nearly all victims of the tangent method
EXACT = 1e-11
SIZES = [(1, 1), (2, 2), (6, 4), (12, 12)]  # dim and width of the victims of Algorithm 1


def victim(seed: int, dim: int, width: int, bias: bool = False) -> TwoLayer:
    with jax.enable_x64(True):
        return random_network(jax.random.key(seed), dim, width, bias=bias)


def planted(rows: np.ndarray, weights: np.ndarray) -> TwoLayer:
    width, dim = rows.shape
    with jax.enable_x64(True):
        arrays = (rows, np.zeros(width), weights[None], np.zeros((1, dim)), np.zeros(1))
        return TwoLayer(*(jnp.asarray(a, jnp.float64) for a in arrays))


def evaluate(network: TwoLayer, x: np.ndarray) -> np.ndarray:
    """Values [n] in NumPy, so in float64 outside of JAX's own precision setting."""
    rows, bias, weights, slope, offset = (
        np.asarray(getattr(network, name))
        for name in ("rows", "bias", "weights", "slope", "offset")
    )
    return (np.maximum(x @ rows.T + bias, 0) @ weights.T + x @ slope.T + offset)[:, 0]


def error(found: TwoLayer, truth: TwoLayer, seed: int = 0) -> float:
    """Largest deviation over Gaussian x, relative to the largest value."""
    x = np.random.default_rng(seed).normal(size=(1000, truth.rows.shape[1]))
    right = evaluate(truth, x)
    return float(np.abs(evaluate(found, x) - right).max() / np.abs(right).max())


def every_row(rows: np.ndarray) -> np.ndarray:
    """For the counting oracle: nothing here is padding."""
    return np.ones(len(rows), bool)


def key(seed: int) -> jax.Array:
    return jax.random.key(1000 + seed)


def recover(oracle, seed=0, **options):
    """The tangent method on any oracle of DIM inputs."""
    return exact.recover(oracle, **{"dim": DIM, "key": jax.random.key(seed)} | options)


def truthful(recovery, truth, error, tolerance=EXACT):
    """Whether it is exact; fails if it says so and is not, or fails without a sentence.

    A deep network, which passes where kinks all but cancel, may be wrong on its share of inputs; it
    is exact where it is right on all that are asked.
    """
    if recovery.ok and isinstance(recovery.network, Deep):
        x = np.random.default_rng(0).standard_normal((10_000, truth.rows.shape[1]))
        off = np.abs(recovery.network(x) - np.asarray(truth(x))).max(1)
        off /= np.sqrt(np.mean(np.square(truth(x))))
        assert np.mean(off > 1e-6) <= recovery.share
        return bool((off <= tolerance).all())
    if recovery.ok:
        assert error(recovery.network, truth) <= tolerance, str(recovery)
        assert recovery.certificate <= tolerance
    else:
        assert len(str(recovery)) > 20
    return recovery.ok
