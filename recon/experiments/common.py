"""What experiments share: rows, heads, binomial intervals and the error every table reports."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from scipy.special import betaincinv

from recon.networks import Network

EXACT = 1e-11  # relative error below which a network counts as the victim itself, in float64

CHUNK = 1_000  # points held at once: 1,000 x 4,096 inputs take 33 MB

Row = dict[str, Any]
Tell = Callable[[Row], None]
Only = Mapping[str, tuple[str, ...]]  # values by column


class SettingsError(ValueError):
    """Settings that an experiment cannot run with, in one sentence."""


def silent(row: Row) -> None:
    """Tell nobody about a row."""


class Experiment(Protocol):
    """Settings that can be shrunk to a laptop and run to rows."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The columns a person looks at first."""

    def small(self) -> Experiment:
        """The same experiment in a form that takes seconds."""

    def run(self, tell: Tell = silent) -> list[Row]:
        """Measure; `tell` hears each row as it is ready."""


class Measured:
    """An experiment that yields its rows, computed in float64 unless x64 says no."""

    x64: ClassVar[bool] = True

    def rows(self) -> Iterator[Row]:
        """Each row as it is ready."""
        raise NotImplementedError

    def run(self, tell: Tell = silent) -> list[Row]:
        """Rows, one a cell; `tell` hears each."""
        found = []
        with jax.enable_x64(self.x64):
            for row in self.rows():
                found.append(row)
                tell(row)
        return found


def columns(text: str) -> tuple[str, ...]:
    """Names of columns, written with spaces between."""
    return tuple(text.split())


@runtime_checkable
class Summarised(Protocol):
    """An experiment whose rows are too many to read."""

    def summary(self, rows: list[Row]) -> list[Row]:
        """Few rows, with the columns of `shown`."""


class Head(NamedTuple):
    """What a person reads of an experiment before running it."""

    title: str
    claim: str
    time: str
    expect: str


def head(experiment: Experiment) -> Head:
    """The head of an experiment: of its text `about`, or of its class's docstring."""
    text = getattr(experiment, "about", None) or type(experiment).__doc__ or ""
    title, rest = text.partition("\n")[0], text[text.index("Claim:") :].partition("\n\n")[0]
    parts = re.split(r"^ *(Claim|Time|Expect): +", rest, flags=re.M)
    by_name = dict(zip(parts[1::2], (" ".join(p.split()) for p in parts[2::2]), strict=True))
    return Head(title, by_name["Claim"], by_name["Time"], by_name["Expect"])


def grouped(rows: Iterable[Row], by: Sequence[str]) -> list[list[Row]]:
    """Rows that agree in the columns `by`, in the order in which they come."""
    found: dict[tuple, list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in by), []).append(row)
    return list(found.values())


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds of a call, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def interval(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The Clopper-Pearson confidence interval of a probability seen `hits` times in `trials`."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, 1 - tail))
    return low, high


def relative_error(
    network: Network | None, victim: Network, key: Any, n: int = 10_000, scale: float = 1.0
) -> float:
    """The worst error on n points x ~ N(0, scale^2 I_d): max |f^ - f| / rms f, over all K outputs.

    The root mean square is over the same points; a victim that is zero on all of them is
    compared absolutely.  inf for no network, or one that answers NaN.  Evaluated by NumPy in the
    dtype of the networks; the key is consumed.
    """
    if network is None:
        return math.inf
    network, victim = (jax.tree.map(np.asarray, net) for net in (network, victim))
    outputs, dim = victim.outputs, victim.dim
    worst, square = 0.0, 0.0
    for k, start in enumerate(range(0, n, CHUNK)):
        size = min(CHUNK, n - start)
        x = scale * np.asarray(jax.random.normal(jax.random.fold_in(key, k), (size, dim)))
        truth = victim(x)
        error = float(np.abs(network(x) - truth).max())
        worst = max(worst, math.inf if math.isnan(error) else error)
        square += float(np.sum(truth**2))
    rms = math.sqrt(square / (n * outputs))
    return worst / rms if rms > 0 else worst
