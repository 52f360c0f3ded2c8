"""Algorithm 1 from values alone: the paper's Appendix C (not in its text, derived here).

The paper states that approximating gradients by values learns f in O(dh log(h/delta))
membership queries: d + 1 values for each gradient Algorithm 1 asks.  f is piecewise linear, so
a finite difference is exact, up to rounding, where its points share a cell.  We keep the
printed midpoints but use fewer values, O(h log(h/delta) + dh), by asking d + 1 of them only
where a whole gradient is needed:

- *Search.*  Along u + t v a bend is as good as a change of gradient.  Let t_0 be where the last
  search ended and t_r be halved towards it, as printed.  Each new midpoint t_m lies between t_0
  and t_r; the three values lie on one line only if [t_0, t_r] holds no kink (but for a
  coincidence of measure zero).  From then on the cell's line is known and one value tells
  whether t_m is still on it.  One value a midpoint, and one halving more a row than printed.
- *Rows.*  Forward differences in the middle of each of the h + 1 cells met, h + 1 times d + 1
  values.  A step that leaves the cell shows in <gradient, v>, which the line has already
  measured; it is then shortened and the cell asked again.
- *Refinement.*  Cells on a line are narrow, about 1/h^2, and short steps cost digits.  Where
  the rows are independent there are wide cells: with N the rows scaled to length one, each
  point with N x = 1 - 2 e_i has distance one from every hyperplane.  Differences with step 1/2
  at N x = 1 and at these h points give the rows again, to full precision.

Signs and certificate are those of `paper.finish`.
"""

# ruff: noqa: E741  (l is the paper's name)

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from recon.exact import asking, paper
from recon.exact.binary_search import Hyperplanes
from recon.exact.recovery import Recovery, Status
from recon.oracles import AnyOracle, Cost

STEP = 1 / 32  # first step of a difference, in half widths of the cell on the line
TRIES = 8  # steps tried in one cell, each an eighth of the last


def learn_model_membership(
    oracle: AnyOracle,
    dim: int,
    width: int,
    key: Any,
    delta: float = 0.05,
    separation: float = 0.1,
    eps: float | None = None,
    reach: float | None = None,
    budget: int | None = None,
) -> Recovery:
    """Algorithm 1 with value queries alone; arguments and errors as `paper.learn_model`.

    The search is a loop on the host for every kind of oracle.
    """
    constants = asking.settings(dim, width, delta, separation, eps, reach, budget)
    return paper.learn_by(recover_z_membership, oracle, dim, width, key, *constants, budget)


def recover_z_membership(
    oracle: AnyOracle,
    dim: int,
    width: int,
    key: Any,
    eps: float,
    l: float,
    budget: int | None = None,
) -> Hyperplanes:
    """Algorithm 1a from at most `budget` values (consumes the key)."""
    asking.check_sizes(dim, width)
    found: list[tuple[Cell, float]] = []
    Z, precision = np.zeros((width, dim)), 0.0
    failure: Status | None = Status.SEARCH_FAILED
    with jax.enable_x64(True):
        u, v = np.asarray(jax.random.normal(asking.jax_key(key), (2, dim), np.float64))
        values = _Values(oracle, math.inf if budget is None else budget)
        line = _Line(values, u, v, width)
        try:
            for cell_and_end in search(line, width, eps, l):
                found.append(cell_and_end)
            if len(found) > width:
                Z, precision = refined(values, differences(line, [cell for cell, _ in found]))
                failure = None
        except asking.Spent:
            failure = Status.BUDGET
        except _Bent:  # more kinks than the width, or none of a two-layer network
            failure = Status.UNCERTIFIED
    t = np.zeros(width)
    ends = [end for _, end in found[:width]]
    t[: len(ends)] = ends
    return Hyperplanes(Z, t, u, v, len(ends), precision, values.cost, failure)


# --- Search -----------------------------------------------------------------------------------


class Cell(NamedTuple):
    """A stretch [start, end] of the line without a kink, and the slope of f along it."""

    start: float
    end: float
    slope: float


def search(line: _Line, width: int, eps: float, l: float) -> Iterator[tuple[Cell, float]]:
    """The cell before each of the first h kinks with the t just past it; then the last cell.

    Ends early where a binary search fails.
    """
    far, t_0, y_0 = line(l), -l, line(-l)
    for _ in range(width):
        found = binary_search(line, t_0, y_0, l, far, eps)
        if found is None:
            return
        cell, t_0, y_0 = found
        yield cell, t_0
    if t_0 < l:
        yield Cell(t_0, l, (far - y_0) / (l - t_0)), l


