"""Planted networks and attacks on them, for the tests of reports."""

from dataclasses import replace

import jax
import numpy as np

from recon import exact, oracles, victims
from recon.reports import owner

X = np.random.default_rng(0).standard_normal((50, 12))


def planted(dim=12, width=6, outputs=1, bias=False, seed=0):
    with jax.enable_x64(True):
        network = victims.random_network(jax.random.key(seed), dim, width, outputs, bias)
        return jax.tree.map(np.asarray, network)


def attacked(network, x=X, view=oracles.PLAIN, **rest):
    with jax.enable_x64(True):
        oracle = replace(victims.oracle_of(network), view=view)
    got = exact.recover(oracle, dim=network.rows.shape[1], key=0, **rest)
    assert got.ok, got
    return owner.Subject("a planted network", oracle, x, box=rest.get("box")), got
