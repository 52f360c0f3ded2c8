"""Presumed single kinks of a search, touched in groups: which points, and what the answers tell.

`touch` is the linear algebra; here it meets the state of the search.  Two queries test a group.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from recon.exact import arrays, lines, touch
from recon.exact.arrays import Array, namespace
from recon.exact.lines import Settings, State


def mixed(state: State, points: Array) -> Array:
    """The gradients [..., d] at points of the outputs, summed with `mix`."""
    return state.gradient[points, 0] if state.gradient.shape[1] == 1 else state.mixed[points]


def rows_of(state: State, members: Array) -> tuple[Array, Array, Array, Array]:
    """Oriented unit rows [s, d], biases, jump sizes and validity of presumed single kinks [s, 2].

    The outputs are mixed with fixed random weights into one; a row points along the line.
    """
    xp = namespace(members)
    left, right = members[:, 0], members[:, 1]
    jump = mixed(state, right)
    jump -= mixed(state, left)
    offset, _ = lines.intercepts(state)
    offset = (offset[right] - offset[left]) @ state.mix
    size = xp.sqrt(arrays.squares(jump))
    size = xp.where(left < 0, 1.0, xp.where(size > 0, size, 1.0))
    sign = xp.where(jump @ state.v < 0, -1.0, 1.0) / size
    jump *= sign[:, None]
    return jump, offset * sign, 1 / sign, left >= 0


def plan(s: Settings, state: State) -> State:
    """The points that touch each group of presumed kinks, and which members they do touch."""
    xp = namespace(state.angle)
    key, draw_key = arrays.split(state.key, 2)
    directions = arrays.normal(draw_key, (s.groups, s.dim))
    radius = s.reach * xp.linalg.norm(state.v)

    def one(g: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        points, members, factors = carry
        rows, bias, size, valid = rows_of(state, members[g])
        rows, keep, inverse = touch.factor(rows, valid)
        margin = lines.ROUNDING * s.eps * xp.maximum(state.scale / xp.abs(size), 16.0)
        level = xp.where(keep, xp.minimum(margin, 1e-2) * radius - bias, 0.0)
        along = directions[g][None]
        pair = touch.pairs(along, rows, inverse, level[None], radius[None])[0]
        points = arrays.put(points, g, pair)
        members = arrays.put(members, g, xp.where(keep[:, None], members[g], -1))
        return points, members, arrays.put(factors, g, inverse)

    carry = (state.points, state.members, state.inverse)
    points, members, factors = arrays.loop(state.touches, one, carry, apart=s.large)
    return state._replace(key=key, points=points, members=members, inverse=factors)


def learn(s: Settings, state: State) -> State:
    """Tell single kinks from several by the answers at the touching points."""
    xp = namespace(state.angle)
    first = xp.argmin(state.angle)
    last = xp.argmax(xp.where(state.angle < np.inf, state.angle, -np.inf))
    both_ends = mixed(state, first) + mixed(state, last)
    level = lines.ROUNDING * s.eps * state.scale * xp.linalg.norm(state.mix)

    def one(g: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        single, multi, failed = carry
        rows, _, size, touched = rows_of(state, state.members[g])
        if xp is jnp or not touched.all():
            rows = xp.where(touched[:, None], rows, 0.0)
        found = state.answers[g].sum(0) - both_ends
        z = touch.coefficients(rows, state.inverse[g], found)
        explained = xp.linalg.norm(found - z @ rows) <= 1e3 * level
        one_kink = xp.abs(z / size - 1) < 1e-2
        to = xp.where(touched & explained, state.members[g, :, 0], len(single))
        single = arrays.put(single, to, one_kink)
        multi = arrays.put(multi, to, ~one_kink)
        return single, multi, arrays.put(failed, g, ~(explained & touched.any()))

    carry = (state.single, state.multi, xp.zeros(s.groups, bool))
    single, multi, failed = arrays.loop(state.touches, one, carry, apart=s.large)
    return state._replace(
        single=single,
        multi=multi,
        failed=state.failed + failed.sum(),
        queries=state.queries + 2 * state.touches,
    )
