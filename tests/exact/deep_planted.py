"""Planted deep networks on the host, and attacks on them whose queries are counted."""

from __future__ import annotations

import jax
import numpy as np

from recon import exact, oracles, victims
from recon.networks import Deep
from recon.replies import Reply


class Counted:
    """A deep network on the host that counts its rows."""

    def __init__(self, network: Deep) -> None:
        self.network, self.queries = network, 0

    def __call__(self, x: np.ndarray) -> Reply:
        self.queries += len(x)
        return Reply(self.network(x), self.network.gradient(x))


def planted(seed: int, *sizes: int, bias: float = 0.5) -> Deep:
    with jax.enable_x64(True):
        network = victims.random_deep(jax.random.key(seed), sizes, bias)
    return jax.tree.map(np.asarray, network)


def attacked(network: Deep, key: int = 0, **rest: object) -> tuple[exact.Recovery, Counted]:
    counted = Counted(network)
    oracle = oracles.from_host(lambda x: tuple(counted(x)))
    return exact.recover(oracle, dim=network.sizes[0], key=key, **rest), counted


def error(found: Deep, true: Deep, n: int = 2_000) -> np.ndarray:
    x = np.random.default_rng(7).standard_normal((n, true.sizes[0]))
    return np.abs(found(x) - true(x)).max(1) / np.sqrt(np.mean(true(x) ** 2))
