"""The demo's deep network: three layers of weights trained on digits, recovered from gradients."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from recon import data, exact, oracles, victims
from recon.experiments.common import Row, relative_error
from recon.networks import Deep

HIDDEN = (64, 32)


class Recovered(NamedTuple):
    """The truth and what was found, with a flat row for tables."""

    victim: Deep
    recovery: exact.Recovery
    row: Row


def recover(key: Any, budget: int | None) -> Recovered:
    """Train, attack on the host, and compare; the key is consumed."""
    train_key, attack_key, error_key = jax.random.split(key, 3)
    digits = data.digits()
    victim, accuracy = victims.deep_classifier(train_key, digits, HIDDEN)
    oracle = oracles.from_host(partial(_answer, victim))
    got = exact.recover(oracle, dim=victim.dim, key=attack_key, budget=budget)
    row: Row = {
        "network": "-".join(map(str, victim.sizes)),
        "accuracy": accuracy,
        "ok": got.ok,
        "queries": got.cost.queries,
        "queries_per_unit": got.cost.queries / victim.width,
    }
    if got.ok and got.network is not None:
        x = np.asarray(digits.test.x, np.float64)
        same = got.network(x).argmax(1) == victim(x).argmax(1)
        row["agreement"] = float(same.mean())
        row["max_error"] = relative_error(got.network, victim, error_key)
    return Recovered(victim, got, row)


def _answer(victim: Deep, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return victim(x), victim.gradient(x)


def sentence(row: Row) -> str:
    """What a person reads of it."""
    start = f"The deep classifier {row['network']}, {100 * row['accuracy']:.1f} % right: "
    if not row["ok"]:
        return f"{start}not recovered, after {row['queries']} queries."
    return (
        f"{start}recovered from {row['queries']} gradient queries, "
        f"{row['queries_per_unit']:.1f} a unit; {100 * row['agreement']:.1f} % of its answers on "
        f"test images are the same, worst error {row['max_error']:.0e}."
    )
