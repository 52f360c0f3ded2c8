"""Algorithm 1a of Milli et al. (2019): rows up to sign, by binary search along a line.

The printed order, one search after the other.  What is not in print is our own:

- Replies at points already asked are kept, so the search asks one gradient query for each new
  midpoint, and two for the ends of the line.  That is the fair count of Algorithm 1a.
- "Norm > 0" is exact only where the gradient is bit-identical within a cell.  Here a change
  counts above 16 sqrt(h) roundoffs of the larger gradient at the ends of the line, the roundoff
  being the machine epsilon of the replies' dtype.
- Rounding blurs a kink at t by about a roundoff in the angle arctan t.  A binary search
  therefore also ends at roundoff^(2/3) in that angle, even where eps asks for less.
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

from recon.exact.asking import (
    check_scalar,
    check_sizes,
    jax_key,
    roundoff,
)
from recon.exact.recovery import Status
from recon.oracles import AnyOracle, Cost, Oracle, ReplyError


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
        u, v = jax.random.normal(jax_key(key), (2, dim), jnp.float64)
        line = (u, v, jnp.float64(eps), jnp.float64(l), jnp.int64(limit))
        if oracle.traced:
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
    oracle: AnyOracle, u: Any, v: Any, eps: Any, l: Any, budget: Any, width: int
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
