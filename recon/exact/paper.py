"""Algorithm 1 of Milli et al. (2019) as printed: rows by binary search, signs by a linear solve.

For the scalar network without biases of Equation 1, f(x) = sum_i w_i max(<A_i, x>, 0).  Names
are the paper's: Z, s, X, M, u, v, t_l, t_r, eps, l.  What is not in print is our own:

- Replies at points already asked are kept, so the search asks one gradient query for each new
  midpoint, and two for the ends of the line.  That is the fair count of Algorithm 1a.
- "Norm > 0" is exact only where the gradient is bit-identical within a cell.  Here a change
  counts above 16 sqrt(h) roundoffs of the larger gradient at the ends of the line, the roundoff
  being the machine epsilon of the replies' dtype.
- Rounding blurs a kink at t by about a roundoff in the angle arctan t.  A binary search
  therefore also ends at roundoff^(2/3) in that angle, even where eps asks for less.
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
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from recon.exact.recovery import Recovery, Status
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, Cost, HostOracle, Oracle, ReplyError, check, check_values

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
    eps, l = settings(dim, width, delta, separation, eps, reach, budget)
    left = kept_back(dim, width, budget)
    if (refused := refusal(dim, width, left)) is not None:
        return refused
    with jax.enable_x64(True):
        line_key, certificate_key = jax.random.split(key)
        planes = recover_z(oracle, dim, width, line_key, eps, l, left)
        return finish(oracle, planes, certificate_key, eps, l)


def theorem2_constants(width: int, delta: float, separation: float) -> tuple[float, float]:
    """(eps, l) with which Algorithm 1a succeeds with probability 1 - delta (Theorem 2).

    delta is split evenly between Lemma 2 (close kinks) and Lemma 3 (far kinks).  The printed
    l = h^2 cannot reach a delta below 2 / (pi h), and the printed sum has a sign wrong.
    """
    if not (0 < delta < 1 and 0 < separation <= 1):
        raise ValueError(f"delta {delta} must lie in (0, 1) and separation {separation} in (0, 1]")
    return separation * (delta / 2) ** 1.5 / (9 * width**3), 4 * width / (math.pi * delta)


# --- Algorithm 1a -----------------------------------------------------------------------------


class Hyperplanes(NamedTuple):
    """What Algorithm 1a found on the line u + t v.

    Z [h, d] holds w_i A_i up to sign, in the order met, and t [h] where each binary search
    ended, within eps past the kink; the first `found` are filled.  precision is the roundoff
    of the replies behind Z.  failure is None where all h rows were found.
    """

    Z: np.ndarray
    t: np.ndarray
    u: np.ndarray
    v: np.ndarray
    found: int
    precision: float
    cost: Cost
    failure: Status | None


def recover_z(
    oracle: AnyOracle,
    dim: int,
    width: int,
    key: Any,
    eps: float,
    l: float,
    budget: int | None = None,
) -> Hyperplanes:
    """Algorithm 1a: `width` sequential binary searches for a gradient change along u + t v.

    Asks at most `budget` >= 2 gradient queries; consumes the key.  An `Oracle` is searched by one
    compiled kernel, a `HostOracle` by the same code in a Python loop.
    """
    check_sizes(dim, width)
    limit = np.iinfo(np.int64).max if budget is None else budget
    if limit < 2:
        raise ValueError(f"budget {budget} does not cover the two ends of the line")
    with jax.enable_x64(True):
        u, v = jax.random.normal(key, (2, dim), jnp.float64)
        line = (u, v, jnp.float64(eps), jnp.float64(l), jnp.int64(limit))
        if isinstance(oracle, Oracle):
            reply = jax.eval_shape(oracle, u[None])
            check_scalar(reply.value.shape[1])
            precision = roundoff(reply.value.dtype, reply.gradient.dtype)
            state = _kernel(oracle, *line, width, precision)
        else:
            state, precision = _on_host(oracle, *line, width)
    asked, found = int(state.asked), int(state.found)
    if not state.finite:
        raise ReplyError(f"query row {asked - 1} of the search: the gradient is not finite")
    stopped = Status.SEARCH_FAILED if state.lost else Status.BUDGET
    return Hyperplanes(
        Z=np.asarray(state.Z),
        t=np.asarray(state.t),
        u=np.asarray(u),
        v=np.asarray(v),
        found=found,
        precision=precision,
        cost=Cost(gradients=asked, numbers=asked * (1 + dim), rounds=asked - 1),
        failure=None if found == width else stopped,
    )


class _State(NamedTuple):
    """Between two queries: the bracket [t_l, t_r], the gradients there, and the rows so far."""

    t_l: Any
    t_r: Any
    g_l: Any
    g_r: Any
    Z: Any
    t: Any
    found: Any
    asked: Any
    lost: Any  # the printed Failure: no gradient change in [t_l, t_r]
    finite: Any


def _search(
    ask: Callable,
    ends: jax.Array,
    width: int,
    precision: float,
    eps: jax.Array,
    l: jax.Array,
    budget: jax.Array,
    while_loop: Callable,
) -> _State:
    """Algorithm 1a with ask(t) -> gradient [d], given the gradients [2, d] at both ends.

    while_loop is `lax.while_loop`, or its Python twin for a victim that cannot be traced.
    """
    noise = 16 * math.sqrt(width) * precision * jnp.linalg.norm(ends, axis=1).max()

    def narrow(z: _State) -> jax.Array:
        angle = jnp.arctan(z.t_r) - jnp.arctan(z.t_l)
        return (z.t_r - z.t_l <= eps) | (angle <= precision ** (2 / 3))

    def searching(z: _State) -> jax.Array:
        return ~narrow(z) & ~z.lost & z.finite & (z.asked < budget)

    def halve(z: _State) -> _State:
        t_m = (z.t_l + z.t_r) / 2
        return _keep_half(z, t_m, ask(t_m), noise)

    def binary_search(z: _State) -> _State:
        z = while_loop(searching, halve, z)
        ended = narrow(z) & ~z.lost & z.finite
        changed = jnp.linalg.norm(z.g_r - z.g_l) > noise
        return _keep_row(z, ended & changed, ended & ~changed, l, ends[1])

    def unfinished(z: _State) -> jax.Array:
        return (z.found < width) & ~z.lost & z.finite & (narrow(z) | (z.asked < budget))

    start = _State(
        t_l=-l,
        t_r=l,
        g_l=ends[0],
        g_r=ends[1],
        Z=jnp.zeros((width, ends.shape[1])),
        t=jnp.zeros(width),
        found=jnp.int64(0),
        asked=jnp.int64(2),
        lost=jnp.bool(False),
        finite=jnp.isfinite(ends).all(),
    )
    return while_loop(unfinished, binary_search, start)


@jax.jit
def _keep_half(z: _State, t_m: jax.Array, g_m: jax.Array, noise: jax.Array) -> _State:
    """Lines 13-18 of binarySearch: go on in the half with the first gradient change."""
    left = jnp.linalg.norm(z.g_l - g_m) > noise
    right = jnp.linalg.norm(g_m - z.g_r) > noise
    return z._replace(
        t_l=jnp.where(left, z.t_l, t_m),
        g_l=jnp.where(left, z.g_l, g_m),
        t_r=jnp.where(left, t_m, z.t_r),
        g_r=jnp.where(left, g_m, z.g_r),
        asked=z.asked + 1,
        lost=~left & ~right,
        finite=jnp.isfinite(g_m).all(),
    )


@jax.jit
def _keep_row(z: _State, row: jax.Array, lost: jax.Array, l: jax.Array, g_far: jax.Array) -> _State:
    """Line 5 of recoverZ, where there is a row: Z_i, then on from t_r to the far end."""
    return z._replace(
        Z=z.Z.at[z.found].set(jnp.where(row, z.g_r - z.g_l, 0)),
        t=z.t.at[z.found].set(jnp.where(row, z.t_r, 0)),
        t_l=jnp.where(row, z.t_r, z.t_l),
        g_l=jnp.where(row, z.g_r, z.g_l),
        t_r=jnp.where(row, l, z.t_r),
        g_r=jnp.where(row, g_far, z.g_r),
        found=jnp.where(row, z.found + 1, z.found),
        lost=z.lost | lost,
    )


@partial(jax.jit, static_argnames=("width", "precision"))
def _kernel(
    oracle: Oracle, u: Any, v: Any, eps: Any, l: Any, budget: Any, width: int, precision: float
) -> _State:
    """The whole of Algorithm 1a where JAX runs, the victim traced inside."""

    def ask(t: jax.Array) -> jax.Array:  # [n] -> [n, d]
        return oracle(u[None] + jnp.outer(t, v)).gradient[:, 0].astype(jnp.float64)

    def one(t: jax.Array) -> jax.Array:
        return ask(t[None])[0]

    ends = ask(jnp.stack([-l, l]))
    return _search(one, ends, width, precision, eps, l, budget, lax.while_loop)


def _on_host(
    oracle: HostOracle, u: Any, v: Any, eps: Any, l: Any, budget: Any, width: int
) -> tuple[_State, float]:
    """The same search for a victim outside JAX, with the roundoff of its replies."""

    def while_loop(condition: Callable, body: Callable, z: _State) -> _State:
        while condition(z):
            z = body(z)
        return z

    def ask(t: jax.Array) -> Any:
        reply = oracle(u[None] + jnp.outer(t, v))
        check_scalar(reply.value.shape[1])
        return reply

    def one(t: jax.Array) -> jax.Array:
        return jnp.asarray(ask(t[None]).gradient[0, 0], jnp.float64)

    reply = ask(jnp.stack([-l, l]))
    ends = jnp.asarray(reply.gradient[:, 0], jnp.float64)
    precision = roundoff(reply.value.dtype, reply.gradient.dtype)
    return _search(one, ends, width, precision, eps, l, budget, while_loop), precision


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


# --- One layer --------------------------------------------------------------------------------


def learn_linear(oracle: AnyOracle, dim: int) -> tuple[np.ndarray, Cost]:
    """w [d] of f(x) = <w, x> from one gradient query (Introduction: w is the gradient anywhere).

    Our addition: one value at a fresh point, counted.  ValueError if it shows another model.
    """
    check_sizes(dim, 1)
    with jax.enable_x64(True):
        x, y = _generic(dim)
        value, w, rounding, cost = ask_gradient(oracle, x)
        (fresh,), _, fresh_cost = ask_values(oracle, y[None])
    for point, found in ((x, value), (y, fresh)):
        wrong = abs(found - w @ point)
        if wrong > 64 * rounding * np.linalg.norm(w) * np.linalg.norm(point):
            raise ValueError(f"the model is not <w, x>: a value is off by {wrong:.3g}")
    return w, cost + fresh_cost


def learn_logistic(
    oracle: AnyOracle, dim: int, x: np.ndarray | None = None
) -> tuple[np.ndarray, Cost]:
    """w [d] of f(x) = sigmoid(<w, x>) as gradient / (f (1 - f)) at x [d] (footnote 2).

    The paper's one gradient and one membership query are at the same point, so one reply
    answers both; the origin, the default, is where the sigmoid is steepest.  Our addition: one
    value at a fresh point, counted.  ValueError if f is saturated at x or is another model.
    """
    check_sizes(dim, 1)
    x = np.zeros(dim) if x is None else np.asarray(x, np.float64)
    if x.shape != (dim,):
        raise ValueError(f"x has shape {x.shape}, expected ({dim},)")
    with jax.enable_x64(True):
        value, gradient, rounding, cost = ask_gradient(oracle, x)
        steepness = value * (1 - value)
        if not steepness > 2 * rounding:
            raise ValueError(f"no gradient to read w from: f = {value!r} at x is saturated")
        w = gradient / steepness
        _, y = _generic(dim)
        if (length := np.linalg.norm(w)) > 0:  # <w, y> about 1, and not along w alone
            y = (w / length + y / np.linalg.norm(y)) / length
        (fresh,), _, fresh_cost = ask_values(oracle, y[None])
    wrong = abs(fresh - 1 / (1 + math.exp(-(w @ y))))
    if wrong > 64 * rounding / steepness:
        raise ValueError(f"the model is not sigmoid(<w, x>): a value is off by {wrong:.3g}")
    return w, cost + fresh_cost


def _generic(dim: int) -> np.ndarray:
    """Two points [2, d] in general position, always the same."""
    return np.asarray(jax.random.normal(jax.random.key(0), (2, dim), jnp.float64))


# --- Arguments and replies ---------------------------------------------------------------------


def settings(
    dim: int,
    width: int,
    delta: float,
    separation: float,
    eps: float | None,
    reach: float | None,
    budget: int | None,
) -> tuple[float, float]:
    """Checked (eps, l), by Theorem 2 where they are not given."""
    check_sizes(dim, width)
    default_eps, default_l = theorem2_constants(width, delta, separation)
    eps, l = default_eps if eps is None else eps, default_l if reach is None else reach
    if not (0 < eps < math.inf and 0 < l < math.inf):
        raise ValueError(f"eps {eps} and reach {l} must be positive and finite")
    if budget is not None and budget < 0:
        raise ValueError(f"budget {budget} must not be negative")
    return eps, l


def check_sizes(dim: int, width: int) -> None:
    """ValueError unless both are at least one."""
    if dim < 1 or width < 1:
        raise ValueError(f"dim {dim} and width {width} must be at least 1")


def check_scalar(outputs: int) -> None:
    """ValueError unless K = 1."""
    if outputs != 1:
        raise ValueError(f"the oracle answers K = {outputs} outputs; the paper's networks have one")


def kept_back(dim: int, width: int, budget: int | None) -> int | None:
    """What a budget leaves to the search once signs and certificate are paid for."""
    return None if budget is None else max(0, budget - 2 * width - certificate_size(width, dim))


def refusal(dim: int, width: int, left: int | None) -> Recovery | None:
    """The outcome where asking anything would be in vain: assumption 3, or no budget."""
    if width > dim:
        detail = f"{width} rows in {dim} dimensions cannot be independent; nothing was asked."
        return Recovery(None, Status.UNSOLVED, Cost(), detail=detail)
    if left is not None and left < 2:
        return Recovery(None, Status.BUDGET, Cost(), detail="Nothing was asked.")
    return None


def ask_values(oracle: AnyOracle, x: np.ndarray) -> tuple[np.ndarray, float, Cost]:
    """Checked values [n] of a scalar oracle at x [n, d], in float64; their roundoff and cost."""
    value = _values(oracle, x) if isinstance(oracle, Oracle) else oracle.value(x)
    value = check_values(np.asarray(value))
    check_scalar(value.shape[1])
    cost = Cost(values=len(x), numbers=len(x), rounds=1)
    return value[:, 0].astype(np.float64), roundoff(value.dtype), cost


def ask_gradient(oracle: AnyOracle, x: np.ndarray) -> tuple[float, np.ndarray, float, Cost]:
    """Checked value and gradient [d] of a scalar oracle at x [d]; their roundoff and cost."""
    reply = check(oracle(jnp.asarray(x)[None]), 1, len(x))
    check_scalar(reply.value.shape[1])
    rounding = roundoff(reply.value.dtype, reply.gradient.dtype)
    cost = Cost(gradients=1, numbers=1 + len(x), rounds=1)
    return float(reply.value[0, 0]), reply.gradient[0, 0].astype(np.float64), rounding, cost


@jax.jit
def _values(oracle: Oracle, x: jax.Array) -> jax.Array:
    return oracle.value(x)


def roundoff(*dtypes: Any) -> float:
    """The coarsest machine epsilon among the dtypes."""
    return max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
