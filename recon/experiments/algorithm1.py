"""Algorithm 1 at work: Theorem 1's success rate and query count, and Figure 1 from a real run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from recon import oracles, victims
from recon.exact import asking, binary_search, paper
from recon.exact.recovery import Recovery
from recon.experiments.common import EXACT, Measured, Row, columns, interval, relative_error
from recon.networks import TwoLayer


class Outcome(NamedTuple):
    """One run of Algorithm 1: how it ended and, where it failed, why; the eps and l it used."""

    recovery: Recovery
    error: float  # relative, inf without a network
    cause: str  # "" | "far" | "close" | "wrong" | "other"
    eps: float
    reach: float


def measured_separation(network: TwoLayer) -> float:
    """The c of assumption 2 with |<A_i, A_j>| <= 1 - c: the sign must not matter (erratum)."""
    rows = np.asarray(network.rows)
    inner = np.abs(rows @ rows.T) - 2 * np.eye(len(rows))
    return float(1 - inner.max()) if len(rows) > 1 else 1.0


def sharp_epsilon(width: int, delta: float, separation: float) -> float:
    """The eps that `lemmas.lemma2_sharp` allows in Theorem 2 (ours): 2 sqrt(c) delta / h^2.

    h^2/2 pairs, each close with probability at most eps / (2 sqrt(c)), may use up delta/2.
    """
    return 2 * math.sqrt(separation) * delta / width**2


def attack(key: Any, dim: int, width: int, delta: float, rule: str) -> Outcome:
    """Algorithm 1 on a new random victim."""
    victim_key, attack_key, error_key = jax.random.split(key, 3)
    victim = victims.random_network(victim_key, dim, width)
    separation = measured_separation(victim)
    eps, reach = asking.theorem2_constants(width, delta, separation)
    if rule == "sharp":
        eps = sharp_epsilon(width, delta, separation)
    oracle = victims.oracle_of(victim)
    got = paper.learn_model(oracle, dim, width, attack_key, eps=eps, reach=reach)
    error = relative_error(got.network if got.ok else None, victim, error_key, 1_000)
    cause = "" if error <= EXACT else "wrong"
    if not got.ok:
        line_key = jax.random.split(attack_key)[0]  # as learn_model splits it: the same line
        line = binary_search.recover_z(oracle, dim, width, line_key, eps, reach)
        t = np.sort(-(np.asarray(victim.rows) @ line.u) / (np.asarray(victim.rows) @ line.v))
        far, close = np.abs(t).max() >= reach, width > 1 and np.diff(t).min() <= eps
        cause = "far" if far else "close" if close else "other"
    return Outcome(got, error, cause, eps, reach)


@dataclass(frozen=True)
class Theorem1(Measured):
    """Theorem 1: Algorithm 1 succeeds with probability 1 - delta in O(h log(h/delta)) queries.

    Claim:   success with probability at least 1 - delta, otherwise a notified failure, in
             h log2(2 l / eps) gradient queries and 2h value queries; sections 3.1 and 3.2.
    Time:    5 minutes on 2 CPU cores.
    Expect:  failure rates near delta/2: Lemma 3's half is used up (its bound is tight),
             Lemma 2's hardly (it is loose).  No wrong network, every failure is notified.
             25 to 45 gradient queries a unit, on the bound, as every binary search takes
             all its steps; the certificate's values come on top of 2h.

    Every run has a new victim (d = 2h, `victims.random_network`) and a new line.  eps and l
    follow the corrected Theorem 2 (`asking.theorem2_constants`) with the victim's own c.
    Rule "sharp" replaces eps by our `sharp_epsilon`, with the same guarantee from fewer
    queries.  "far" and "close" count failures by cause: a kink beyond l, two within eps.
    """

    shown: ClassVar[tuple[str, ...]] = columns(
        "rule width delta runs failure_rate far close other wrong gradients_per_unit bound_per_unit"
    )
    widths: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    deltas: tuple[float, ...] = (0.5, 0.2, 0.05)
    rules: tuple[str, ...] = ("paper", "sharp")
    runs: int = 200
    units: int = 6_400  # searched in a cell at most: wide networks have fewer runs
    seed: int = 0

    def small(self) -> Theorem1:
        """Two narrow widths, one delta."""
        return replace(self, widths=(2, 4), deltas=(0.5,), runs=10)

    def rows(self) -> Iterator[Row]:
        """One a width, delta and rule."""
        for width in self.widths:
            runs = min(self.runs, max(self.units // width, 1))
            # the same victims and lines for every delta and rule: a paired comparison
            keys = jax.random.split(jax.random.key(self.seed + width), runs)
            for delta, rule in product(self.deltas, self.rules):
                cell = partial(attack, dim=2 * width, width=width, delta=delta, rule=rule)
                yield self._row(width, delta, rule, [cell(key) for key in keys])

    def _row(self, width: int, delta: float, rule: str, runs: list[Outcome]) -> Row:
        causes = Counter(outcome.cause for outcome in runs)
        failures = len(runs) - causes[""]
        low, high = interval(failures, len(runs))
        won = [outcome for outcome in runs if outcome.cause == ""]
        gradients = [o.recovery.cost.gradients / width for o in won]
        values = [o.recovery.cost.values / width for o in won]
        return {
            "rule": rule,
            "width": width,
            "dim": 2 * width,
            "delta": delta,
            "runs": len(runs),
            "failures": failures,
            "failure_rate": failures / len(runs),
            "low": low,
            "high": high,
            **{cause: causes[cause] for cause in ("far", "close", "other", "wrong")},
            "eps_mean": float(np.mean([o.eps for o in runs])),
            "reach": runs[0].reach,
            "bound_per_unit": float(np.mean([math.log2(2 * o.reach / o.eps) for o in runs])),
            "gradients_per_unit": float(np.mean(gradients)) if won else None,
            "gradients_per_unit_min": min(gradients, default=None),
            "gradients_per_unit_max": max(gradients, default=None),
            "values_per_unit": float(np.mean(values)) if won else None,
            "worst_error": max((o.error for o in won), default=None),
        }


@dataclass(frozen=True)
class Figure1(Measured):
    """Figure 1: Algorithm 1a in the plane, drawn from the queries of a real run.

    Claim:   the figure's caption: a binary search along the line finds where the gradient
             changes, and the change is w_i A_i up to sign; section 3.1.
    Time:    3 seconds on 2 CPU cores.
    Expect:  two kinks, both within eps of the truth, in about 2 log2(2l/eps) queries.

    Victim (d = h = 2) and key are our own choice, for a picture that can be read.  A row
    is a "unit" of the victim (x, y: its row A_i; gradient: w_i A_i), a "query" in order of
    asking, or a "kink" found (gradient: the row of Z; error: distance to the true t).
    """

    shown: ClassVar[tuple[str, ...]] = columns("kind order t x y gradient_x gradient_y error")
    angles: tuple[float, float] = (0.5, 2.0)  # of the rows, in radians
    weights: tuple[float, float] = (1.0, -0.8)
    delta: float = 0.5
    seed: int = 3

    def small(self) -> Figure1:
        """It is small as it is."""
        return self

    def victim(self) -> TwoLayer:
        """The planted network."""
        rows = np.stack([np.cos(self.angles), np.sin(self.angles)], axis=1)
        weights = np.array([self.weights])
        return TwoLayer(rows, np.zeros(2), weights, np.zeros((1, 2)), np.zeros(1))

    def rows(self) -> Iterator[Row]:
        """Units, queries and kinks."""
        victim, asked = self.victim(), list[np.ndarray]()

        def answer(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            asked.extend(x)
            return victim(x), victim.gradient(x)

        eps, reach = asking.theorem2_constants(2, self.delta, measured_separation(victim))
        key = jax.random.key(self.seed)
        found = binary_search.recover_z(oracles.from_host(answer), 2, 2, key, eps, reach)
        truth = np.sort(-(victim.rows @ found.u) / (victim.rows @ found.v))
        common = {"epsilon": eps, "reach": reach}
        for i, (row, change) in enumerate(zip(victim.rows, victim.weights.T, strict=True)):
            yield _point("unit", i, row, row * change) | common
        search, left, end = 0, -reach, 2 + _steps(2 * reach, eps)
        for order, x in enumerate(asked):
            if order == end and search + 1 < found.found:  # a search ends after all its steps
                search, left = search + 1, found.t[search]
                end += _steps(reach - left, eps)
            t = float((x - found.u) @ found.v / (found.v @ found.v))
            gradient = victim.gradient(x[None])[0, 0]
            yield _point("query", order, x, gradient) | {"t": t, "search": search} | common
        for i, t in enumerate(found.t[: found.found]):
            point = _point("kink", i, found.u + t * found.v, found.Z[i])
            yield point | {"t": t, "search": i, "error": abs(t - truth[i])} | common


def _steps(length: float, eps: float) -> int:
    """Midpoints until an interval is no longer than eps."""
    return math.ceil(math.log2(length / eps))


def _point(kind: str, order: int, x: np.ndarray, gradient: np.ndarray) -> Row:
    at = {"kind": kind, "order": order, "t": None, "search": None, "x": float(x[0])}
    slope = {"gradient_x": float(gradient[0]), "gradient_y": float(gradient[1])}
    return at | {"y": float(x[1])} | slope | {"error": None}
