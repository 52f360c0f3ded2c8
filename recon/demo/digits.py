"""The demo: two networks trained on digits, recovered through gradient queries alone.

    for name in NETWORKS:
        subject = train(name, key, width)
        attacked = attack(subject, "tangent", key)

returns rows and networks; `recon.demo` prints and writes them, `recon.reports.demo`
draws them.  `methods` says which attacks are defined for a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import jax
import numpy as np

from recon import data, exact, victims
from recon.exact.recovery import Recovery
from recon.experiments.algorithm1 import measured_separation
from recon.experiments.common import Row, relative_error, timed
from recon.networks import TwoLayer

NETWORKS: dict[str, Callable[..., victims.Trained]] = {
    "classifier": victims.digits_classifier,
    "scalar": victims.digits_scalar,
}
POINTS = 10_000  # Gaussian x behind the worst error


class Subject(NamedTuple):
    """A network to recover: its name in NETWORKS, the truth, and its accuracy in [0, 1]."""

    name: str
    network: TwoLayer
    accuracy: float

    @property
    def outputs(self) -> int:
        """Outputs K."""
        return int(self.network.weights.shape[0])


class Attacked(NamedTuple):
    """What an attack came to: a flat row for tables, and the recovery itself."""

    row: Row
    recovery: Recovery


def train(name: str, key: Any, width: int) -> Subject:
    """Train the network `name` of `width` hidden units on digits; the key is consumed."""
    return Subject(name, *NETWORKS[name](key, width))


def methods(subject: Subject) -> tuple[str, ...]:
    """The attacks defined for a network: the paper's take one output and no biases."""
    biased = np.any(subject.network.bias != 0) or np.any(subject.network.offset != 0)
    return ("tangent",) if subject.outputs > 1 or biased else tuple(exact.METHODS)


def attack(subject: Subject, method: str, key: Any, budget: int | None = None) -> Attacked:
    """Attack a network through its oracle, twice with the same key: the first call compiles.

    tangent is told the width only of the scalar network, as Algorithm 1 has to be.  bisect and
    membership get the true separation of the rows (assumption 2), which an attacker would
    have to guess.  `budget` holds for tangent.  The row: queries by kind, numbers, rounds,
    seconds (warm) and seconds_first (with compilation), and where there is a network
    max_error (`relative_error` over 10,000 Gaussian x) and agree, the test digits of
    `tested` on which victim and network say the same.
    """
    if method not in methods(subject):
        raise ValueError(f"{method} is not defined for the {subject.name}")
    attack_key, error_key = jax.random.split(key)
    first, got = timed(lambda: _attack(subject, method, attack_key, budget))
    warm, got = timed(lambda: _attack(subject, method, attack_key, budget))
    width, dim = subject.network.rows.shape
    row: Row = {
        "network": subject.name,
        "method": method,
        "dim": dim,
        "width": width,
        "outputs": subject.outputs,
        "accuracy": subject.accuracy,
        "width_told": _told(subject, method) is not None,
        "status": got.status.name,
        "ok": got.ok,
        "units_found": 0 if got.network is None else got.network.width,
        "queries": got.cost.queries,
        **asdict(got.cost),
        "seconds": warm,
        "seconds_first": first,
    }
    if got.ok and got.network is not None:
        x = data.digits().test.x
        same = decisions(subject.network, x) == decisions(got.network, x)
        with jax.enable_x64(True):
            error = relative_error(got.network, subject.network, error_key, POINTS)
        row |= {"max_error": error, "agree": int(same.sum()), "tested": len(x)}
    return Attacked(row, got)


def _told(subject: Subject, method: str) -> int | None:
    return None if method == "tangent" and subject.outputs > 1 else subject.network.width


def _attack(subject: Subject, method: str, key: Any, budget: int | None) -> Recovery:
    rest: dict[str, Any] = {"budget": budget}
    if method != "tangent":
        rest = {"separation": max(measured_separation(subject.network), 1e-12)}
    oracle, width = victims.oracle_of(subject.network), _told(subject, method)
    dim = subject.network.rows.shape[1]
    return exact.METHODS[method](oracle, dim=dim, key=key, width=width, **rest)


def decisions(network: TwoLayer, x: np.ndarray) -> np.ndarray:
    """What a network says of x [n, d]: the class [n], or whether its one output is positive.

    Positive means beyond rounding: where every unit is off, one network may say 0 and an
    equal one 1e-16.
    """
    values = jax.tree.map(np.asarray, network)(x)
    if values.shape[1] > 1:
        return values.argmax(1)
    return values[:, 0] > 1e-9 * np.abs(values).max()


def _directions(network: TwoLayer) -> np.ndarray:
    rows = np.asarray(network.rows)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def row_rows(subject: Subject, recovered: TwoLayer) -> list[Row]:
    """Rows, scaled to length one, pixel by pixel: the true unit beside its match, same sign.

    Units stand in the order of their weight in the function, the largest first.
    """
    victim = subject.network
    true, found = _directions(victim), _directions(recovered)
    inner = true @ found.T
    unit = np.abs(inner).argmax(1)  # max(z, 0) = max(-z, 0) + z: the sign is in the slope
    cosine = inner[np.arange(len(unit)), unit]
    weight = np.linalg.norm(victim.rows, axis=1) * np.linalg.norm(victim.weights, axis=0)
    return [
        {
            "network": subject.name,
            "unit": rank,
            "pixel": pixel,
            "true": float(true[i, pixel]),
            "recovered": float(np.sign(cosine[i]) * found[unit[i], pixel]),
            "cosine": float(abs(cosine[i])),
        }
        for rank, i in enumerate(np.argsort(-weight))
        for pixel in range(victim.rows.shape[1])
    ]
