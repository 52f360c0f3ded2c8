"""Recovery of two-layer ReLU networks from gradient queries: f(x) = W max(Ax + b, 0) + c.

`lines` finds the kinks along one random line, `units` reads the network off them, and
`certify` holds it against the victim on fresh queries; this module runs the three, for one
or many outputs, with biases or without, whatever the rows, the width known or not.
Where the certificate fails, the same line is searched again more carefully (`bracket`),
then a second line; a network that no certificate vouches for is never `ok`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from recon.exact import certify, lines, rounds, units
from recon.exact.lines import Settings, State
from recon.exact.recovery import Recovery, Status
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, Cost, HostOracle, Oracle, Reply, ReplyError, check

CERTIFIED = 1e3  # eps: the largest deviation that is still rounding
LINES = 2  # fresh lines before giving up; a kink beyond the ends of a line is rare
MOST = 1 << 15  # points on a line at most
MEMORY = 8 << 30  # bytes of replies kept at most
COARSE = 1e-4  # eps above which rounding is as large as units: half precision


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _search(s: Settings, oracle: Oracle, state: State) -> State:
    return rounds.in_jax(s, oracle, state)


@jax.jit
def _ask(oracle: Oracle, x: Array) -> Reply:
    return oracle(x)


_begin = jax.jit(lines.begin, static_argnums=0)
_unlike = jax.jit(lines.unlike, static_argnums=0)


def search(s: Settings, oracle: AnyOracle, state: State) -> tuple[Settings, State]:
    """Run the rounds to their end by the driver that fits the oracle, growing the arrays.

    Ends lines.FULL where the victim is plainly of another kind, or takes far too many points.
    """
    told = int(state.width)
    most = MOST if told < 0 else min(MOST, max(4096, 16 * told))
    while True:
        if isinstance(oracle, HostOracle):
            state = rounds.on_host(s, oracle, state)
        else:
            state = _search(s, oracle, state)
        bytes_grown = 2 * s.capacity * 8 * s.outputs * s.dim
        if int(state.phase) != lines.FULL or 2 * s.capacity > most or bytes_grown > MEMORY:
            return s, state
        if bool(_unlike(s, state)):
            return s, state
        s, state = rounds.twice(s), rounds.grow(s, state)


def ask(oracle: AnyOracle, x: np.ndarray) -> Reply:
    """Replies to x [n, d], jitted if the oracle is JAX; raises ReplyError."""
    if isinstance(oracle, HostOracle):
        return oracle(x)
    padded = np.pad(x, ((0, -len(x) % units.PADDING), (0, 0)), mode="edge")
    reply = Reply(*(np.asarray(a, np.float64)[: len(x)] for a in _ask(oracle, padded)))
    return check(reply, *x.shape)


def form(oracle: AnyOracle, dim: int) -> tuple[int, str, str, Cost]:
    """Outputs K, the dtype of queries, the dtype of replies, and what it cost to learn them.

    A JAX victim is asked in the dtype of its parameters, and costs nothing; one on the host
    is asked in float64, once at the origin beforehand.
    """
    if isinstance(oracle, HostOracle):
        reply = oracle(np.zeros((1, dim)))
        outputs = reply.value.shape[1]
        dtypes = [a.dtype for a in reply if jnp.issubdtype(a.dtype, jnp.floating)]
        coarsest = max(dtypes, key=lambda a: jnp.finfo(a).eps, default=np.dtype(np.float64))
        return outputs, "float64", str(coarsest), Cost(1, 0, outputs * (dim + 1), 1)
    leaves = [a.dtype for a in jax.tree.leaves(oracle.params) if hasattr(a, "dtype")]
    floats = [a for a in leaves if jnp.issubdtype(a, jnp.floating)]
    with jax.numpy_dtype_promotion("standard"):
        asked = str(jnp.result_type(*floats)) if floats else "float64"
    shape = jax.eval_shape(oracle, jax.ShapeDtypeStruct((1, dim), asked))
    if shape.value.ndim != 2 or shape.gradient.shape[1:] != (shape.value.shape[1], dim):
        raise ReplyError(
            f"f must map [{dim}] to [K] or a scalar; one query gives values of shape "
            f"{shape.value.shape} and gradients of shape {shape.gradient.shape}"
        )
    return shape.value.shape[1], asked, str(shape.value.dtype), Cost()


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
    to ask, certificate included, else some 30,000 where the victim does not fit.  Any number of
    outputs, biases or none, any rows.

    Returns a Recovery; `ok` only if the certificate on fresh queries holds.  Raises
    ReplyError for replies that are not finite or of the wrong shape, ValueError for
    arguments that make no sense, and lets an oracle's own exceptions through.
    """
    for name, number, least in (("dim", dim, 1), ("width", width, 1), ("budget", budget, 0)):
        if number is None and name != "dim":
            continue
        if not isinstance(number, (int, np.integer)) or number < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {number!r}")
    with jax.enable_x64(True):
        return _recover(oracle, dim, key, width, budget)


