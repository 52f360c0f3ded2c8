"""Deep victims that tempt the attack: large offsets, large gradients, layers that never end."""

from __future__ import annotations

from itertools import pairwise

import jax
import numpy as np
import pytest

from recon import exact, oracles, probe, victims
from recon.exact.deep import known, lift, recovery
from recon.exact.deep.known import Layer
from recon.networks import Deep
from recon.replies import Reply


def planted(seed: int, *sizes: int) -> Deep:
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, victims.random_deep(jax.random.key(seed), sizes))


def attacked(true: Deep, key: int, **rest: object) -> exact.Recovery:
    oracle = oracles.from_host(lambda x: (true(x), true.gradient(x)))
    return exact.recover(oracle, dim=true.sizes[0], key=key, budget=3_000, **rest)


def changed(true: Deep, scale: float = 1.0, offset: float = 0.0) -> Deep:
    """scale f + offset."""
    last = true.biases[-1] * scale + offset
    return Deep((*true.weights[:-1], true.weights[-1] * scale), (*true.biases[:-1], last))


@pytest.mark.parametrize("offset", [1e7, 1e8, 1e9])
def test_an_offset_that_dwarfs_the_network_hides_no_wrong_gradients(offset):
    shapes = ((10, 8, 6, 2), (8, 8, 5, 1), (6, 5, 4, 3))
    for seed in range(1, 5):
        true = planted(seed, *shapes[seed % 3])
        got = attacked(changed(true, offset=offset), seed)
        if not got.ok:
            assert not str(got).endswith(":"), str(got)
            continue
        x = np.random.default_rng(5).standard_normal((2_000, true.sizes[0]))
        size = np.linalg.norm(true.gradient(x), axis=(1, 2)).max()
        off = np.linalg.norm(got.network.gradient(x) - true.gradient(x), axis=(1, 2))
        assert np.mean(off > 1e-5 * size) <= got.share, f"{seed}: {got}"


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
def test_large_gradients_are_not_taken_for_decimals(scale):
    true = changed(planted(2, 6, 5, 4, 3), scale)
    x = np.random.default_rng(0).standard_normal((4, 6))
    assert probe.digits(Reply(true(x), true.gradient(x))) < 1e-15
    got = attacked(true, 2)
    assert got.ok, str(got)


@pytest.mark.parametrize("places", [2, 5])
def test_large_decimals_are_still_told(places):
    true = changed(planted(2, 6, 5, 4, 3), 1e4)
    x = np.random.default_rng(0).standard_normal((4, 6))
    reply = Reply(*(np.round(part, places) for part in (true(x), true.gradient(x))))
    assert probe.digits(reply) > 1e-12 * 10.0 ** (2 - places)


def test_slopes_at_many_points_are_those_at_each():
    true = planted(4, 7, 6, 5, 4, 3)
    layers = [Layer(w, b) for w, b in zip(true.weights[:-1], true.biases[:-1], strict=True)]
    x = np.random.default_rng(1).standard_normal((9, 7))
    z, jacobian = lift.slopes(layers, known.before(layers[:1], x)[0])
    for i in range(len(x)):
        one, slope = known.tangents(layers, x[i])[-1]
        assert np.allclose(z[i], one)
        assert np.allclose(jacobian[i] @ layers[0].weights, slope)


@pytest.mark.parametrize("seed", [168, 336])
def test_candidates_beside_which_every_point_lies_are_no_crash(seed):
    rng, sizes = np.random.default_rng(seed), (6, 5, 4, 3, 2)
    weights, biases = [], []
    for below, width in pairwise(sizes):
        weights.append(rng.standard_normal((width, below)) * (2 / below) ** 0.5)
        biases.append(rng.standard_normal(width))
    true = Deep(tuple(weights), tuple(biases))
    got = attacked(true, 0)
    x = np.random.default_rng(5).standard_normal((2_000, 6))
    if got.ok:
        off = np.abs(got.network(x) - true(x)).max(1)
        assert np.mean(off > 1e-6 * np.sqrt(np.mean(true(x) ** 2))) <= got.share


def test_queries_have_an_end_where_no_budget_is_told(monkeypatch):
    monkeypatch.setattr(recovery, "MOST", 40)
    true = planted(2, 20, 12, 8, 3)
    got = exact.recover(oracles.from_host(lambda x: (true(x), true.gradient(x))), dim=20, key=0)
    assert not got.ok
    assert "40 queries" in str(got)
