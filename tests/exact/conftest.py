"""Planted truths in NumPy, and how far a recovered network is from one.

Session fixtures that hand out functions: Hypothesis wants no fresh fixture for every example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from recon import exact, victims
from recon.networks import TwoLayer


def _values(network: TwoLayer, x: np.ndarray) -> np.ndarray:
    """Values [n, K] in NumPy, so in float64 whatever precision JAX is set to."""
    hidden = np.maximum(x @ np.asarray(network.rows).T + np.asarray(network.bias), 0)
    return hidden @ np.asarray(network.weights).T + x @ np.asarray(network.slope).T + network.offset


def _beside_kinks(network: TwoLayer, rng: np.random.Generator) -> np.ndarray:
    """Points [20 h, d] on and within 1e-12 ... 1e-3 of every hyperplane, on either side."""
    points = []
    for row, bias in zip(network.rows, network.bias, strict=True):
        length = np.linalg.norm(row)
        if length == 0:
            continue
        x = rng.normal(size=(20, len(row)))
        x = x - ((x @ row + bias) / length**2)[:, None] * row
        distance = 10.0 ** rng.uniform(-12, -3, 20) * rng.choice([-1, 0, 1], 20)
        points.append(x + distance[:, None] * row / length)
    return np.concatenate([*points, np.zeros((1, network.rows.shape[1]))])


def _error(found: TwoLayer, truth: TwoLayer) -> float:
    """Largest |f - f^|: over Gaussian x relative to rms f, and beside kinks to that and |f|."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10_000, truth.rows.shape[1]))
    exact = _values(truth, x)
    rms = max(float(np.sqrt(np.mean(exact**2))), 1e-300)
    worst = np.abs(_values(found, x) - exact).max() / rms
    x = _beside_kinks(truth, rng)
    exact = _values(truth, x)
    size = rms + np.abs(exact).max(1, keepdims=True)
    return float(max(worst, (np.abs(_values(found, x) - exact) / size).max()))


def _random(
    seed: int, dim: int = 8, width: int = 10, outputs: int = 1, bias: bool = True
) -> TwoLayer:
    with jax.enable_x64(True):
        network = victims.random_network(jax.random.key(seed), dim, width, outputs, bias)
        return jax.tree.map(np.array, network)


def _attack(truth: TwoLayer, seed: int = 0, **options: Any) -> exact.Recovery:
    """The tangent method on the traced oracle of a network; one compile for each shape."""
    dim = truth.rows.shape[1]
    return exact.recover(victims.oracle_of(truth), dim=dim, key=jax.random.key(seed), **options)


@pytest.fixture(scope="session")
def values() -> Callable[[TwoLayer, np.ndarray], np.ndarray]:
    return _values


@pytest.fixture(scope="session")
def error() -> Callable[[TwoLayer, TwoLayer], float]:
    return _error


@pytest.fixture(scope="session")
def random_truth() -> Callable[..., TwoLayer]:
    return _random


@pytest.fixture(scope="session")
def attack() -> Callable[..., exact.Recovery]:
    return _attack
