"""Algorithm 1 of Milli et al. (2019) as printed: rows by binary search, signs by a linear solve.

For the scalar network without biases of Equation 1, f(x) = sum_i w_i max(<A_i, x>, 0).  Names
are the paper's: Z, s, X, M, u, v, t_l, t_r, eps, l.  What is not in print is our own:

- The search of Algorithm 1a is in `binary_search`, with what it adds to the print.
- As printed, a width that is too small gives a wrong network silently.  Fresh value queries,
  counted in the cost, certify the network (`certify`).

**Choosing X.**  The paper's Appendix B is not in its text; this derivation is ours.  Points with
Zx > 0 entrywise share a cell, hence a gradient.  Scale the rows of Z to length one and factor
them as N = L Q, with L [h, h] lower triangular and Q [h, d] orthonormal, and look for points
x = Q^T a: then N x = L a, and the linear program

    maximise m  subject to  L a >= m,  -1 <= a_i <= 1

has h + 1 variables, whatever d is.  With independent rows m > 0.  Take x_j = Q^T (a + r e_j),
|r| = m/2: no entry of L exceeds one, so N x_j >= m/2, inside the cell.  And N X = L (a 1^T + r I)
has determinant det(L) r^(h-1) (r + sum a), which is not zero for r of the sign of sum a.  So
Rank(ZX) = h, as Lemma 4 asks.
"""

# ruff: noqa: E741  (l is the paper's name)

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recon.exact.asking import (
    ask_values,
    jax_key,
    refusal,
    settings,
)
from recon.exact.binary_search import Hyperplanes, recover_z
from recon.exact.recovery import COARSE, TOO_COARSE, Recovery, Status
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, Cost

SIGN_TOLERANCE = 0.1  # how far s may lie from {-1, 0, 1} and still be rounded


