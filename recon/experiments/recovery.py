"""The tangent method measured: what it asks, what it survives, how long it takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np

from recon import exact, victims
from recon.exact.recovery import Recovery, Status
from recon.experiments.common import EXACT, Row, Tell, interval, relative_error, silent, timed
from recon.networks import TwoLayer

FAR = 1e7  # scale of the points that see units which are off near the origin


@dataclass(frozen=True)
class Queries:
    """Queries a hidden unit, rounds and error of `exact.recover`, certified end to end.

    Claim:   our own, against Algorithm 1's 36-45 gradient queries a unit (bench_exact) and
             the floor of 1 (h rows of d numbers, d numbers a reply).
    Time:    10 minutes on 2 CPU cores.
    Expect:  at most 2 queries a unit with the width known and 2.2 unknown for h >= 32,
             worst relative error below 1e-11, 9 to 21 rounds at h = 512, all on average.

    d = 2h.  Every run has a new victim (`victims.random_network`) and a new key; victims
    with the width told and not told are the same.
    """

    shown: ClassVar[tuple[str, ...]] = (
        "width",
        "outputs",
        "bias",
        "width_known",
        "runs",
        "exact",
        "queries_per_unit",
        "queries_per_unit_max",
        "rounds_max",
        "worst_error",
    )
    widths: tuple[int, ...] = (32, 128, 512)
    forms: tuple[tuple[int, bool], ...] = ((1, False), (1, True), (10, True))  # outputs, bias
    runs: int = 20
    points: int = 10_000
    seed: int = 0

    def small(self) -> Queries:
        """One narrow shape."""
        return replace(self, widths=(6,), forms=((1, False),), runs=2, points=1_000)

    def run(self, tell: Tell = silent) -> list[Row]:
        """Rows, one a cell; `tell` hears each."""
        rows = []
        with jax.enable_x64(True):
            for outputs, bias in self.forms:
                for width in self.widths:
                    for known in (True, False):
                        rows.append(self._cell(width, outputs, bias, known))
                        tell(rows[-1])
        return rows

    def _cell(self, width: int, outputs: int, bias: bool, known: bool) -> Row:
        dim, got, errors = 2 * width, list[Recovery](), list[float]()
        for key in jax.random.split(jax.random.key(self.seed), self.runs):
            victim_key, attack_key, error_key = jax.random.split(key, 3)
            victim = victims.random_network(victim_key, dim, width, outputs, bias)
            told = width if known else None
            one = exact.recover(victims.oracle_of(victim), dim=dim, key=attack_key, width=told)
            got.append(one)
            if one.ok:
                errors.append(relative_error(one.network, victim, error_key, self.points))
        queries = [one.cost.queries / width for one in got]
        rounds = [one.cost.rounds for one in got]
        return {
            "width": width,
            "dim": dim,
            "outputs": outputs,
            "bias": bias,
            "width_known": known,
            "runs": len(got),
            "ok": len(errors),
            "exact": sum(error <= EXACT for error in errors),
            "queries_per_unit": float(np.mean(queries)),
            "queries_per_unit_min": min(queries),
            "queries_per_unit_max": max(queries),
            "rounds_mean": float(np.mean(rounds)),
            "rounds_max": max(rounds),
            "worst_error": max(errors, default=None),
            "worst_certificate": max(one.certificate for one in got),
        }


@dataclass(frozen=True)
class Robust:
    """Does `exact.recover` ever return a wrong network as a right one?

    Claim:   our own: every random victim that meets the paper's assumptions is recovered
             exactly; outside them the answer is exact or a truthful failure.
    Time:    10 minutes on 2 CPU cores.
    Expect:  1,000 of 1,000 exact inside; outside no victim wrong with `ok`, and at least
             99 % exact where the network can be identified.

    Each victim is attacked with its width told and not told.  Kind "assumptions" is
    `victims.random_network`, the others are `victims.KINDS`.  A result counts as
      exact      ok, and within 1e-11 of the victim (relative, worst case) on Gaussian points
                 and on points 1e7 times farther out, where a unit of kind "far" is on
      near_only  ok, and that close on Gaussian points, but not farther out
      failed     not ok, a truthful failure
      wrong      ok, and not even close on Gaussian points
    `fewer_units` counts those with status OTHER_WIDTH.
    """

    shown: ClassVar[tuple[str, ...]] = (
        "kind",
        "dim",
        "width",
        "width_known",
        "victims",
        "exact",
        "failed",
        "near_only",
        "wrong",
        "fewer_units",
        "worst_error",
        "failures",
    )
    inside: tuple[tuple[int, int], ...] = ((4, 2), (16, 16), (40, 20), (100, 64))  # dim, width
    outside: tuple[tuple[int, int], ...] = ((10, 6), (30, 20))
    kinds: tuple[str, ...] = tuple(victims.KINDS)
    inside_runs: int = 250  # of each shape
    outside_runs: int = 72  # of each shape and kind
    points: int = 10_000
    seed: int = 0

    def small(self) -> Robust:
        """One narrow shape, one kind outside the assumptions."""
        shape, kinds = ((12, 6),), ("antiparallel",)
        few = replace(self, inside=shape, outside=shape, kinds=kinds, points=1_000)
        return replace(few, inside_runs=2, outside_runs=2)

    def run(self, tell: Tell = silent) -> list[Row]:
        """Rows, one a cell; `tell` hears each."""
        cells = [("assumptions", *shape, self.inside_runs) for shape in self.inside]
        cells += [(k, *shape, self.outside_runs) for k in self.kinds for shape in self.outside]
        rows = []
        with jax.enable_x64(True):
            for index, (kind, dim, width, runs) in enumerate(cells):
                keys = jax.random.split(jax.random.key(self.seed + index), runs)
                for known in (True, False):
                    rows.append(self._cell(kind, dim, width, known, keys))
                    tell(rows[-1])
        return rows

    def _cell(self, kind: str, dim: int, width: int, known: bool, keys: Any) -> Row:
        counts, failures = Counter[str](), Counter[str]()
        queries, worst, worst_far = list[float](), 0.0, 0.0
        for key in keys:
            victim_key, attack_key, error_key, far_key = jax.random.split(key, 4)
            victim = draw(victim_key, kind, dim, width)
            told = victim.width if known else None
            got = exact.recover(victims.oracle_of(victim), dim=dim, key=attack_key, width=told)
            queries.append(got.cost.queries / victim.width)
            if not got.ok:
                counts["failed"] += 1
                failures[got.status.name] += 1
                continue
            error = relative_error(got.network, victim, error_key, self.points)
            far = relative_error(got.network, victim, far_key, self.points, FAR)
            worst, worst_far = max(worst, error), max(worst_far, far)
            near = "exact" if far <= EXACT else "near_only"
            counts[near if error <= EXACT else "wrong"] += 1
            counts["fewer_units"] += got.status is Status.OTHER_WIDTH
        low, high = interval(counts["exact"], len(keys))
        names = ("exact", "near_only", "failed", "wrong", "fewer_units")
        return {
            "kind": kind,
            "dim": dim,
            "width": victim.width,
            "outputs": victim.offset.shape[0],
            "width_known": known,
            "victims": len(keys),
            **{name: counts[name] for name in names},
            "exact_low": low,
            "exact_high": high,
            "worst_error": worst,
            "worst_error_far": worst_far,
            "queries_per_unit": float(np.mean(queries)),
            "failures": "; ".join(f"{name} {n}" for name, n in sorted(failures.items())) or None,
        }


def draw(key: Any, kind: str, dim: int, width: int) -> TwoLayer:
    """A victim of a kind of `Robust`."""
    if kind == "assumptions":
        return victims.random_network(key, dim, width)
    return victims.random_outside(key, kind, dim, width)


@dataclass(frozen=True)
class Speed:
    """How long `exact.recover` takes, warm, beside the victim's own time for as many gradients.

    Claim:   our own: the attack costs little more than computing the replies it needs.
    Time:    3 minutes on 2 CPU cores.
    Expect:  100-64-1 in at most 0.1 s; 4,096 inputs and 2,048 units in at most 3 times the
             time of the same number of gradients asked in one batch.

    Warm: every shape is attacked once before the clock starts.  Wall clock, float64, the
    width told; the batch's time is the best of three.
    """

    shown: ClassVar[tuple[str, ...]] = (
        "dim",
        "width",
        "run",
        "ok",
        "queries",
        "rounds",
        "seconds",
        "batch_seconds",
        "ratio",
    )
    shapes: tuple[tuple[int, int, int], ...] = ((100, 64, 20), (4096, 2048, 3))  # dim, width, runs
    seed: int = 0

    def small(self) -> Speed:
        """One narrow shape."""
        return replace(self, shapes=((12, 6, 2),))

    def run(self, tell: Tell = silent) -> list[Row]:
        """Rows, one a cell; `tell` hears each."""
        rows = []
        with jax.enable_x64(True):
            for dim, width, runs in self.shapes:
                warm, *keys = jax.random.split(jax.random.key(self.seed), runs + 1)
                first, _ = self._attack(warm, dim, width)
                for run, key in enumerate(keys):
                    seconds, got = self._attack(key, dim, width)
                    batch = self._batch(key, dim, width, got.cost.queries)
                    rows.append(
                        {
                            "dim": dim,
                            "width": width,
                            "run": run,
                            "ok": got.ok,
                            "queries": got.cost.queries,
                            "rounds": got.cost.rounds,
                            "seconds": seconds,
                            "seconds_with_compile": first,
                            "batch_seconds": batch,
                            "ratio": seconds / batch,
                        }
                    )
                    tell(rows[-1])
        return rows

    def _attack(self, key: Any, dim: int, width: int) -> tuple[float, Recovery]:
        victim_key, attack_key = jax.random.split(key)
        oracle = victims.oracle_of(victims.random_network(victim_key, dim, width))
        jax.block_until_ready(oracle)
        return timed(lambda: exact.recover(oracle, dim=dim, key=attack_key, width=width))

    def _batch(self, key: Any, dim: int, width: int, n: int) -> float:
        oracle = victims.oracle_of(victims.random_network(key, dim, width))
        x = jax.random.normal(key, (n, dim))
        ask = jax.jit(lambda oracle, x: oracle(x))
        jax.block_until_ready(ask(oracle, x))
        return min(timed(lambda: jax.block_until_ready(ask(oracle, x)))[0] for _ in range(3))
