"""Recovery of two-layer ReLU networks by tangents: f(x) = W max(Ax + b, 0) + c and more.

`lines` finds the kinks along one random line; this module reads the network off them.
Each kink's jump J = g_r - g_l = w n^T (rank one) and intercept o = w b are a unit, and the
tangent at the cell nearest the origin is the rest: with every unit oriented so that it is
off in that cell,

    f(x) = slope x + offset + sum_i w_i max(n_i x + b_i, 0)

exactly, whatever the signs of the victim's own weights.  So the signs need no linear
program and no value queries (Algorithm 1b), and rows need not be independent: biases,
K outputs, h > d and antiparallel rows (one hyperplane, one kink, the rest in `slope`)
come out by the same reading.  Orienting away from the origin also keeps the rounding
errors of far units out of the values near it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from recon.exact import certify, lines
from recon.exact.lines import Settings, State
from recon.exact.recovery import Recovery, Status
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, Cost, HostOracle, Oracle, Reply, ReplyError

CERTIFIED = 2e4  # eps: the largest deviation that is still rounding
LINES = 2  # fresh lines before giving up; a kink beyond the ends of a line is rare
MOST = 1 << 17  # points on a line at most, unless a budget is given
MEMORY = 8 << 30  # bytes of replies kept at most


@partial(jax.jit, static_argnums=0)
def kinks(s: Settings, state: State) -> tuple[lines.Intervals, Array]:
    """The intervals in order, and the point nearest the origin along the line."""
    return lines.intervals(s, state), jnp.argmin(jnp.abs(state.angle))


@jax.jit
def units(state: State, left: Array, right: Array, home: Array) -> TwoLayer:
    """The network whose kinks lie between the points left [h] and right [h]."""
    inward = state.angle[right] <= state.angle[home]
    sign = jnp.where(inward, -1.0, 1.0)
    jump = (state.gradient[right] - state.gradient[left]) * sign[:, None, None]
    offset = (state.offset[right] - state.offset[left]) * sign[:, None]
    row = jnp.einsum("hkd,hk->hd", jump, jump @ state.v)
    size = jnp.linalg.norm(row, axis=1)
    row = row * (jnp.where((row @ state.v > 0) == inward, -1.0, 1.0) / size)[:, None]
    weight = jnp.einsum("hkd,hd->hk", jump, row)
    bias = jnp.sum(weight * offset, 1) / jnp.sum(weight**2, 1)
    return TwoLayer(row, bias, weight.T, state.gradient[home], state.offset[home])


def read_off(s: Settings, state: State) -> TwoLayer:
    """The network that the kinks of an ended search make."""
    iv, home = kinks(s, state)
    (which,) = np.nonzero(np.asarray(iv.kink))
    padded = np.pad(which, (0, -len(which) % 32), mode="edge") if len(which) else which
    network = units(state, iv.left[padded], iv.right[padded], home)
    n = len(which)
    return TwoLayer(
        network.rows[:n], network.bias[:n], network.weights[:, :n], network.slope, network.offset
    )


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _search(s: Settings, oracle: Oracle, state: State) -> State:
    return lines.in_jax(s, oracle, state)


@jax.jit
def _ask(oracle: Oracle, x: Array) -> Reply:
    return oracle(x)


_begin = jax.jit(lines.begin, static_argnums=0)


def search(s: Settings, oracle: AnyOracle, state: State) -> tuple[Settings, State]:
    """Run the rounds to their end by the driver that fits the oracle, growing the arrays."""
    while True:
        if isinstance(oracle, HostOracle):
            state = lines.on_host(s, oracle, state)
        else:
            state = _search(s, oracle, state)
        bytes_grown = 2 * s.capacity * 8 * s.outputs * s.dim
        if int(state.phase) != lines.FULL or 2 * s.capacity > MOST or bytes_grown > MEMORY:
            return s, state
        s, state = lines.twice(s), lines.grow(s, state)


def ask(oracle: AnyOracle, x: Array) -> Reply:
    """Replies to x [n, d], jitted if the oracle is JAX; raises ReplyError."""
    if isinstance(oracle, HostOracle):
        return Reply(*(jnp.asarray(a, jnp.float64) for a in oracle(np.asarray(x))))
    value, gradient = _ask(oracle, x)
    for row, fine in enumerate(np.isfinite(value).all(1) & np.isfinite(gradient).all((1, 2))):
        if not fine:
            raise ReplyError(f"query row {row} of the certificate: the reply is not finite")
    return Reply(value.astype(jnp.float64), gradient.astype(jnp.float64))


def form(oracle: AnyOracle, dim: int) -> tuple[int, str, str, Cost]:
    """Outputs K, the dtype of queries, the dtype of replies, and what it cost to learn them.

    A JAX victim is asked in the dtype of its parameters, and costs nothing; one on the host
    is asked once, at the origin, in float64.
    """
    if isinstance(oracle, HostOracle):
        reply = oracle(np.zeros((1, dim)))
        outputs = reply.value.shape[1]
        dtype = np.result_type(reply.value, reply.gradient, np.float32)
        return outputs, "float64", str(dtype), Cost(1, 0, outputs * (dim + 1), 1)
    leaves = [np.dtype(a.dtype) for a in jax.tree.leaves(oracle.params) if hasattr(a, "dtype")]
    floats = [a for a in leaves if np.issubdtype(a, np.floating)]
    dtype = str(np.result_type(*floats)) if floats else "float64"
    shape = jax.eval_shape(oracle, jax.ShapeDtypeStruct((1, dim), dtype))
    if shape.value.ndim != 2 or shape.gradient.shape[1:] != (shape.value.shape[1], dim):
        raise ReplyError(
            f"f must map [{dim}] to [K] or a scalar; one query gives values of shape "
            f"{shape.value.shape} and gradients of shape {shape.gradient.shape}"
        )
    return shape.value.shape[1], dtype, str(shape.value.dtype), Cost()


def recover(
    oracle: AnyOracle,
    *,
    dim: int,
    key: Any,
    width: int | None = None,
    budget: int | None = None,
) -> Recovery:
    """Recover a two-layer ReLU network of `dim` inputs from gradient queries.

    oracle: `oracles.from_jax` or `oracles.from_host`; key: a JAX key, consumed; width: the
    number of hidden units if known (it saves queries and is checked); budget: most queries
    to ask, certificate included.  Any number of outputs, biases or none, any rows.

    Returns a Recovery; `ok` only if the certificate on fresh queries holds.  Raises
    ReplyError for replies that are not finite or of the wrong shape, ValueError for
    arguments that make no sense, and lets an oracle's own exceptions through.
    """
    for name, number, least in (("dim", dim, 1), ("width", width, 1), ("budget", budget, 0)):
        if number is not None and (number != int(number) or number < least):
            raise ValueError(f"{name} must be a whole number of at least {least}, not {number}")
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        return _recover(oracle, dim, key, width, budget)


def _recover(
    oracle: AnyOracle, dim: int, key: Any, width: int | None, budget: int | None
) -> Recovery:
    if budget is not None and budget < 1:
        return Recovery(None, Status.BUDGET, Cost(), detail="The budget allows no query.")
    outputs, dtype, replies, cost = form(oracle, dim)
    eps = float(max(jnp.finfo(dtype).eps, jnp.finfo(replies).eps))
    capacity = 256 if width is None else -(-int(1.7 * width + 64) // 128) * 128
    settings = Settings(dim, outputs, capacity, dtype, eps)
    limit = np.iinfo(np.int32).max if budget is None else budget
    outcome = Recovery(None, Status.BUDGET, cost)
    for line_key in jax.random.split(key, LINES):
        begin_key, *check_keys = jax.random.split(line_key, 3)
        s, left = settings, limit - cost.queries
        state = _begin(s, begin_key, -1 if width is None else width, left)
        before = cost  # of other lines, and of certificates
        for check_key in check_keys:
            s, state = search(s, oracle, state)
            cost = before + _paid(s, state)
            if int(state.phase) == lines.FAULT:
                row = f"query row {int(state.fault)} of {int(state.queries)}"
                raise ReplyError(f"{row} on the line: the reply is not finite")
            network = read_off(s, state)
            if int(state.phase) != lines.DONE:
                status = Status.BUDGET if int(state.phase) == lines.SPENT else Status.NOISY
                return Recovery(network, status, cost, detail=_found(network))
            x = fresh_points(s, state, network, width, check_key)
            if cost.queries + len(x) > limit:
                detail = f"{_found(network)} The certificate needs {len(x)} queries more."
                return Recovery(network, Status.BUDGET, cost, detail=detail)
            worst = float(certify.deviation(network, x, ask(oracle, x), state.scale))
            check = Cost(len(x), 0, len(x) * s.outputs * (s.dim + 1), 1)
            before, cost = before + check, cost + check
            outcome = verdict(s, network, width, cost, worst)
            if outcome.ok:
                return outcome
            state = lines.bracket(s, state._replace(budget=limit - before.queries))
    return outcome


def fresh_points(
    s: Settings, state: State, network: TwoLayer, width: int | None, key: Array
) -> Array:
    """The certificate's queries [n, d]; more of them where the width told is not the one found."""
    expected = width is None or network.width == width
    normal = certify.NORMAL if expected else certify.NORMAL_IF_OTHER_WIDTH
    return certify.points(key, network, s.eps, normal, state.u, state.v, state.scale).astype(s.dtype)


def verdict(
    s: Settings, network: TwoLayer, width: int | None, cost: Cost, worst: float
) -> Recovery:
    """What a certificate whose largest deviation is `worst` says."""
    if not worst <= CERTIFIED * s.eps:
        return Recovery(network, Status.UNCERTIFIED, cost, worst, _found(network))
    if width is None or network.width == width:
        return Recovery(network, Status.RECOVERED, cost, worst)
    return Recovery(network, Status.OTHER_WIDTH, cost, worst, _found(network))


def _found(network: TwoLayer) -> str:
    return f"Units found: {network.width}."


def _paid(s: Settings, state: State) -> Cost:
    queries = int(state.queries)
    return Cost(queries, 0, queries * s.outputs * (s.dim + 1), int(state.rounds))