def _recover(
    oracle: AnyOracle, dim: int, key: Any, width: int | None, budget: int | None
) -> Recovery:
    if budget is not None and budget < 1:
        return Recovery(None, Status.BUDGET, Cost(), detail="The budget allows no query.")
    outputs, dtype, replies, cost = form(oracle, dim)
    if isinstance(oracle, HostOracle):
        oracle = replace(oracle, outputs=outputs)
    eps = float(max(jnp.finfo(dtype).eps, jnp.finfo(replies).eps))
    if eps > COARSE:
        return _too_coarse(oracle, dim, dtype, replies, cost)
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
            cost = before + _asked(s, int(state.queries), int(state.rounds))
            if int(state.phase) == lines.FAULT:
                row = f"query row {int(state.fault)} of {int(state.queries)}"
                raise ReplyError(f"{row} on the line: the reply is not finite")
            network, count, error = units.read_off(s, state)
            found = f"Units found: {count}."
            if int(state.phase) != lines.DONE:
                status = Status.BUDGET if int(state.phase) == lines.SPENT else Status.NOISY
                seen = found if status is Status.BUDGET else f"Kinks seen: {count}."
                return Recovery(units.trim(network, count), status, cost, detail=seen)
            far_key, check_key = jax.random.split(check_key)
            far, x = units.far_points(s, state, network, error, far_key)
            if 0 < len(far) <= limit - cost.queries:
                network = units.sharpen(network, far, x, ask(oracle, x.astype(s.dtype)))
                before, cost = before + _asked(s, len(x)), cost + _asked(s, len(x))
            expected = width is None or width == count
            sure = expected and count > certify.FEW
            missing = count == 0 or (width is not None and count < width)
            unsure = certify.NORMAL_IF_MISSING if missing else certify.NORMAL_IF_OTHER_WIDTH
            normal = certify.NORMAL if sure else unsure
            line = (state.u, state.v, state.scale)
            x = certify.points(check_key, network, count, s.eps, normal, *line).astype(s.dtype)
            if cost.queries + len(x) > limit:
                detail = f"{found} The certificate needs {len(x)} queries more."
                network = units.trim(network, count)
                return Recovery(network, Status.BUDGET, cost, detail=detail)
            worst = float(certify.deviation(network, x, ask(oracle, x), state.scale))
            before, cost = before + _asked(s, len(x)), cost + _asked(s, len(x))
            network = units.trim(network, count)
            if worst <= CERTIFIED * s.eps:
                status = Status.RECOVERED if expected else Status.OTHER_WIDTH
                return Recovery(network, status, cost, worst, "" if expected else found)
            outcome = Recovery(network, Status.UNCERTIFIED, cost, worst, found)
            state = rounds.bracket(s, state, limit - before.queries)
    return outcome


def _too_coarse(oracle: AnyOracle, dim: int, dtype: str, replies: str, cost: Cost) -> Recovery:
    """Refusal of half precision, with the tangent at the origin for a network."""
    reply = ask(oracle, np.zeros((1, dim), dtype))
    value, gradient = (np.asarray(a, np.float64)[0] for a in reply)
    none = np.zeros((0, dim))
    tangent = TwoLayer(none, none[:, 0], np.zeros((len(value), 0)), gradient, value)
    detail = (
        f"Asked in {dtype}, answered in {replies}: too few digits to tell units from rounding. "
        "Ask the model in float32, its parameters cast to float32."
    )
    cost = cost + Cost(1, 0, gradient.size + len(value), 1)
    return Recovery(tangent, Status.UNCERTIFIED, cost, detail=detail)


def _asked(s: Settings, queries: int, rounds: int = 1) -> Cost:
    return Cost(queries, 0, queries * s.outputs * (s.dim + 1), rounds)
