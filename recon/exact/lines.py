"""Kinks along a line: a state machine without input or output.

Along x(a) = u + tan(a) v, -pi/2 < a < pi/2, a two-layer network is linear between kinks,
one kink for each unit.  Every reply gives the tangent there, gradient g and intercept
o = f - g x, which is constant between kinks; so two neighbouring replies that differ
enclose a kink, and their tangents meet where it is, if it is only one:

      f                    .  tangent at r        known after the two replies:
       \\                  .                       the jump J = g_r - g_l = w n^T,
        \\  tangent at l .                         where the tangents meet (t*),
     l   \\_____________/   r                      the sign of w (convex or concave)
                t*

Kinks of random rows are uniform in the angle a, with or without biases (t is Cauchy
distributed, Lemma 3), so nothing has to be chosen like the paper's l and eps.  For a
network without biases the line is half a circle.  An intercept below its own rounding
error is zero: that is all that is special about such networks here.

What remains is to know which intervals hold several kinks.  It is certain where the
tangents meet outside, or (K > 1) where J is not of rank one; the rest are asked in
batches by `touch`, two queries a batch.  An interval with several kinks is split just
beside t*, where two kinks of equal sign (both convex or both concave) must part, then by
bisection near t*.  With the width known, the search also ends when it has that many.

A round is `plan` (what to ask), `store` (the replies) and `absorb` (what they say); all
are pure.
`in_jax` runs them in `lax.while_loop` with the victim traced inside, `on_host` asks a
victim that is not JAX.  Measured: 1.4-1.6 queries a unit in 10-17 rounds (README),
where bisection (Algorithm 1a) takes 32-54 a unit, one after the other.
"""

from __future__ import annotations

from functools import partial, reduce
from operator import and_, or_
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from recon.exact import touch
from recon.oracles import HostOracle, Oracle, Reply

ROUNDING = 64.0  # how many eps of the largest gradient a difference must exceed to be a jump
FIRST = 0.6  # first grid points per unit, width known
FIRST_UNKNOWN = 32  # first grid points, width unknown
CROWDED = 2.0  # expected kinks near the meeting point above which an interval is split unasked
ENOUGH = 16  # presumed single kinks for which a touch (two queries) is worth while
FAILED_TOUCHES = 8  # touches that explain nothing, after which kinks are bracketed one by one