def learn_model(
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
    """Algorithm 1: the network of `width` units behind a scalar oracle on `dim` inputs.

    Succeeds with probability 1 - delta over the key (consumed) where the victim meets the
    paper's assumptions, `separation` being c of the second.  eps and reach (the paper's l)
    override `theorem2_constants`.  `budget` bounds all queries; those for the signs and the
    certificate are kept back from the search.  Works in float64.  Raises ValueError for
    arguments or an oracle that do not fit, ReplyError for replies that are not finite.
    """
    constants = settings(dim, width, delta, separation, eps, reach, budget)
    return learn_by(recover_z, oracle, dim, width, key, *constants, budget)


def learn_by(
    search: Callable[..., Hyperplanes],
    oracle: AnyOracle,
    dim: int,
    width: int,
    key: Any,
    eps: float,
    l: float,
    budget: int | None,
) -> Recovery:
    """Algorithm 1, its first part done by `search`, a function like `recover_z`."""
    left = kept_back(dim, width, budget)
    if (refused := refusal(dim, width, left)) is not None:
        return refused
    with jax.enable_x64(True):
        line_key, certificate_key = jax.random.split(jax_key(key))
        planes = search(oracle, dim, width, line_key, eps, l, left)
        return finish(oracle, planes, certificate_key, eps, l)


# --- Algorithm 1b -----------------------------------------------------------------------------


class Signs(NamedTuple):
    """What Algorithm 1b found: s [2h] as solved, not rounded, and X [d, h]; None without an X."""

    s: np.ndarray | None
    X: np.ndarray | None
    precision: float
    cost: Cost


def recover_s(oracle: AnyOracle, Z: np.ndarray, error: float = 0.0) -> Signs:
    """Algorithm 1b: s with f(x) = [max(Zx, 0)^T max(-Zx, 0)^T] s, from 2h value queries.

    error: how far a row of Z [h, d] may be off.
    """
    X = choose_x(Z, error)
    if X is None:
        return Signs(None, None, 0.0, Cost())
    ZX = Z @ X
    on, off = np.maximum(ZX, 0).T, np.maximum(-ZX, 0).T
    M = np.block([[on, off], [off, on]])
    with jax.enable_x64(True):
        values, precision, cost = ask_values(oracle, np.concatenate([X.T, -X.T]))
    return Signs(np.linalg.solve(M, values), X, precision, cost)


def choose_x(Z: np.ndarray, error: float = 0.0) -> np.ndarray | None:
    """X [d, h], its columns in one cell of Z [h, d] and Rank(ZX) = h; None for dependent rows.

    By the linear program of the module's docstring.
    """
    from scipy.optimize import linprog  # slow to import

    if not independent(Z, error):
        return None
    h = len(Z)
    Q, R = np.linalg.qr((Z / np.linalg.norm(Z, axis=1, keepdims=True)).T)
    L, Q = R.T, Q.T
    solution = linprog(
        c=np.append(np.zeros(h), -1),
        A_ub=np.column_stack([-L, np.ones(h)]),
        b_ub=np.zeros(h),
        bounds=[(-1, 1)] * h + [(0, None)],
        method="highs",
    )
    if solution.x is None:
        return None
    a = solution.x[:h]
    m = (L @ a).min()  # to full precision, where the solver has its own tolerance
    if m <= 0:
        return None
    r = math.copysign(m / 2, a.sum())
    return Q.T @ (a[:, None] + r * np.eye(h))


def independent(Z: np.ndarray, error: float = 0.0) -> bool:
    """Whether the rows of Z [h, d], each off by at most `error`, are linearly independent."""
    length = np.linalg.norm(Z, axis=1)
    if len(Z) > Z.shape[1] or not length.all():
        return False
    singular = np.linalg.svd(Z / length[:, None], compute_uv=False)
    rounding = max(Z.shape) * np.finfo(np.float64).eps * singular[0]
    return bool(singular[-1] > rounding + np.linalg.norm(error / length))


# --- From Z and s to a certified network -------------------------------------------------------


def finish(oracle: AnyOracle, planes: Hyperplanes, key: Any, eps: float, l: float) -> Recovery:
    """Signs, network and certificate for the rows found; a failed search is handed on."""
    h = len(planes.Z)
    if planes.failure is not None:
        detail = f"{planes.found} of {h} rows found with eps = {eps:.3g}, l = {l:.3g}."
        return Recovery(None, planes.failure, planes.cost, detail=detail)
    error = planes.precision * float(np.linalg.norm(planes.Z, axis=1).max())
    signs = recover_s(oracle, planes.Z, error)
    if signs.s is None:
        return Recovery(None, Status.UNSOLVED, planes.cost + signs.cost)
    s = np.clip(np.round(signs.s), -1, 1)
    off = float(np.abs(signs.s - s).max())
    network = as_network(planes.Z, s)
    # Our own choice: what rounding may explain, but never more than half of the digits.
    tolerance = 64 * math.sqrt(h) * max(planes.precision, signs.precision)
    tolerance = min(tolerance, math.sqrt(signs.precision))
    deviation, cost = certify(oracle, network, planes.Z, key, l, tolerance)
    cost = planes.cost + signs.cost + cost
    if max(planes.precision, signs.precision) > COARSE:
        return Recovery(network, Status.UNCERTIFIED, cost, deviation, TOO_COARSE)
    if not (off <= SIGN_TOLERANCE and deviation <= tolerance):
        detail = (
            f"s lies up to {off:.1g} from -1, 0, 1 ({SIGN_TOLERANCE} allowed), fresh values "
            f"deviate by {deviation:.1g} ({tolerance:.1g} allowed)."
        )
        return Recovery(network, Status.UNCERTIFIED, cost, deviation, detail)
    status = Status.RECOVERED if network.width == h else Status.OTHER_WIDTH
    return Recovery(network, status, cost, deviation)


def as_network(Z: np.ndarray, s: np.ndarray) -> TwoLayer:
    """[max(Zx, 0)^T max(-Zx, 0)^T] s with rows of length one, a unit for each s_i not zero."""
    hinges = np.concatenate([Z, -Z])[s != 0]
    length = np.linalg.norm(hinges, axis=1)
    return TwoLayer(
        rows=hinges / length[:, None],
        bias=np.zeros(len(hinges)),
        weights=(s[s != 0] * length)[None],
        slope=np.zeros((1, Z.shape[1])),
        offset=np.zeros(1),
    )


def certify(
    oracle: AnyOracle, network: TwoLayer, Z: np.ndarray, key: Any, l: float, tolerance: float
) -> tuple[float, Cost]:
    """The largest |f - f^| / |x| over fresh x, relative to the largest |f| / |x|.

    Values at `certificate_size` points, in pairs, as a unit that was missed is on at one of two
    opposite points.  A Gaussian pair x, -x; another, l times farther out, for units that a bias
    keeps off nearby; and pairs x + y, x - y beside the hyperplanes of many rows at once: y is
    Gaussian and orthogonal to the rows, and x so short that each unit makes ten tolerances.
    Two nearly parallel units taken for one differ from it beside their hyperplanes only.
    """
    dim, group = Z.shape[1], group_size(*Z.shape)
    length = np.linalg.norm(Z, axis=1)
    near, far, *others = np.asarray(
        jax.random.normal(key, (certificate_size(*Z.shape) // 2, dim), jnp.float64)
    )
    points = np.array([near, -near, l * far, -l * far])

    def ratio(values: Any) -> np.ndarray:
        return np.abs(values) / np.linalg.norm(points, axis=1)

    def f(x: np.ndarray) -> np.ndarray:
        return np.asarray(jax.vmap(network)(x))[:, 0]

    margin = np.minimum(10 * tolerance * ratio(f(points)).max() / length, 0.01)
    for k, y in enumerate(others):
        rows = slice(k * group, (k + 1) * group)
        N = Z[rows] / length[rows, None]
        y = y - np.linalg.lstsq(N, N @ y)[0]
        x = np.linalg.lstsq(N, margin[rows] * np.linalg.norm(y))[0]
        points = np.concatenate([points, [x + y, x - y]])
    values, _, cost = ask_values(oracle, points)
    largest = ratio(values).max()
    return float(ratio(values - f(points)).max() / largest) if largest > 0 else math.inf, cost


def group_size(width: int, dim: int) -> int:
    """Rows the certificate puts a pair of points beside: at most half the dimensions."""
    return max(1, min(dim // 2, width))


def certificate_size(width: int, dim: int) -> int:
    """Value queries of the certificate: 6 to 10; 4 on the line d = 1."""
    return 4 + (2 * math.ceil(width / group_size(width, dim)) if dim > 1 else 0)


def kept_back(dim: int, width: int, budget: int | None) -> int | None:
    """What a budget leaves to the search once signs and certificate are paid for."""
    return None if budget is None else max(0, budget - 2 * width - certificate_size(width, dim))
