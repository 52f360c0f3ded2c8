"""Kinks along a line: what is known of them, and where to look next.

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
bisection near t*.  `rounds` runs this as a state machine.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

ROUNDING = 64.0  # how many eps of the largest gradient a difference must exceed to be a jump
FIRST = 0.6  # first grid points per unit, width known
FIRST_UNKNOWN = 32  # first grid points, width unknown
MANY = 400  # neighbouring intervals with kinks that it takes to doubt the victim's kind
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
    offset: Array  # [N, K] intercept f - g x
    along: Array  # [N, 2, K] its linear part in line coordinates: value at u, slope along v
    noise: Array  # [N] rounding error of the intercept
    biased: Array  # whether any intercept exceeded its rounding error
    jump: Array  # [N] interval holds a kink
    multi: Array  # [N] known to hold several
    single: Array  # [N] certified to hold one
    tries: Array  # [N] splits that did not split
    scale: Array  # largest norm seen of a gradient, or of the difference of two neighbours
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
        biased=jnp.zeros((), bool),
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


def intercepts(state: State) -> tuple[Array, Array]:
    """Intercepts [N, K] and their rounding errors [N]; exactly zero if none was seen to differ.

    One that is below its own rounding error beside others that are not is still in doubt by it.
    """
    return jnp.where(state.biased, state.offset, 0.0), jnp.where(state.biased, state.noise, 0.0)


def intervals(s: Settings, state: State) -> Intervals:
    """Where neighbouring tangents meet: t* = -<slope, value> / <slope, slope> of the difference."""
    order = jnp.argsort(state.angle)
    left, right = order[:-1], order[1:]
    valid = jnp.arange(1, s.capacity) < state.filled
    low, high = (jnp.where(valid, state.angle[end], 0.0) for end in (left, right))
    value, slope = jnp.moveaxis(state.along[right] - state.along[left], 1, 0)
    offset, noise = intercepts(state)
    value = value + offset[right] - offset[left]
    square = jnp.sum(slope**2, 1)
    t = -jnp.sum(slope * value, 1) / jnp.where(square > 0, square, 1.0)
    t = jnp.where(square > 0, t, jnp.inf)
    tiny = ROUNDING * s.eps * state.scale
    error = noise[left] + noise[right] + tiny * jnp.linalg.norm(state.u)
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
    fits = (at > iv.low + 0.01 * close) & (at < iv.high - 0.01 * close) & ~stuck & iv.kink
    return jnp.where(fits, at, (iv.low + iv.high) / 2)


def resolution(s: Settings) -> float:
    """Angle below which two kinks count as one: half of the digits, or, where that is coarse
    beside the distance of kinks (float32), nearly all of them.
    """
    return min(s.eps**0.5, 1e-5)


def compare(s: Settings, state: State, pairs: Array) -> tuple[Array, Array, Array]:
    """Whether the intervals pairs [c, 2] hold a kink, whether certainly several, and the norm
    of the gradients' difference: [c] each.
    """
    left, right = pairs[:, 0], pairs[:, 1]
    jump = state.gradient[right] - state.gradient[left]
    offset, noise = intercepts(state)
    offset = offset[right] - offset[left]
    tiny = ROUNDING * s.eps * state.scale
    noise = (noise[left] + noise[right])[:, None]
    size = jnp.sqrt(jnp.sum(jump**2, (1, 2)))
    differs = (size > tiny) | (jnp.abs(offset) > noise).any(1)
    if s.outputs == 1:
        return differs, jnp.zeros_like(differs), size
    # One unit's jump is w n^T with intercept w b: rank one.  From any w that is not
    # orthogonal, D^T w gives n and D n gives w again.
    row = jnp.einsum("ckd,ck->cd", jump, jump @ state.v)
    square = jnp.sum(row**2, 1)[:, None]
    weight = jnp.einsum("ckd,cd->ck", jump, row) / jnp.where(square > 0, square, 1.0)
    rest = jump - weight[:, :, None] * row[:, None, :]
    crossing = jnp.sum(offset * weight, 1) / jnp.maximum(jnp.sum(weight**2, 1), 1e-300)
    apart = jnp.abs(offset - crossing[:, None] * weight) > 4 * noise + tiny
    several = (jnp.sqrt(jnp.sum(rest**2, (1, 2))) > 4 * tiny) | apart.any(1)
    return differs, differs & several, size


def unlike(s: Settings, state: State) -> Array:
    """Whether the replies are plainly not of a piecewise linear function.

    Of a smooth function every interval holds a "kink", and neighbouring jumps are in proportion
    to their intervals; of noise every interval too, and neighbouring jumps turn back.
    """
    iv = intervals(s, state)
    both = iv.kink[1:] & iv.kink[:-1]
    jump = (state.along[iv.right] - state.along[iv.left]).reshape(len(iv.kink), -1)
    length = jnp.tan(iv.high) - jnp.tan(iv.low)
    slope = jump / jnp.where(length > 0, length, 1.0)[:, None]
    size, steep = jnp.linalg.norm(jump, axis=1), jnp.linalg.norm(slope, axis=1)
    change = jnp.linalg.norm(slope[1:] - slope[:-1], axis=1) / (steep[1:] + steep[:-1])
    turn = jnp.sum(jump[1:] * jump[:-1], 1) / (size[1:] * size[:-1])
    smooth = jnp.nanmedian(jnp.where(both, change, jnp.nan)) < 0.1
    noisy = jnp.nanmean(jnp.where(both, turn, jnp.nan)) < -0.25
    return (jnp.sum(both) >= MANY) & (smooth | noisy)