def binary_search(
    line: _Line, t_0: float, y_0: float, t_r: float, y_r: float, eps: float
) -> tuple[Cell, float, float] | None:
    """The cell that begins at t_0, with t_r and f(t_r) just past its end; None as Failure.

    Halves [t_l, t_r] as `paper` does, and stops where it stops.
    """
    t_l, slope, outer = t_0, None, None
    while not line.narrow(t_l, t_r, eps):
        t_m = (t_l + t_r) / 2
        y_m = line(t_m)
        noise = 4 * line.noise(max(abs(t_0), abs(t_r)))
        if slope is not None:  # the cell's line is known: is t_m still on it?
            if abs(y_0 + slope * (t_m - t_0) - y_m) > noise:
                t_r, y_r = t_m, y_m
            else:
                t_l = t_m
        elif abs(y_0 - 2 * y_m + y_r) > noise:  # a kink in [t_0, t_r]
            outer, t_r, y_r = (t_r, y_r), t_m, y_m
        elif outer is None:  # none up to the far end
            return None
        else:  # none in [t_0, t_r], so the first lies between there and the last point tried
            slope = (y_r - y_0) / (t_r - t_0)
            t_l, (t_r, y_r) = t_r, outer
    return None if slope is None else (Cell(t_0, t_l, slope), t_r, y_r)


# --- Rows -------------------------------------------------------------------------------------


def differences(line: _Line, cells: list[Cell]) -> np.ndarray:
    """Z [h, d] from the gradients of h + 1 neighbouring cells."""
    return np.diff(np.array([gradient_in(line, cell) for cell in cells]), axis=0)


def gradient_in(line: _Line, cell: Cell) -> np.ndarray:
    """The gradient [d] in the middle of a cell on the line."""
    t, half = (cell.start + cell.end) / 2, (cell.end - cell.start) / 2
    length = float(np.linalg.norm(line.v))
    slope_error = line.noise(max(abs(cell.start), abs(cell.end))) / half
    for k in range(TRIES):
        step = length * half * STEP / 8**k
        gradient = difference(line.values, line.u + t * line.v, step)
        error = 2 * length * line.noise(t) / step
        if abs(gradient @ line.v - cell.slope) <= 4 * (error + slope_error):
            return gradient
    raise _Bent


def difference(values: _Values, x: np.ndarray, step: float) -> np.ndarray:
    """The forward difference [d] of f at x [d], from d + 1 values in one round."""
    moved = x + step * np.eye(len(x))
    taken = np.diagonal(moved) - x  # the step as rounding has left it
    y = values(np.concatenate([x[None], moved]))
    return (y[1:] - y[0]) / taken


def refined(values: _Values, Z: np.ndarray) -> tuple[np.ndarray, float]:
    """Z [h, d] measured anew, up to sign, across cells that reach one to either side.

    Also the relative rounding error of these gradients: a roundoff times the longest x, as
    f there is a sum of terms of the size of |x| and the step is of the size of one.
    """
    N = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    h = len(N)
    margins = np.column_stack([np.ones(h), 1 - 2 * np.eye(h)])
    inside, *beyond = np.linalg.lstsq(N, margins)[0].T
    gradient = difference(values, inside, 0.5)
    Z = np.array([gradient - difference(values, x, 0.5) for x in beyond])
    longest = max(float(np.linalg.norm(x)) for x in (inside, *beyond))
    return Z, values.precision * max(1.0, longest)


# --- Asking -----------------------------------------------------------------------------------


class _Bent(Exception):
    """Finite differences disagree with the slope along the line, however short the step."""


class _Values:
    """Value queries x [n, d] -> [n] within a budget, and what they have cost."""

    def __init__(self, oracle: AnyOracle, budget: float):
        self.oracle, self.budget = oracle, budget
        self.cost, self.precision = Cost(), 0.0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.cost.values + len(x) > self.budget:
            raise asking.Spent
        values, self.precision, cost = asking.ask_values(self.oracle, x)
        self.cost += cost
        return values


class _Line:
    """f along u + t v, and a bound on its rounding error that follows the values seen."""

    def __init__(self, values: _Values, u: np.ndarray, v: np.ndarray, width: int):
        self.values, self.u, self.v, self.width = values, u, v, width
        self.largest = 0.0  # |f| over the distance from the origin, in units of |v|

    def __call__(self, t: float) -> float:
        y = float(self.values((self.u + t * self.v)[None])[0])
        self.largest = max(self.largest, abs(y) / math.hypot(1, t))
        return y

    def noise(self, t: float) -> float:
        """Rounding error of f at t."""
        return 8 * math.sqrt(self.width) * self.values.precision * self.largest * math.hypot(1, t)

    def narrow(self, t_l: float, t_r: float, eps: float) -> bool:
        """Whether a binary search ends: at eps, or at the blur of a kink as in `paper`."""
        blur = self.values.precision ** (2 / 3)
        return t_r - t_l <= eps or math.atan(t_r) - math.atan(t_l) <= blur
