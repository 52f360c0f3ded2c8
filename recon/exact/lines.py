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
batches by `touch`, two queries a batch.  An interval with several kinks is split where they
must part: for K > 1 at `splits.middle`, for K = 1 just beside t*, where two kinks of equal
sign (both convex or both concave) do; then by bisection near t*.  So hardly a query is wasted
for K > 1: 1.01 to 1.04 a kink on the line, where t* of least squares took 1.09 to 1.25.
`rounds` runs this as a state machine, on arrays of NumPy or traced by JAX.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact import arrays
from recon.exact.arrays import Array, namespace

ROUNDING = 64.0  # how many eps of the largest gradient a difference must exceed to be a jump
FIRST, FIRST_OF_SEVERAL = 0.6, 0.1  # first grid points per unit, width known, by outputs
FIRST_UNKNOWN, FEWER = 16, 4  # first grid points, width unknown; where ranks say where to split
SEVERAL = 3  # outputs from which on a jump of rank one is a single kink, but for a coincidence
CHUNK_NUMBERS = 1 << 23  # most numbers of gradients in a chunk
FAILED_TOUCHES = 8  # touches that explain nothing, after which kinks are bracketed one by one


def most_rows(outputs: int, dim: int) -> int:
    """Gradients [K, d] that make a chunk of bounded memory, a power of two."""
    return 1 << (max(1, CHUNK_NUMBERS // (outputs * dim)).bit_length() - 1)


class Settings(NamedTuple):
    """What defines a compile: sizes, dtype and tolerances."""

    dim: int
    outputs: int
    capacity: int  # N, points on the line that fit
    dtype: str  # of the queries
    eps: float  # rounding unit of the replies
    near: float | None = None  # where replies have a limit: how far along the line it lies, in t

    @property
    def reach(self) -> float:
        """How far along the line the ends lie, in t."""
        return self.eps**-0.5 if self.near is None else self.near

    @property
    def touches(self) -> bool:
        """Whether kinks are touched: far out, where a unit is on at one end of any line.

        Several outputs tell single kinks by the rank of their jump, and the certificate the rest.
        """
        return self.near is None and self.group > 0 and self.outputs < SEVERAL

    @property
    def group(self) -> int:
        """Most rows touched at once."""
        return min(self.dim // 2, 128)

    @property
    def groups(self) -> int:
        """Most touches a round."""
        return max(1, min(8, self.capacity // max(self.group, 1)))

    @property
    def large(self) -> bool:
        """Whether a victim with so many kinks is large."""
        return self.capacity * self.dim >= arrays.LARGE

    @property
    def chunk(self) -> int:
        """Rows taken up at once, a power of two; fewer where replies are large."""
        return min(64 if self.capacity >= 512 else 32, most_rows(self.outputs, self.dim))


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
    mixed: Array  # [N, d] the outputs' gradients summed with `mix`; [0, d] for one output
    offset: Array  # [N, K] intercept f - g x
    along: Array  # [N, K, 2] its linear part in line coordinates: value at u, slope along v
    noise: Array  # [N] rounding error of the intercept
    biased: Array  # whether any intercept exceeded its rounding error
    ranked: Array  # whether any difference of gradients was seen not to be of rank one
    jump: Array  # [N] interval holds a kink
    multi: Array  # [N] known to hold several
    single: Array  # [N] certified to hold one
    middle: Array  # [N] angle among its kinks, if they are several (K > 1)
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
    pairs: Array  # [N, 2, 2] the two intervals each makes, as point indices, -1 where unused
    parent: Array  # [N] the interval each splits, by owner, -1 in the first round
    touches: Array  # pairs of points to ask off it
    members: Array  # [groups, group, 2] ends of the intervals touched, -1 where unused
    points: Array  # [groups, 2, d]
    inverse: Array  # [groups, group, group] of the touched rows
    answers: Array  # [groups, 2, d] mixed gradients at the points


PER_GROUP = ("members", "points", "inverse", "answers")
RUNNING, DONE, FULL, SPENT, FAULT = range(5)


def begin(s: Settings, key: Array, width: Array, budget: Array) -> State:
    """The state before the first round, in NumPy for a NumPy key; width is -1 if unknown."""
    xp = namespace(key)
    n, k, d, group = s.capacity, s.outputs, s.dim, max(s.group, 1)
    key, u_key, v_key, mix_key = arrays.split(key, 4)
    width, budget, zero = (xp.asarray(a, int) for a in (width, budget, 0))
    each = FIRST if k == 1 else FIRST_OF_SEVERAL
    expected = xp.ceil(each * xp.maximum(width, 0).astype(float)).astype(int)
    unknown = FIRST_UNKNOWN if k < SEVERAL else FEWER
    size = xp.where(width < 0, unknown, expected) + 2
    size = xp.minimum(xp.minimum(size, n), budget)
    i = xp.arange(n)
    inner = xp.maximum(size - 2, 1).astype(float)
    end = np.arctan(s.reach)
    span = np.pi if s.near is None else 2 * end
    grid = span * ((i.astype(float) - 0.5) / inner - 0.5)
    place = xp.where(i == 0, -end, xp.where(i == size - 1, end, grid))
    pair = xp.where((i < size - 1)[:, None], xp.stack([i, i + 1], 1), -1)
    return State(
        key=key,
        u=arrays.normal(u_key, (d,)),
        v=arrays.normal(v_key, (d,)),
        mix=arrays.normal(mix_key, (k,)) if k > 1 else xp.ones(1),
        width=width,
        budget=budget,
        filled=zero,
        angle=xp.full(n, np.inf),
        gradient=xp.zeros((n, k, d)),
        mixed=xp.zeros((n if k > 1 else 0, d)),
        offset=xp.zeros((n, k)),
        along=xp.zeros((n, k, 2)),
        noise=xp.zeros(n),
        biased=xp.zeros((), bool),
        ranked=xp.zeros((), bool),
        jump=xp.zeros(n, bool),
        multi=xp.zeros(n, bool),
        single=xp.zeros(n, bool),
        middle=xp.full(n, np.inf),
        tries=xp.zeros(n, int),
        scale=xp.zeros(()),
        failed=zero + (0 if s.touches or k >= SEVERAL else FAILED_TOUCHES),
        queries=zero,
        rounds=zero,
        fault=zero - 1,
        phase=xp.where(size < 3, SPENT, RUNNING),
        size=size,
        place=place,
        pairs=xp.stack([pair, xp.full_like(pair, -1)], 1),
        parent=xp.full(n, -1),
        touches=zero,
        members=xp.full((s.groups, group, 2), -1),
        points=xp.zeros((s.groups, 2, d)),
        inverse=xp.zeros((s.groups, group, group)),
        answers=xp.zeros((s.groups, 2, d)),
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
    xp = namespace(state.offset)
    return xp.where(state.biased, state.offset, 0.0), xp.where(state.biased, state.noise, 0.0)


def intervals(s: Settings, state: State) -> Intervals:
    """Where neighbouring tangents meet: t* = -<slope, value> / <slope, slope> of the difference."""
    xp = namespace(state.angle)
    order = xp.argsort(state.angle)
    left, right = order[:-1], order[1:]
    valid = xp.arange(1, len(order)) < state.filled
    low, high = (xp.where(valid, state.angle[end], 0.0) for end in (left, right))
    value, slope = xp.moveaxis(state.along[right] - state.along[left], 2, 0)
    offset, noise = intercepts(state)
    value = value + offset[right] - offset[left]
    square = xp.sum(slope**2, 1)
    t = -xp.sum(slope * value, 1) / xp.where(square > 0, square, 1.0)
    t = xp.where(square > 0, t, xp.inf)
    tiny = ROUNDING * s.eps * state.scale
    error = noise[left] + noise[right] + tiny * xp.linalg.norm(state.u)
    # in the angle, a relative error of t is worth at most half of itself
    blur = error / xp.sqrt(xp.where(square > 0, square, 1.0)) / (1 + t**2)
    blur = blur + tiny * xp.linalg.norm(state.v) / xp.sqrt(xp.where(square > 0, square, 1.0))
    return Intervals(left, right, low, high, xp.arctan(t), blur, valid & state.jump[left])


def resolution(s: Settings) -> float:
    """Angle below which two kinks count as one: half of the digits, or, where that is coarse
    beside the distance of kinks (float32), nearly all of them.
    """
    return min(s.eps**0.5, 1e-5)
