"""From the kinks of an ended search to the units of a network.

Each kink's jump J = g_r - g_l = w n^T (rank one) and intercept o = w b are a unit, and the
tangent at the cell nearest the origin is the rest.  With every unit oriented so that it is
off in that cell,

    f(x) = slope x + offset + sum_i w_i max(n_i x + b_i, 0)

exactly, whatever the signs of the victim's own weights: no linear program and no value
queries (Algorithm 1b) are needed for the signs, and rows need not be independent.  Units
that share a hyperplane, antiparallel ones too, are one kink; what they add up to elsewhere
is in `slope`.  Orienting away from the origin also keeps the rounding errors of far units
out of the values near it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from recon.exact import lines
from recon.exact.lines import Settings, State
from recon.networks import TwoLayer
from recon.oracles import Reply

PADDING = 32  # arrays whose length is found out are padded to multiples, to compile seldom
BLURRED = 512.0  # eps: an intercept's error above which it is measured again nearer the origin


@partial(jax.jit, static_argnums=0)
def _kinks(s: Settings, state: State) -> tuple[lines.Intervals, Array]:
    return lines.intervals(s, state), jnp.argmin(jnp.abs(state.angle))


@jax.jit
def _units(state: State, left: Array, right: Array, real: Array, home: Array) -> TwoLayer:
    inward = state.angle[right] <= state.angle[home]
    sign = jnp.where(inward, -1.0, 1.0)
    jump = (state.gradient[right] - state.gradient[left]) * sign[:, None, None]
    offset, _ = lines.intercepts(state)
    home_offset = offset[home]
    offset = (offset[right] - offset[left]) * sign[:, None]
    peak = jnp.max(jnp.abs(jump), (1, 2))  # so that squares neither overflow nor vanish
    peak = jnp.where(peak > 0, peak, 1.0)[:, None]
    jump, offset = jump / peak[:, :, None], offset / peak
    row = jnp.einsum("hkd,hk->hd", jump, jump @ state.v)
    size = jnp.linalg.norm(row, axis=1)
    size = jnp.where(size > 0, size, 1.0)  # a shift of the intercept alone is no unit
    row = row * (jnp.where((row @ state.v > 0) == inward, -1.0, 1.0) / size)[:, None]
    weight = jnp.einsum("hkd,hd->hk", jump, row)
    square = jnp.sum(weight**2, 1)
    bias = jnp.sum(weight * offset, 1) / jnp.where(square > 0, square, 1.0)
    weight = jnp.where(real[:, None], weight * peak, 0.0)
    return TwoLayer(row, bias, weight.T, state.gradient[home], home_offset)


def read_off(s: Settings, state: State) -> tuple[TwoLayer, int, np.ndarray]:
    """The network of an ended search, padded with units of weight 0; how many units are real;
    and the rounding error [h] of each one's intercept w b, as it enters the values.
    """
    iv, home = _kinks(s, state)
    left, right = np.asarray(iv.left)[iv.kink], np.asarray(iv.right)[iv.kink]
    count = len(left)
    missing = (0, -count % PADDING or (PADDING if count == 0 else 0))
    noise = np.asarray(lines.intercepts(state)[1])
    error = noise[left] + noise[right]
    real = np.pad(np.ones(count, bool), missing)
    network = _units(state, np.pad(left, missing), np.pad(right, missing), real, home)
    unit = np.zeros_like(network.rows[:1])
    unit[0, 0] = 1.0  # rows of padding must be unit rows too
    rows = jnp.where(real[:, None], network.rows, unit)
    return replace(network, rows=rows, bias=jnp.where(real, network.bias, 1.0)), count, error


def trim(network: TwoLayer, count: int) -> TwoLayer:
    """The network without its padding, in NumPy arrays."""
    rows, bias, weights, slope, offset = (np.asarray(a) for a in jax.tree.leaves(network))
    return TwoLayer(rows[:count], bias[:count], weights[:, :count], slope, offset)


def far_points(
    s: Settings, state: State, network: TwoLayer, error: np.ndarray, key: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Units [m] whose kink lay far out on the line, and a query [m, d] near the origin for each.

    Replies from a distance r carry errors in proportion to r, which go into the bias of a
    unit met there.  At its own query such a unit is on and the others of them off, so that
    the deviation of the value is the error of its intercept.
    """
    near = float(jnp.linalg.norm(state.u))
    bias = np.asarray(network.bias)[: len(error)]
    poor = error > BLURRED * s.eps * float(state.scale) * near
    (far,) = np.nonzero(poor & (np.abs(bias) < near))
    rows, bias = np.asarray(network.rows)[far], bias[far]
    some = len(far) + -len(far) % PADDING
    x = np.asarray(jax.random.normal(key, (some, s.dim), jnp.float64))[: len(far)]
    target = 2 * np.eye(len(far)) - 1
    return far, x + (target - bias - x @ rows.T) @ np.linalg.pinv(rows).T


def sharpen(network: TwoLayer, far: np.ndarray, x: np.ndarray, reply: Reply) -> TwoLayer:
    """The network with the biases of the units `far` corrected by the replies to far_points."""
    rows, bias = np.asarray(network.rows)[far], np.array(network.bias)
    weights = np.asarray(network.weights)[:, far]
    on = x @ rows.T + bias[far] > 0
    system = np.einsum("nm,km->nkm", on, weights).reshape(-1, len(far))
    deviation = np.asarray(reply.value) - np.asarray(network(x))
    bias[far] += np.linalg.lstsq(system, deviation.reshape(-1))[0]
    return replace(network, bias=jnp.asarray(bias))
