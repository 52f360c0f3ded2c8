"""Our methods and another tool's on the same networks, in one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from recon import exact, victims
from recon.experiments.bench import toolbox
from recon.experiments.common import Measured, Row, columns, grouped, relative_error, timed
from recon.networks import Network, TwoLayer
from recon.oracles import Cost, Oracle, ReplyError

RIGHT = 1e-6  # relative error that still counts as right: lenient, ours stay below 1e-11


class Case(NamedTuple):
    """Random networks of one shape (`victims.random_network`, no biases) and who attacks them."""

    dim: int
    width: int
    outputs: int
    methods: tuple[str, ...]
    runs: int = 5  # networks
    repeats: int = 3  # warm timings of each


class Timed(NamedTuple):
    """One attack on one network, and its times in seconds; detail says why it is not "ok"."""

    outcome: str
    network: Network | None
    cost: Cost | None
    first: float | None  # with what it compiles
    warm: tuple[float, ...]
    detail: str
    version: str | None = None


UNKNOWN = "tangent, width unknown"
OURS = ("tangent", UNKNOWN, "bisect", "membership")
TOOLBOX = "ART"
COUNTS = tuple(field.name for field in fields(Cost))
BATCH = "gradients alone"  # as many as the tangent method asked, in one batch, and dropped

EVERY = (*OURS, BATCH, TOOLBOX)
CASES = (
    *(Case(dim, width, 10, EVERY) for dim, width in ((20, 8), (20, 10), (100, 16), (100, 32))),
    Case(100, 64, 10, EVERY, runs=3),
    *(Case(100, width, 1, EVERY) for width in (16, 32, 64)),
    Case(784, 128, 1, EVERY, repeats=1),
    Case(4096, 2048, 1, ("tangent", BATCH), runs=3),
)


@dataclass(frozen=True)
class Bench(Measured):
    """Tangents, Algorithm 1, its membership form and ART's extraction on identical networks.

    Claim:   our own: tangents ask fewer queries and receive fewer numbers than the others, and
             are right where ART's FunctionallyEquivalentExtraction mostly is not.
    Time:    6 minutes on 2 CPU cores.
    Expect:  ours right everywhere, below 1e-11; tangents with 10 to 50 times fewer queries than
             Algorithm 1; ART wrong or raising on most networks, refusing one output; 100-64-1 in
             at most 0.1 s; at 4,096 inputs and 2,048 units twice the time of the gradients alone.

    A row is one method on one network.  Its outcome is
      ok           returned as right, and within 1e-6 of the victim (the worst of `points`
                   Gaussian x, relative to the root mean square: `relative_error`)
      wrong        returned as right, and farther off
      failed       its own status says that it failed
      not defined  refused this kind of network before it asked anything
      raised       an exception
      limit        killed after `limit` seconds
      absent       not installed (`make bench` installs it)
      reference    gradients alone: the victim's own time for as many as the tangent method asked
    Every method but "tangent, width unknown" is told the width.  seconds is the median of warm
    calls, of all methods in turn; first_seconds the first call, with what it compiles; neither
    counts imports.  ART runs once, in its own process.  times_X compares with the tangent
    method on the same network, times_batch the seconds with the gradients alone.
    """

    shown: ClassVar[tuple[str, ...]] = columns(
        "network method outcome gradients values numbers rounds seconds first_seconds "
        "times_queries times_numbers times_seconds times_batch error"
    )
    cases: tuple[Case, ...] = CASES
    toolbox_runs: int = 5  # of each case at most
    limit: float = 60.0
    points: int = 10_000
    seed: int = 0

    def small(self) -> Bench:
        ours = ("tangent", "bisect", "membership", BATCH)
        scalar = Case(8, 4, 1, ours, runs=1, repeats=2)
        several = Case(8, 4, 2, ("tangent", "bisect", "ART"), runs=1, repeats=2)
        return replace(self, cases=(scalar, several), limit=5.0, points=1_000)

    def rows(self) -> Iterator[Row]:
        """One a case, network and method."""
        for case in self.cases:
            yield from self._case(case)

    def _case(self, case: Case) -> list[Row]:
        """Ours on each network in turn, then ART on all of them."""
        networks, rows = list[TwoLayer](), list[Row]()
        root = jax.random.key(self.seed)
        keys = [jax.random.split(jax.random.fold_in(root, run), 3) for run in range(case.runs)]
        for run, (victim_key, attack_key, error_key) in enumerate(keys):
            victim = victims.random_network(victim_key, case.dim, case.width, case.outputs)
            networks.append(jax.tree.map(np.asarray, victim))
            for method, got in ours(case, victim, attack_key).items():
                rows.append(self._row(case, run, method, got, networks[run], error_key))
        if TOOLBOX in case.methods:
            answers = toolbox.extract(networks[: self.toolbox_runs], self.limit)
            for run, got in enumerate(map(of_art, answers)):
                rows.append(self._row(case, run, TOOLBOX, got, networks[run], keys[run][2]))
        return compared(rows)

    def _row(
        self, case: Case, run: int, method: str, got: Timed, victim: TwoLayer, key: Any
    ) -> Row:
        outcome, error = got.outcome, None
        if outcome == "returned":
            error = relative_error(got.network, victim, key, self.points)
            outcome = "ok" if error <= RIGHT else "wrong"
        return {
            "network": f"{case.dim}-{case.width}-{case.outputs}",
            **dict(zip(("dim", "width", "outputs"), case, strict=False)),
            "run": run,
            "method": method,
            "outcome": outcome,
            **(asdict(got.cost) if got.cost else dict.fromkeys(COUNTS)),
            "seconds": float(np.median(got.warm)) if got.warm else None,
            "seconds_min": min(got.warm, default=None),
            "seconds_max": max(got.warm, default=None),
            "first_seconds": got.first,
            "repeats": len(got.warm),
            "error": error,
            "detail": got.detail or None,
            "version": got.version,
        }

    def summary(self, rows: list[Row]) -> list[Row]:
        """One row for each network and method: outcomes counted, and medians over the runs.

        The error and first_seconds (one network in a shape compiles) are the largest.
        """
        return [self._together(group) for group in grouped(rows, ("network", "method"))]

    def _together(self, rows: list[Row]) -> Row:
        outcomes = Counter(row["outcome"] for row in rows)
        together: Row = {"network": rows[0]["network"], "method": rows[0]["method"]}
        together["outcome"] = ", ".join(f"{n} {name}" for name, n in outcomes.items())
        for name in self.shown[3:]:
            cells = [row[name] for row in rows if row[name] is not None]
            worst = name in ("first_seconds", "error")
            cell = (max(cells) if worst else float(np.median(cells))) if cells else None
            together[name] = round(cell) if name in COUNTS and cell is not None else cell
        return together


_reply = jax.jit(lambda oracle, x: oracle(x))


def _ask(oracle: Oracle, x: jax.Array) -> None:
    jax.block_until_ready(_reply(oracle, x))


def ours(case: Case, victim: TwoLayer, key: Any) -> dict[str, Timed]:
    """Our methods of a case on one network: a first call each, then all in turn, warm."""
    oracle = victims.oracle_of(jax.block_until_ready(victim))
    done: dict[str, Timed] = {}
    calls: dict[str, Callable[[], Any]] = {}
    for method in case.methods:
        if method in OURS:
            calls[method] = partial(attacked, method, oracle, case, key)
            first, got = timed(calls[method])
            done[method] = got if got.outcome == "not defined" else got._replace(first=first)
        elif method == BATCH:
            asked = done["tangent"].cost
            assert asked is not None, "the tangent method is defined for every network"
            x = jax.random.normal(key, (asked.gradients, case.dim))
            calls[method] = partial(_ask, oracle, x)
            first, _ = timed(calls[method])
            cost = Cost(asked.gradients, 0, asked.numbers, 1)
            done[method] = Timed("reference", None, cost, first, (), "")
    for _ in range(case.repeats):
        for method, call in calls.items():
            if done[method].outcome != "not defined":
                seconds, _ = timed(call)
                done[method] = done[method]._replace(warm=(*done[method].warm, seconds))
    return done


def attacked(method: str, oracle: Oracle, case: Case, key: Any) -> Timed:
    """One attack of ours, to its end; a ValueError is a refusal, as no reply can be at fault."""
    learn, width = exact.METHODS[method.partition(",")[0]], case.width
    try:
        got = learn(oracle, dim=case.dim, key=key, width=None if method == UNKNOWN else width)
    except ReplyError:
        raise
    except ValueError as error:
        return Timed("not defined", None, None, None, (), str(error))
    jax.block_until_ready(got.network)
    detail = "" if got.ok else str(got)
    return Timed("returned" if got.ok else "failed", got.network, got.cost, None, (), detail)


def of_art(got: toolbox.Extraction) -> Timed:
    """ART's result in the same form: an exception before any query is a refusal."""
    if got.end == "absent" or (got.end == "raised" and got.cost.queries == 0):
        outcome = "absent" if got.end == "absent" else "not defined"
        return Timed(outcome, None, None, None, (), got.detail, got.version)
    warm = () if got.seconds is None else (got.seconds,)
    return Timed(got.end, got.network, got.cost, got.seconds, warm, got.detail, got.version)


def _queries(row: Row) -> float | None:
    return None if row["gradients"] is None else row["gradients"] + row["values"]


RATIOS: dict[str, tuple[str, Callable[[Row], float | None]]] = {
    "times_queries": ("tangent", _queries),
    "times_numbers": ("tangent", itemgetter("numbers")),
    "times_seconds": ("tangent", itemgetter("seconds")),
    "times_batch": (BATCH, itemgetter("seconds")),
}


def compared(rows: list[Row]) -> list[Row]:
    """The rows of one case with their ratios to the tangent method and to the gradients alone."""
    by_method = {(row["run"], row["method"]): row for row in rows}

    def times(row: Row, method: str, measure: Callable[[Row], float | None]) -> float | None:
        base = by_method.get((row["run"], method))
        one, other = measure(row), base and measure(base)
        return one / other if one is not None and other else None

    return [row | {name: times(row, *of) for name, of in RATIOS.items()} for row in rows]