class Settings(NamedTuple):
    """What defines a compile: sizes, dtype and tolerances."""

    dim: int
    outputs: int
    capacity: int  # N, points on the line that fit
    dtype: str  # of the queries
    eps: float  # rounding unit of the replies

    @property
    def reach(self) -> float:
        """How far along the line the ends lie, in t."""
        return self.eps**-0.5

    @property
    def group(self) -> int:
        """Most rows touched at once."""
        return min(self.dim // 2, 128)

    @property
    def groups(self) -> int:
        """Most touches a round."""
        return max(1, min(8, self.capacity // max(self.group, 1)))

    @property
    def chunk(self) -> int:
        """Queries the traced victim answers at once; the last chunk of a round is padded."""
        return 64 if self.capacity >= 512 else 32


class State(NamedTuple):
    """N points asked on the line (unsorted), each the owner of the interval to its right."""

    key: Array
    u: Array  # [d]
    v: Array  # [d]
    mix: Array  # [K] random weights of the outputs, for touches
    width: Array  # units told, or -1
    budget: Array  # queries allowed
    filled: Array  # points asked
    angle: Array  # [N], inf where unused
    gradient: Array  # [N, K, d]
    offset: Array  # [N, K] intercept f - g x, zero where below its rounding error
    along: Array  # [N, 2, K] tangent in line coordinates: value at u, slope along v
    noise: Array  # [N] rounding error of the intercept
    jump: Array  # [N] interval holds a kink
    multi: Array  # [N] known to hold several
    single: Array  # [N] certified to hold one
    tries: Array  # [N] splits that did not split
    scale: Array  # largest gradient norm seen
    failed: Array  # touches that explained nothing
    queries: Array
    rounds: Array
    fault: Array  # first query row whose reply was not finite, or -1
    phase: Array  # RUNNING, or how it ended
    # the round under way
    size: Array  # points to ask on the line
    place: Array  # [N] their angles
    pairs: Array  # [2N, 2] intervals they make, as point indices, -1 where unused
    parent: Array  # [N] the interval each splits, by owner, -1 in the first round
    touches: Array  # pairs of points to ask off it
    members: Array  # [groups, group] owners touched, -1 where unused
    points: Array  # [2 groups, d]
    inverse: Array  # [groups, group, group] of the touched rows
    answers: Array  # [2 groups, d] mixed gradients at the points


PER_GROUP = ("members", "points", "inverse", "answers")
RUNNING, DONE, FULL, SPENT, FAULT = range(5)


def begin(s: Settings, key: Array, width: Array, budget: Array) -> State:
    """The state before the first round; the key is consumed.  width is -1 if unknown."""
    n, k, d = s.capacity, s.outputs, s.dim
    key, u_key, v_key, mix_key = jax.random.split(key, 4)
    width = jnp.asarray(width)
    expected = jnp.where(width < 0, 0.0, jnp.ceil(FIRST * width.astype(float))).astype(int)
    size = jnp.where(width < 0, FIRST_UNKNOWN, expected) + 2
    size = jnp.minimum(jnp.minimum(size, n), budget)
    i = jnp.arange(n)
    inner = jnp.maximum(size - 2, 1).astype(float)
    grid = jnp.pi * ((i.astype(float) - 0.5) / inner - 0.5)
    end = jnp.arctan(s.reach)
    place = jnp.where(i == 0, -end, jnp.where(i == size - 1, end, grid))
    pair = jnp.where((i < size - 1)[:, None], jnp.stack([i, i + 1], 1), -1)
    no, zero = jnp.zeros(n, bool), jnp.zeros((), int)
    return State(
        key=key,
        u=jax.random.normal(u_key, (d,), jnp.float64),
        v=jax.random.normal(v_key, (d,), jnp.float64),
        mix=jax.random.normal(mix_key, (k,), jnp.float64),
        width=width,
        budget=jnp.asarray(budget),
        filled=zero,
        angle=jnp.full(n, jnp.inf),
        gradient=jnp.zeros((n, k, d)),
        offset=jnp.zeros((n, k)),
        along=jnp.zeros((n, 2, k)),
        noise=jnp.zeros(n),
        jump=no,
        multi=no,
        single=no,
        tries=jnp.zeros(n, int),
        scale=jnp.zeros(()),
        failed=jnp.where(s.group < 1, FAILED_TOUCHES, zero),
        queries=zero,
        rounds=zero,
        fault=zero - 1,
        phase=jnp.where(size < 3, SPENT, RUNNING),
        size=size,
        place=place,
        pairs=jnp.concatenate([pair, jnp.full_like(pair, -1)]),
        parent=jnp.full(n, -1),
        touches=zero,
        members=jnp.full((s.groups, max(s.group, 1)), -1),
        points=jnp.zeros((2 * s.groups, d)),
        inverse=jnp.zeros((s.groups, max(s.group, 1), max(s.group, 1))),
        answers=jnp.zeros((2 * s.groups, d)),
    )


class Intervals(NamedTuple):
    """The intervals in order along the line: [N - 1] each."""

    left: Array  # owner, a point index
    right: Array
    low: Array  # angles of the ends
    high: Array
    meet: Array  # angle where the tangents meet
    blur: Array  # its uncertainty
    kink: Array  # holds at least one


def intervals(s: Settings, state: State) -> Intervals:
    """Where neighbouring tangents meet: t* = -<slope, value> / <slope, slope> of the difference."""
    order = jnp.argsort(state.angle)
    left, right = order[:-1], order[1:]
    valid = jnp.arange(1, s.capacity) < state.filled
    low, high = (jnp.where(valid, state.angle[end], 0.0) for end in (left, right))
    value, slope = jnp.moveaxis(state.along[right] - state.along[left], 1, 0)
    square = jnp.sum(slope**2, 1)
    t = -jnp.sum(slope * value, 1) / jnp.where(square > 0, square, 1.0)
    t = jnp.where(square > 0, t, jnp.inf)
    tiny = ROUNDING * s.eps * state.scale
    error = state.noise[left] + state.noise[right] + tiny * jnp.linalg.norm(state.u)
    # in the angle, a relative error of t is worth at most half of itself
    blur = error / jnp.sqrt(jnp.where(square > 0, square, 1.0)) / (1 + t**2)
    blur = blur + tiny * jnp.linalg.norm(state.v) / jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return Intervals(left, right, low, high, jnp.arctan(t), blur, valid & state.jump[left])


def density(iv: Intervals) -> Array:
    """Kinks per radian, by maximum likelihood from which intervals hold any (Poisson kinks)."""
    length = iv.high - iv.low
    empty = jnp.sum(jnp.where(iv.kink, 0.0, length))

    def score(rate: Array) -> Array:
        x = jnp.where(iv.kink, rate * length, 1.0)
        return jnp.sum(jnp.where(iv.kink, length / jnp.expm1(jnp.minimum(x, 500.0)), 0.0)) - empty

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = jnp.sqrt(low * high)
        more = score(middle) > 0
        return jnp.where(more, middle, low), jnp.where(more, high, middle)

    low, _ = lax.fori_loop(0, 40, halve, (jnp.asarray(1e-3), jnp.asarray(1e6)))
    return jnp.where(empty < 0.1 * jnp.pi, jnp.inf, low)


def split_at(s: Settings, state: State, iv: Intervals, coarse: Array) -> Array:
    """The angle at which to split each interval [N - 1].

    First just past the meeting point on its longer side: kinks of equal sign must part
    there, and a single kink must answer with the far gradient.  Then nearer the middle of
    what is left; then so close to the meeting point that a single kink is bracketed.
    """
    tries = state.tries[iv.left]
    width = iv.high - iv.low
    to_right = iv.high - iv.meet > iv.meet - iv.low
    longer = jnp.where(to_right, iv.high - iv.meet, iv.meet - iv.low)
    inside = (iv.low < iv.meet) & (iv.meet < iv.high)
    close = resolution(s) / 8 + 4 * iv.blur
    trust = state.failed < FAILED_TOUCHES
    beside = jnp.where(trust & (tries == 0), jnp.maximum(1e-2 * width, close), close)
    beside = jnp.where(trust & (tries == 1), 0.3 * longer, beside)
    at = iv.meet + jnp.where(to_right, beside, -beside)
    outer = jnp.where(iv.meet < iv.low, iv.low + 0.3 * width, iv.high - 0.3 * width)
    at = jnp.where(inside, at, outer)
    far = jnp.where(jnp.abs(iv.low) > jnp.abs(iv.high), iv.low, iv.high)
    at = jnp.where(coarse & inside, (iv.meet + far) / 2, at)
    stuck = (tries >= 4) & (tries % 2 == 1)
    fits = (at > iv.low + 0.01 * close) & (at < iv.high - 0.01 * close) & ~stuck
    return jnp.where(fits, at, (iv.low + iv.high) / 2)


def resolution(s: Settings) -> float:
    """Angle below which two kinks count as one: a quarter of the digits."""
    return s.eps**0.5


def plan(s: Settings, state: State) -> State:
    """What to ask next, from all that is known; ends the search when nothing is left to ask."""
    iv = intervals(s, state)
    width = iv.high - iv.low
    narrow = width <= resolution(s) + 16 * iv.blur
    open_ = iv.kink & ~state.single[iv.left] & ~narrow
    rate = jnp.where(state.width < 0, density(iv), state.width.astype(float) / jnp.pi)
    near = jnp.minimum(iv.meet - iv.low, iv.high - iv.meet)
    crowd = rate * (near + 0.25 * (width - near))
    inside = (iv.meet > iv.low - iv.blur) & (iv.meet < iv.high + iv.blur)
    multi = open_ & (state.multi[iv.left] | ~inside | (crowd > CROWDED))
    multi = multi | (open_ & (state.failed >= FAILED_TOUCHES))
    # a reply from far out has a poor intercept: ask nearer, so that the kink is placed well
    far = (jnp.cos(iv.meet) > 16 * jnp.cos(end) for end in (iv.low, iv.high))
    noisy = (state.noise[point] > 0 for point in (iv.left, iv.right))
    coarse = iv.kink & ~narrow & inside & reduce(or_, map(and_, far, noisy))
    enough = (jnp.sum(iv.kink) == state.width) & ~jnp.any(coarse)
    split = (multi | coarse) & ~enough
    presumed = open_ & ~split & ~enough
    touching = jnp.any(presumed) & ((jnp.sum(presumed) >= ENOUGH) | ~jnp.any(split))

    left_over = state.budget - state.queries
    (chosen,) = jnp.nonzero(split, size=s.capacity, fill_value=s.capacity - 1)
    size = jnp.minimum(jnp.sum(split), left_over)
    slot = jnp.arange(s.capacity)
    used = slot < size
    place = jnp.append(split_at(s, state, iv, coarse), 0.0)[chosen]
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
    phase = jnp.where(nothing, jnp.where(wanted, SPENT, DONE), RUNNING)
    full = state.filled + size > s.capacity
    return state._replace(phase=jnp.where(full, FULL, phase))


def presumed_rows(state: State, left: Array, right: Array) -> tuple[Array, Array, Array, Array]:
    """Oriented unit rows [s, d], biases, jump sizes and validity of presumed single kinks.

    The outputs are mixed with fixed random weights into one; a row points along the line.
    """
    jump = jnp.einsum("k,skd->sd", state.mix, state.gradient[right] - state.gradient[left])
    offset = (state.offset[right] - state.offset[left]) @ state.mix
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
        margin = ROUNDING * s.eps * jnp.maximum(state.scale / jnp.abs(size), 16.0)
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
    offset = jnp.where(jnp.abs(offset) <= rounding, 0.0, offset)
    along = jnp.stack([gradient @ state.u + offset, gradient @ state.v], 1)
    noise = jnp.where(offset == 0, 0.0, rounding).max(1)
    to = jnp.where(on_line, state.filled + slot, s.capacity)  # out of bounds: dropped
    answer = jnp.where(asked & ~on_line, slot - state.size, 2 * s.groups)
    return state._replace(
        angle=state.angle.at[to].set(state.place[slot % s.capacity], mode="drop"),
        gradient=state.gradient.at[to].set(gradient, mode="drop"),
        offset=state.offset.at[to].set(offset, mode="drop"),
        along=state.along.at[to].set(along, mode="drop"),
        noise=state.noise.at[to].set(noise, mode="drop"),
        answers=state.answers.at[answer].set(
            jnp.einsum("k,nkd->nd", state.mix, gradient), mode="drop"
        ),
        scale=scale,
        fault=jnp.where(state.fault < 0, row, state.fault),
    )


def compare(s: Settings, state: State, pairs: Array) -> tuple[Array, Array]:
    """Whether the intervals pairs [c, 2] hold a kink, and whether certainly several: [c], [c]."""
    left, right = pairs[:, 0], pairs[:, 1]
    jump = state.gradient[right] - state.gradient[left]
    offset = state.offset[right] - state.offset[left]
    tiny = ROUNDING * s.eps * state.scale
    noise = (state.noise[left] + state.noise[right])[:, None]
    differs = (jnp.sqrt(jnp.sum(jump**2, (1, 2))) > tiny) | (jnp.abs(offset) > noise).any(1)
    if s.outputs == 1:
        return differs, jnp.zeros_like(differs)
    # One unit's jump is w n^T with intercept w b: rank one.  From any w that is not
    # orthogonal, D^T w gives n and D n gives w again.
    row = jnp.einsum("ckd,ck->cd", jump, jump @ state.v)
    square = jnp.sum(row**2, 1)[:, None]
    weight = jnp.einsum("ckd,cd->ck", jump, row) / jnp.where(square > 0, square, 1.0)
    rest = jump - weight[:, :, None] * row[:, None, :]
    crossing = jnp.sum(offset * weight, 1) / jnp.maximum(jnp.sum(weight**2, 1), 1e-300)
    apart = jnp.abs(offset - crossing[:, None] * weight) > 4 * noise + tiny
    several = (jnp.sqrt(jnp.sum(rest**2, (1, 2))) > 4 * tiny) | apart.any(1)
    return differs, differs & several


def settle(s: Settings, state: State) -> State:
    """Draw the conclusions from the points of this round."""
    n, chunk = s.capacity, s.chunk
    filled = jnp.stack([state.size, n + state.size])

    def one(i: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        here = lax.dynamic_slice_in_dim(state.pairs, i * chunk, chunk)
        return jax.tree.map(
            lambda all_, part: lax.dynamic_update_slice_in_dim(all_, part, i * chunk, 0),
            found,
            compare(s, state, here),
        )

    found = (jnp.zeros(2 * n, bool), jnp.zeros(2 * n, bool))
    for start, stop in ((0, filled[0]), (n, filled[1])):
        found = lax.fori_loop(start // chunk, -(-stop // chunk), one, found)
    jump, several = found
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
        filled=state.filled + state.size,
        queries=state.queries + state.size,
    )


def learn_touches(s: Settings, state: State) -> State:
    """Tell single kinks from several by the answers at the touching points."""
    order = jnp.argsort(state.angle)
    following = jnp.zeros(s.capacity, int).at[order[:-1]].set(order[1:])
    ends = state.gradient[order[0]] + state.gradient[order[jnp.maximum(state.filled - 1, 0)]]
    both_ends = state.mix @ ends
    level = ROUNDING * s.eps * state.scale * jnp.linalg.norm(state.mix)

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
        return single, multi, jnp.where(explained, failed, failed + 1)

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
    return state._replace(phase=jnp.where(state.fault >= 0, FAULT, state.phase))


def in_jax(s: Settings, oracle: Oracle, state: State) -> State:
    """Run rounds until the search ends or its arrays are full, the victim traced inside."""

    def ask(i: Array, state: State) -> State:
        x = queries(s, state, i, s.chunk)
        return store(s, state, i, x, oracle(x))

    def one_round(state: State) -> State:
        asked = state.size + 2 * state.touches
        return absorb(s, lax.fori_loop(0, -(-asked // s.chunk), ask, state))

    return lax.while_loop(lambda a: a.phase == RUNNING, one_round, state)


@partial(jax.jit, static_argnums=(0, 2))
def _host_queries(s: Settings, state: State, rows: int) -> Array:
    return queries(s, state, jnp.zeros((), int), rows)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _host_replies(s: Settings, state: State, x: Array, reply: Reply) -> State:
    return absorb(s, store(s, state, jnp.zeros((), int), x, reply))


def on_host(s: Settings, oracle: HostOracle, state: State) -> State:
    """The same rounds for a victim that is not JAX: one call of the oracle a round."""
    while int(state.phase) == RUNNING:
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
        failed=jnp.full_like(state.failed, FAILED_TOUCHES),
        width=jnp.full_like(state.width, -1),  # that many were found, and it was wrong
        budget=jnp.full_like(state.budget, budget),
    )
    return plan(s, state)


@partial(jax.jit, static_argnums=0)
def grow(s: Settings, state: State) -> State:
    """Twice the capacity, the round planned anew: for a search that ended FULL."""
    bigger = twice(s)
    empty = begin(bigger, state.key, state.width, state.budget)

    def widen(name: str) -> Array:
        old, new = getattr(state, name), getattr(empty, name)
        return old if old.shape == new.shape else new.at[: old.shape[0]].set(old)

    kept = {name: widen(name) for name in State._fields if name not in PER_GROUP}
    state = State(**kept, **{name: getattr(empty, name) for name in PER_GROUP})
    return plan(bigger, state)


def twice(s: Settings) -> Settings:
    """The settings `grow` grows to."""
    return s._replace(capacity=2 * s.capacity)
