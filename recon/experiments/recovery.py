"""The tangent method measured: what it asks, what it survives, how long it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

import jax
import numpy as np

from recon import cells, exact, victims, workers
from recon.exact.deep import SHARE
from recon.exact.recovery import Recovery, Status
from recon.experiments.common import EXACT, Measured, Row, columns, interval, relative_error
from recon.networks import Deep, TwoLayer
from recon.oracles import ReplyError, View
from recon.victims import draws, odd
from recon.victims.identified import identified

RARE = 1e-3  # of inputs
CODE = (
    *("exact", "networks", "victims", "oracles.py", "explanations.py"),
    "experiments/recovery.py",
)
FAR = 1e7  # scale of the points that see units which are off near the origin


@dataclass(frozen=True)
class Queries(Measured):
    """Queries a hidden unit, rounds and error of `exact.recover`, certified end to end.

    Claim:   our own, against Algorithm 1's 36-45 gradient queries a unit (bench_exact) and
             the floor of 1 (h rows of d numbers, d numbers a reply).
    Time:    10 minutes on 2 CPU cores.
    Expect:  1.1 (ten outputs) to 1.6 (one) queries a unit for h >= 128, the width known or not,
             worst relative error below 1e-11, 11 to 27 rounds at h = 512, all on average.

    d = 2h.  Every run has a new victim (`victims.random_network`) and a new key; victims
    with the width told and not told are the same.
    """

    shown: ClassVar[tuple[str, ...]] = columns(
        "width outputs bias width_known runs exact queries_per_unit queries_per_unit_max "
        "rounds_max worst_error"
    )
    widths: tuple[int, ...] = (32, 128, 512)
    forms: tuple[tuple[int, bool], ...] = ((1, False), (1, True), (10, True))  # outputs, bias
    runs: int = 20
    points: int = 10_000
    seed: int = 0

    def small(self) -> Queries:
        """One narrow shape."""
        return replace(self, widths=(6,), forms=((1, False),), runs=2, points=1_000)

    def rows(self) -> Iterator[Row]:
        """One a form, width, and whether it is known."""
        for (outputs, bias), width, known in product(self.forms, self.widths, (True, False)):
            yield self._cell(width, outputs, bias, known)

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
class Robust(Measured):
    """Does `exact.recover` ever return a wrong network as a right one?

    Claim:   our own: every random victim that meets the paper's assumptions is recovered
             exactly; outside them the answer is exact or a truthful failure.
    Time:    45 minutes on 1 CPU core, all but 3 minutes for services.
    Expect:  1,000 of 1,000 exact inside; outside no victim wrong with `ok`, and at least
             99 % exact where the network can be identified.  Of services of all sorts none wrong.

    Each victim is attacked with its width told and not told.  Kind "assumptions" is
    `victims.random_network`, the others are `victims.KINDS`.  A result counts as
      exact      ok, and within 1e-11 of the victim (relative, worst case) on Gaussian points
                 and on points 1e7 times farther out, where a unit of kind "far" is on
      near_only  ok, and that close on Gaussian points, but not farther out
      failed     not ok, a truthful failure
      wrong      ok, and not even close on Gaussian points
    `fewer_units` counts those with status OTHER_WIDTH.
    The last rows are of small victims of all sorts (`victims.odd`), one row a view; many cannot be
    identified through it.  There exact means as close as `Recovery` promises for the digits shown,
    and near_only that it is farther off on at most a thousandth of the inputs, where a unit is on
    that no query met, or, of a victim of more than two layers, on the `share` that is stated.
    `identifiable` of them can be told by what is shown (`victims.identified`, from the victim
    alone), and of these `exact_identifiable` were exact.  Kinds "told": the user gives data, a
    precision or a box.
    """

    shown: ClassVar[tuple[str, ...]] = columns(
        "kind dim width width_known victims exact failed near_only wrong identifiable "
        "exact_identifiable fewer_units worst_error failures"
    )
    inside: tuple[tuple[int, int], ...] = ((4, 2), (16, 16), (40, 20), (100, 64))  # dim, width
    outside: tuple[tuple[int, int], ...] = ((10, 6), (30, 20))
    kinds: tuple[str, ...] = tuple(victims.KINDS)
    inside_runs: int = 250  # of each shape
    outside_runs: int = 72  # of each shape and kind
    services: int = 10_000  # victims of all sorts
    told: int = 1_000  # of which the user tells something
    points: int = 10_000
    seed: int = 71

    def small(self) -> Robust:
        """One narrow shape, one kind outside the assumptions."""
        shape, kinds = ((12, 6),), ("antiparallel",)
        few = replace(self, inside=shape, outside=shape, kinds=kinds, points=1_000)
        return replace(
            few, inside_runs=2, outside_runs=2, services=len(odd.VIEWS), told=len(draws.TOLD)
        )

    def rows(self) -> Iterator[Row]:
        """One a kind and shape, or view, and whether the width is known; each is kept."""
        todo = [*self._planted(), *self._served()]
        code = cells.measured_by(CODE)
        named = lambda cell: ["robust", *map(str, cell[1:]), self.points, self.seed, code]  # noqa: E731
        for (row,) in workers.map_cells(lambda cell, _: [cell[0](*cell[1:])], todo, named):
            yield row

    def _planted(self) -> Iterator[tuple]:
        kinds = [("assumptions", *shape, self.inside_runs) for shape in self.inside]
        kinds += [(k, *shape, self.outside_runs) for k in self.kinds for shape in self.outside]
        for index, cell in enumerate(kinds):
            for known in (True, False):
                yield self._cell, *cell, known, self.seed + index

    def _served(self) -> Iterator[tuple]:
        """Seeds of victims of all sorts, with their views and what is told; none without."""
        for index, view in enumerate(odd.VIEWS):
            for known in (True, False):
                seeds = range(2 * index + known, self.services, 2 * len(odd.VIEWS))
                if seeds:
                    yield self._services, f"any: {view}", known, [(i, view, "") for i in seeds]
        full = [view for view in odd.VIEWS if view.explanation in ("jacobian", "input_x_gradient")]
        for index, told in enumerate(draws.TOLD):
            for known in (True, False):
                seeds = range(2 * index + known, self.told, 2 * len(draws.TOLD))
                some = [(self.services + i, full[i % len(full)], told) for i in seeds]
                if some:
                    yield self._services, f"told {told}", known, some

    def _services(self, kind: str, known: bool, some: Sequence[tuple[int, View, str]]) -> Row:
        """A row of victims of all sorts, by seed, view and what is told."""
        counts, failures, queries, worst = Counter[str](), Counter[str](), list[float](), 0.0
        for seed, view, told in some:
            victim = draws.random_odd([self.seed, seed], view, told)
            marked = identified(victim)
            counts["identifiable"] += marked
            more: dict[str, Any] = {"width": victim.width} if known else {}
            try:
                got = exact.recover(
                    victim.oracle(), dim=victim.dim, key=seed, **more, **victim.told
                )
            except (ReplyError, odd.Broken) as refused:
                counts["failed"] += 1
                failures[type(refused).__name__] += 1
                continue
            queries.append(got.cost.queries / victim.width)
            if not got.ok:
                counts["failed"] += 1
                failures[got.status.name] += 1
                continue
            off = victim.deviations(got.network, self.points)
            bad = off > victim.promised
            worst = max(worst, float(off[~bad].max(initial=0.0)))
            wrong = bad.sum() > rare(victim, got) * len(bad)
            outcome = "wrong" if wrong else "near_only" if bad.any() else "exact"
            counts[outcome] += 1
            counts["exact_identifiable"] += marked and outcome == "exact"
            counts["fewer_units"] += got.status is Status.OTHER_WIDTH
        return _row(kind, known, len(some), counts, failures) | {
            "identifiable": counts["identifiable"],
            "exact_identifiable": counts["exact_identifiable"],
            "worst_error": worst,
            "queries_per_unit": float(np.mean(queries)) if queries else None,
        }

    def _cell(self, kind: str, dim: int, width: int, runs: int, known: bool, seed: int) -> Row:
        counts, failures = Counter[str](), Counter[str]()
        keys = jax.random.split(jax.random.key(seed), runs)
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
        return _row(kind, known, len(keys), counts, failures) | {
            "dim": dim,
            "width": victim.width,
            "outputs": victim.offset.shape[0],
            "worst_error": worst,
            "worst_error_far": worst_far,
            "queries_per_unit": float(np.mean(queries)),
        }


def rare(victim: odd.Odd, got: Recovery) -> float:
    """The share of inputs that an `ok` network may be off on.

    Of a victim of more than two layers what the recovery states, if that is no more than
    `exact.recover` allows a deep network.
    """
    deep = victim.kind != "relu" or isinstance(got.network, Deep)
    return max(RARE, got.share) if deep and got.share <= SHARE else RARE


def _row(kind: str, known: bool, victims: int, counts: Counter, failures: Counter) -> Row:
    low, high = interval(counts["exact"], victims)
    names = ("exact", "failed", "near_only", "wrong", "fewer_units")
    return {
        "kind": kind,
        "dim": None,
        "width": None,
        "outputs": None,
        "width_known": known,
        "victims": victims,
        **{name: counts[name] for name in names},
        "exact_low": low,
        "exact_high": high,
        "worst_error": None,
        "worst_error_far": None,
        "queries_per_unit": None,
        "identifiable": None,
        "exact_identifiable": None,
        "failures": "; ".join(f"{name} {n}" for name, n in sorted(failures.items())) or None,
    }


def draw(key: Any, kind: str, dim: int, width: int) -> TwoLayer:
    """A victim of a kind of `Robust`."""
    if kind == "assumptions":
        return victims.random_network(key, dim, width)
    return victims.random_outside(key, kind, dim, width)
