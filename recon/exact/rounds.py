"""Rounds of queries along a line: a state machine without input or output, and its drivers.

A round is `plan` (what to ask next), `queries` and `store` (ask, and keep the replies) and
`absorb` (what they say); all are pure.  `in_jax` runs the rounds in `lax.while_loop` with
the victim traced inside, `on_host` asks a victim that is not JAX.  The search ends when no
interval is in doubt or, with the width known, when it has that many kinks.

Measured (results/queries): about 1.5 queries a unit in 10-20 rounds, where bisection
(Algorithm 1a) takes 36-45 a unit, one after the other.
"""

from __future__ import annotations

from functools import partial, reduce
from operator import or_

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from recon.exact import lines, touch
from recon.exact.lines import Settings, State
from recon.oracles import HostOracle, Oracle, Reply

CROWDED = 2.0  # expected kinks near the meeting point above which an interval is split unasked
GRID = 128  # points a line is searched with, at least, where units told are missing
ENOUGH = 16  # presumed single kinks for which a touch (two queries) is worth while


def plan(s: Settings, state: State) -> State:
    """What to ask next, from all that is known; ends the search when nothing is left to ask."""
    iv = lines.intervals(s, state)
    width = iv.high - iv.low
    # a reply from far out has a poor intercept: ask nearer, so that the kink is placed well
    far = (jnp.cos(iv.meet) > 16 * jnp.cos(end) for end in (iv.low, iv.high))
    distant = reduce(or_, far) & state.biased
    by_one = state.failed >= lines.FAILED_TOUCHES  # bracketed, which cannot go below the blur
    blurred = by_one & ~distant & ~state.multi[iv.left]
    narrow = width <= lines.resolution(s) + jnp.where(blurred, 16 * iv.blur, 0.0)
    open_ = iv.kink & ~state.single[iv.left] & ~narrow
    rate = jnp.where(state.width < 0, lines.density(iv), state.width.astype(float) / jnp.pi)
    near = jnp.minimum(iv.meet - iv.low, iv.high - iv.meet)
    crowd = rate * (near + 0.25 * (width - near))
    inside = (iv.meet > iv.low - iv.blur) & (iv.meet < iv.high + iv.blur)
    multi = open_ & (state.multi[iv.left] | ~inside | (crowd > CROWDED))
    multi = multi | (open_ & by_one)
    coarse = iv.kink & ~narrow & inside & distant
    enough = (jnp.sum(iv.kink) == state.width) & ~jnp.any(coarse)
    split = (multi | coarse) & ~enough
    presumed = open_ & ~split & ~enough
    # units are missing and no interval is in doubt: kinks that cancel hide in an empty one
    missing = (jnp.sum(iv.kink) < state.width) & ~jnp.any(split | presumed)
    split = split | (missing & ~iv.kink & (width > jnp.pi / jnp.maximum(GRID, 2 * state.width)))
    touching = jnp.any(presumed) & ((jnp.sum(presumed) >= ENOUGH) | ~jnp.any(split))

    left_over = state.budget - state.queries
    (chosen,) = jnp.nonzero(split, size=s.capacity, fill_value=s.capacity - 1)
    size = jnp.minimum(jnp.sum(split), left_over)
    slot = jnp.arange(s.capacity)
    used = slot < size
    place = jnp.append(lines.split_at(s, state, iv, coarse), 0.0)[chosen]
    parent = jnp.where(used, jnp.append(iv.left, -1)[chosen], -1)
    after = jnp.where(used, jnp.append(iv.right, -1)[chosen], -1)
    new = jnp.where(used, state.filled + slot, -1)
    pairs = jnp.concatenate([jnp.stack([parent, new], 1), jnp.stack([new, after], 1)])

    state = state._replace(size=size, place=place, parent=parent, pairs=pairs)
    group = max(s.group, 1)
    groups = jnp.where(touching, -(-jnp.sum(presumed) // group), 0)
    groups = jnp.minimum(jnp.minimum(groups, s.groups), (left_over - size) // 2)
    (chosen,) = jnp.nonzero(presumed, size=s.groups * group, fill_value=s.capacity - 1)
    members = jnp.append(iv.left, -1)[chosen].reshape(s.groups, group)
    after = jnp.append(iv.right, -1)[chosen].reshape(s.groups, group)
    state = state._replace(touches=groups, members=members)
    state = plan_touches(s, state, after)

    nothing = (size == 0) & (groups == 0)
    wanted = jnp.any(split) | touching
    phase = jnp.where(nothing, jnp.where(wanted, lines.SPENT, lines.DONE), lines.RUNNING)
    full = state.filled + size > s.capacity
    return state._replace(phase=jnp.where(full, lines.FULL, phase))


def presumed_rows(state: State, left: Array, right: Array) -> tuple[Array, Array, Array, Array]:
    """Oriented unit rows [s, d], biases, jump sizes and validity of presumed single kinks.

    The outputs are mixed with fixed random weights into one; a row points along the line.
    """
    jump = jnp.einsum("k,skd->sd", state.mix, state.gradient[right] - state.gradient[left])
    offset, _ = lines.intercepts(state)
    offset = (offset[right] - offset[left]) @ state.mix
    size = jnp.linalg.norm(jump, axis=1)
    size = jnp.where(left < 0, 1.0, jnp.where(size > 0, size, 1.0))
    sign = jnp.where(jump @ state.v < 0, -1.0, 1.0) / size
    return jump * sign[:, None], offset * sign, 1 / sign, left >= 0


def plan_touches(s: Settings, state: State, after: Array) -> State:
    """The points that touch each group of presumed kinks, and which members they do touch."""
    keys = jax.random.split(state.key, s.groups + 1)
    radius = s.reach * jnp.linalg.norm(state.v)

    def one(g: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        points, members, factors = carry
        rows, bias, size, valid = presumed_rows(state, members[g], after[g])
        rows, keep, inverse = touch.factor(rows, valid)
        margin = lines.ROUNDING * s.eps * jnp.maximum(state.scale / jnp.abs(size), 16.0)
        level = jnp.where(keep, jnp.minimum(margin, 1e-2) * radius - bias, 0.0)
        pair = touch.touch(keys[g + 1], rows, inverse, level, radius)
        points = lax.dynamic_update_slice(points, pair, (2 * g, jnp.zeros_like(g)))
        members = members.at[g].set(jnp.where(keep, members[g], -1))
        return points, members, factors.at[g].set(inverse)

    carry = (state.points, state.members, state.inverse)
    points, members, factors = lax.fori_loop(0, state.touches, one, carry)
    return state._replace(key=keys[0], points=points, members=members, inverse=factors)


def queries(s: Settings, state: State, chunk: Array, size: int) -> Array:
    """One chunk [size, d] of the round's queries, in the query dtype.

    Points on the line come first, then touching points; padding repeats the last of them, so
    that a victim traced inside sees no point that is not in the cost.
    """
    last = state.size + 2 * state.touches - 1
    slot = jnp.minimum(chunk * size + jnp.arange(size), last)
    t = jnp.tan(state.place[slot % s.capacity])
    on_line = state.u[None] + t[:, None] * state.v[None]
    off = state.points[jnp.clip(slot - state.size, 0, 2 * s.groups - 1)]
    return jnp.where((slot < state.size)[:, None], on_line, off).astype(s.dtype)


def store(s: Settings, state: State, chunk: Array, x: Array, reply: Reply) -> State:
    """Keep the replies to one chunk of queries x [size, d]."""
    slot = chunk * x.shape[0] + jnp.arange(x.shape[0])
    on_line = slot < state.size
    asked = slot < state.size + 2 * state.touches
    x, value, gradient = (jnp.asarray(a, jnp.float64) for a in (x, reply.value, reply.gradient))
    bad = asked & ~(jnp.isfinite(value).all(1) & jnp.isfinite(gradient).all((1, 2)))
    row = jnp.where(bad.any(), state.queries + slot[jnp.argmax(bad)], -1)
    size = jnp.linalg.norm(gradient, axis=2)
    offset = value - jnp.einsum("nkd,nd->nk", gradient, x)
    largest = jnp.max(jnp.where(on_line, jnp.linalg.norm(size, axis=1), 0.0))
    scale = jnp.maximum(state.scale, largest)  # of the terms a gradient sums, as far as seen
    rounding = 16 * s.eps * (jnp.abs(value) + scale * jnp.linalg.norm(x, axis=1)[:, None])
    biased = (on_line[:, None] & (jnp.abs(offset) > rounding)).any()
    along = jnp.stack([gradient @ state.u, gradient @ state.v], 1)
    to = jnp.where(on_line, state.filled + slot, s.capacity)  # out of bounds: dropped
    answer = jnp.where(asked & ~on_line, slot - state.size, 2 * s.groups)
    return state._replace(
        angle=state.angle.at[to].set(state.place[slot % s.capacity], mode="drop"),
        gradient=state.gradient.at[to].set(gradient, mode="drop"),
        offset=state.offset.at[to].set(offset, mode="drop"),
        along=state.along.at[to].set(along, mode="drop"),
        noise=state.noise.at[to].set(rounding.max(1), mode="drop"),
        biased=state.biased | biased,
        answers=state.answers.at[answer].set(
            jnp.einsum("k,nkd->nd", state.mix, gradient), mode="drop"
        ),
        scale=scale,
        fault=jnp.where(state.fault < 0, row, state.fault),
    )


def settle(s: Settings, state: State) -> State:
    """Draw the conclusions from the points of this round."""
    n, chunk = s.capacity, s.chunk
    filled = jnp.stack([state.size, n + state.size])

    def one(i: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        here = lax.dynamic_slice_in_dim(state.pairs, i * chunk, chunk)
        return jax.tree.map(
            lambda all_, part: lax.dynamic_update_slice_in_dim(all_, part, i * chunk, 0),
            found,
            lines.compare(s, state, here),
        )

    found = (jnp.zeros(2 * n, bool), jnp.zeros(2 * n, bool), jnp.zeros(2 * n))
    for start, stop in ((0, filled[0]), (n, filled[1])):
        found = lax.fori_loop(start // chunk, -(-stop // chunk), one, found)
    jump, several, step = found
    used = state.pairs[:, 0] >= 0
    owner = jnp.where(used, state.pairs[:, 0], n)
    parent = jnp.concatenate([state.parent, state.parent])
    # the half that changes nothing passes what was known of the interval to the other half
    sibling = jnp.concatenate([jump[n:], jump[:n]])
    inherits = (parent >= 0) & jump & ~sibling
    inherited = jnp.where(inherits, state.tries[parent] + 1, 0)
    multi = several | (inherits & state.multi[parent])
    return state._replace(
        jump=state.jump.at[owner].set(jump & used, mode="drop"),
        multi=state.multi.at[owner].set(multi & used, mode="drop"),
        single=state.single.at[owner].set(inherits & state.single[parent], mode="drop"),
        tries=state.tries.at[owner].set(inherited, mode="drop"),
        scale=jnp.maximum(state.scale, jnp.max(step)),  # units may cancel in every gradient
        filled=state.filled + state.size,
        queries=state.queries + state.size,
    )


def learn_touches(s: Settings, state: State) -> State:
    """Tell single kinks from several by the answers at the touching points."""
    order = jnp.argsort(state.angle)
    following = jnp.zeros(s.capacity, int).at[order[:-1]].set(order[1:])
    ends = state.gradient[order[0]] + state.gradient[order[jnp.maximum(state.filled - 1, 0)]]
    both_ends = state.mix @ ends
    level = lines.ROUNDING * s.eps * state.scale * jnp.linalg.norm(state.mix)

    def one(g: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        single, multi, failed = carry
        left = state.members[g]
        rows, _, size, touched = presumed_rows(state, left, following[left])
        rows = jnp.where(touched[:, None], rows, 0.0)
        found = state.answers[2 * g] + state.answers[2 * g + 1] - both_ends
        z = touch.coefficients(rows, state.inverse[g], found)
        explained = jnp.linalg.norm(found - z @ rows) <= 1e3 * level
        one_kink = jnp.abs(z / size - 1) < 1e-2
        to = jnp.where(touched & explained, left, s.capacity)
        single = single.at[to].set(one_kink, mode="drop")
        multi = multi.at[to].set(~one_kink, mode="drop")
        return single, multi, jnp.where(explained & touched.any(), failed, failed + 1)

    carry = (state.single, state.multi, state.failed)
    single, multi, failed = lax.fori_loop(0, state.touches, one, carry)
    return state._replace(
        single=single,
        multi=multi,
        failed=failed,
        queries=state.queries + 2 * state.touches,
    )


def absorb(s: Settings, state: State) -> State:
    """Close a round whose replies are stored, and plan the next."""
    state = learn_touches(s, settle(s, state))
    state = plan(s, state._replace(rounds=state.rounds + 1))
    return state._replace(phase=jnp.where(state.fault >= 0, lines.FAULT, state.phase))


def in_jax(s: Settings, oracle: Oracle, state: State) -> State:
    """Run rounds until the search ends or its arrays are full, the victim traced inside."""

    def ask(i: Array, state: State) -> State:
        x = queries(s, state, i, s.chunk)
        return store(s, state, i, x, oracle(x))

    def one_round(state: State) -> State:
        asked = state.size + 2 * state.touches
        return absorb(s, lax.fori_loop(0, -(-asked // s.chunk), ask, state))

    return lax.while_loop(lambda a: a.phase == lines.RUNNING, one_round, state)


@partial(jax.jit, static_argnums=(0, 2))
def _host_queries(s: Settings, state: State, rows: int) -> Array:
    return queries(s, state, jnp.zeros((), int), rows)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _host_replies(s: Settings, state: State, x: Array, reply: Reply) -> State:
    return absorb(s, store(s, state, jnp.zeros((), int), x, reply))


def on_host(s: Settings, oracle: HostOracle, state: State) -> State:
    """The same rounds for a victim that is not JAX: one call of the oracle a round."""
    while int(state.phase) == lines.RUNNING:
        asked = int(state.size + 2 * state.touches)
        rows = 1 << max(4, (asked - 1).bit_length())  # few shapes, few compiles
        x = np.asarray(_host_queries(s, state, rows))
        reply = oracle(x[:asked])
        padded = [np.zeros((rows, *a.shape[1:])) for a in reply]
        for full, part in zip(padded, reply, strict=True):
            full[:asked] = part
        state = _host_replies(s, state, x, Reply(*padded))
    return state


@partial(jax.jit, static_argnums=0)
def bracket(s: Settings, state: State, budget: int) -> State:
    """Reopen an ended search, to certify its kinks one by one and not by touching.

    Touching can mistake units with parallel rows; two points beside a kink cannot.
    """
    state = state._replace(
        single=jnp.zeros_like(state.single),
        failed=jnp.full_like(state.failed, lines.FAILED_TOUCHES),
        width=jnp.full_like(state.width, -1),  # that many were found, and it was wrong
        budget=jnp.full_like(state.budget, budget),
    )
    return plan(s, state)


@partial(jax.jit, static_argnums=0)
def grow(s: Settings, state: State) -> State:
    """Twice the capacity, the round planned anew: for a search that ended lines.FULL."""
    bigger = twice(s)
    empty = lines.begin(bigger, state.key, state.width, state.budget)

    def widen(name: str) -> Array:
        old, new = getattr(state, name), getattr(empty, name)
        return old if old.shape == new.shape else new.at[: old.shape[0]].set(old)

    kept = {name: widen(name) for name in State._fields if name not in lines.PER_GROUP}
    state = State(**kept, **{name: getattr(empty, name) for name in lines.PER_GROUP})
    return plan(bigger, state)


def twice(s: Settings) -> Settings:
    """The settings `grow` grows to."""
    return s._replace(capacity=2 * s.capacity)
