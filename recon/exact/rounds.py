"""Rounds of queries along a line: a state machine without input or output, and its drivers.

A round is `plan` (what to ask next), `queries` and `store` (ask, and keep the replies) and
`absorb` (what they say); all are pure, but that the state given is consumed.  `in_numpy` runs
the rounds as they stand, with no compile; `in_jax` runs them in `lax.while_loop` with the victim
traced inside.  The search ends when no interval is in doubt or, with the width known, when it
has that many kinks.

Measured (results/queries): at 512 units 1.10 queries a unit for ten outputs and 1.5 for one, in
11 to 27 rounds, where bisection (Algorithm 1a) takes 36-45 a unit, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from operator import or_

import numpy as np
from jax import lax

from recon.exact import arrays, lines, splits, touching
from recon.exact.arrays import Array, namespace
from recon.exact.lines import Settings, State
from recon.oracles import Oracle, Reply

CROWDED = 2.0  # expected kinks near the meeting point above which an interval is split unasked
GRID = 128  # points a line is searched with, at least, where units told are missing
MANY = 400  # neighbouring intervals with kinks that it takes to doubt the victim's kind
ENOUGH = 16  # presumed single kinks for which a touch (two queries) is worth while
QUIET = np.errstate(all="ignore")  # replies that overflow are found out, as in JAX


def plan(s: Settings, state: State) -> State:
    """What to ask next, from all that is known; ends the search when nothing is left to ask."""
    xp = namespace(state.angle)
    iv = lines.intervals(s, state)
    width = iv.high - iv.low
    # a reply from far out has a poor intercept: ask nearer, so that the kink is placed well
    far = (xp.cos(iv.meet) > 16 * xp.cos(end) for end in (iv.low, iv.high))
    distant = reduce(or_, far) & state.biased
    by_one = state.failed >= lines.FAILED_TOUCHES  # bracketed, which cannot go below the blur
    blurred = by_one & ~distant & ~state.multi[iv.left]
    narrow = width <= lines.resolution(s) + xp.where(blurred, 16 * iv.blur, 0.0)
    open_ = iv.kink & ~state.single[iv.left] & ~narrow
    told = state.width.astype(float) / np.pi
    rate = arrays.either(state.width < 0, lambda: splits.density(iv), lambda: told)
    near = xp.minimum(iv.meet - iv.low, iv.high - iv.meet)
    crowd = xp.where(state.ranked, 0.0, rate * (near + 0.25 * (width - near)))  # ranks tell
    inside = (iv.meet > iv.low - iv.blur) & (iv.meet < iv.high + iv.blur)
    multi = open_ & (state.multi[iv.left] | ~inside | (crowd > CROWDED))
    multi = multi | (open_ & by_one)
    coarse = iv.kink & ~narrow & inside & distant
    enough = (xp.sum(iv.kink) == state.width) & ~xp.any(coarse)
    split = (multi | coarse) & ~enough
    presumed = open_ & ~split & ~enough & s.touches  # else all outputs say that it is one kink
    # units are missing and no interval is in doubt: kinks that cancel hide in an empty one
    missing = (xp.sum(iv.kink) < state.width) & ~xp.any(split | presumed)
    wide = width * xp.maximum(GRID, 2 * state.width).astype(float) > np.pi
    split = split | (missing & ~iv.kink & wide)
    worth_it = xp.any(presumed) & ((xp.sum(presumed) >= ENOUGH) | ~xp.any(split))

    left_over = state.budget - state.queries
    n, group = len(state.angle), max(s.group, 1)
    left, right = (xp.append(end, -1) for end in (iv.left, iv.right))
    chosen = arrays.nonzero(split, n, n - 1)
    size = xp.minimum(xp.sum(split), left_over)
    slot = xp.arange(n)
    used = slot < size
    place = xp.append(splits.split_at(s, state, iv, coarse, crowd), 0.0)[chosen]
    parent = xp.where(used, left[chosen], -1)
    new = xp.where(used, state.filled + slot, -1)
    after = xp.where(used, right[chosen], -1)
    halves = xp.stack([parent, new, new, after], 1).reshape(n, 2, 2)
    state = state._replace(size=size, place=place, parent=parent, pairs=halves)

    groups = xp.where(worth_it, -(-xp.sum(presumed) // group), 0)
    groups = xp.minimum(xp.minimum(groups, s.groups), (left_over - size) // 2)
    chosen = arrays.nonzero(presumed, s.groups * group, n - 1)
    members = xp.stack([left[chosen], right[chosen]], 1).reshape(s.groups, group, 2)
    state = touching.plan(s, state._replace(touches=groups, members=members))

    nothing = (size == 0) & (groups == 0)
    wanted = xp.any(split) | worth_it
    phase = xp.where(nothing, xp.where(wanted, lines.SPENT, lines.DONE), lines.RUNNING)
    full = state.filled + size > n
    return state._replace(phase=xp.where(full, lines.FULL, phase))


def queries(s: Settings, state: State, first: Array, size: int) -> Array:
    """The round's queries [size, d] from number `first` on, in the query dtype.

    Points on the line come first, then touching points; padding repeats the last of them, so
    that a victim traced inside sees no point that is not in the cost.
    """
    xp = namespace(state.angle)
    slot = xp.minimum(first + xp.arange(size), state.size + 2 * state.touches - 1)
    x = xp.tan(state.place[slot % len(state.place)])[:, None] * state.v[None]
    x += state.u[None]
    off = xp.clip(slot - state.size, 0, 2 * s.groups - 1)
    x = arrays.replace(x, slot >= state.size, state.points.reshape(-1, s.dim), off)
    return x if x.dtype == s.dtype else x.astype(s.dtype)


def store(s: Settings, state: State, first: Array, x: Array, reply: Reply) -> State:
    """Keep the replies to the round's queries x [size, d] from number `first` on."""
    xp = namespace(state.angle)
    n, slot = len(state.angle), first + xp.arange(len(x))
    on_line = slot < state.size
    asked = slot < state.size + 2 * state.touches
    x, value, gradient = (xp.asarray(a, float) for a in (x, reply.value, reply.gradient))
    bad = asked & ~(xp.isfinite(value).all(1) & xp.isfinite(gradient).all((1, 2)))
    row = xp.where(bad.any(), state.queries + slot[xp.argmax(bad)], -1)
    offset = value - (gradient @ x[:, :, None])[:, :, 0]
    size = xp.sqrt(arrays.squares(gradient))
    largest = xp.max(xp.where(on_line, size, 0.0))
    scale = xp.maximum(state.scale, largest)  # of the terms a gradient sums, as far as seen
    rounding = 16 * s.eps * (xp.abs(value) + scale * xp.sqrt(arrays.squares(x))[:, None])
    biased = (on_line[:, None] & (xp.abs(offset) > rounding)).any()
    to = xp.where(on_line, state.filled + slot, n)  # out of bounds: dropped
    answer = xp.where(asked & ~on_line, slot - state.size, 2 * s.groups)
    mixed = gradient[:, 0] if s.outputs == 1 else state.mix @ gradient
    along = gradient.reshape(-1, s.dim) @ xp.stack([state.u, state.v], 1)
    found = {
        "angle": state.place[slot % n],
        "gradient": gradient,
        "offset": offset,
        "along": along.reshape(*offset.shape, 2),
        "noise": rounding.max(1),
    }
    if s.outputs > 1:
        found["mixed"] = mixed
    kept = {name: arrays.put(getattr(state, name), to, a) for name, a in found.items()}
    answers = arrays.put(state.answers.reshape(-1, s.dim), answer, mixed)
    return state._replace(
        **kept,
        biased=state.biased | biased,
        answers=answers.reshape(state.answers.shape),
        scale=scale,
        fault=xp.where(state.fault < 0, row, state.fault),
    )


def settle(s: Settings, state: State) -> State:
    """Draw the conclusions from the points of this round."""
    xp = namespace(state.angle)
    n = len(state.angle)

    def one(i: Array, found: Array) -> Array:
        index = i * s.chunk + xp.arange(s.chunk)
        here = state.pairs[xp.minimum(index, n - 1)].reshape(-1, 2)
        used = here[:, 0] >= 0 if xp is np else slice(None)
        parts = splits.compare(s, state, here[used])
        parts = xp.stack([part.astype(float) for part in parts], 1)
        parts = arrays.put(xp.zeros((len(here), 4)), used, parts) if xp is np else parts
        return arrays.put(found, index, parts.reshape(-1, 2, 4))

    found = arrays.loop(-(-state.size // s.chunk), one, xp.zeros((n, 2, 4)))
    jump, several, step, middle = (found[..., i] for i in range(4))
    jump, several = jump > 0, several > 0
    left = state.pairs[:, :, 0]
    # the half that changes nothing passes what was known of the interval to the other half
    parent = state.parent[:, None]
    inherits = (parent >= 0) & jump & ~jump[:, ::-1]
    tries = xp.where(inherits, state.tries[parent] + 1, 0)
    multi = several | (inherits & state.multi[parent])
    single = inherits & state.single[parent]
    owner = xp.where(left >= 0, left, n).reshape(-1)
    found = {"jump": jump, "multi": multi, "single": single, "tries": tries, "middle": middle}
    kept = {
        name: arrays.put(getattr(state, name), owner, a.reshape(-1)) for name, a in found.items()
    }
    return state._replace(
        **kept,
        ranked=state.ranked | several.any(),
        scale=xp.maximum(state.scale, xp.max(step)),  # units may cancel in every gradient
        filled=state.filled + state.size,
        queries=state.queries + state.size,
    )


def absorb(s: Settings, state: State) -> State:
    """Close a round whose replies are stored, and plan the next."""
    xp = namespace(state.angle)
    state = touching.learn(s, settle(s, state))
    state = plan(s, state._replace(rounds=state.rounds + 1))
    return state._replace(phase=xp.where(state.fault >= 0, lines.FAULT, state.phase))


def in_jax(s: Settings, oracle: Oracle, state: State) -> State:
    """Run rounds until the search ends or its arrays are full, the victim traced inside."""

    def ask(i: Array, state: State) -> State:
        first = i * s.chunk
        x = queries(s, state, first, s.chunk)
        return store(s, state, first, x, oracle(x))

    def one_round(state: State) -> State:
        asked = state.size + 2 * state.touches
        return absorb(s, lax.fori_loop(0, -(-asked // s.chunk), ask, state))

    return lax.while_loop(lambda a: a.phase == lines.RUNNING, one_round, state)


@QUIET
def in_numpy(
    s: Settings,
    ask: Callable[[np.ndarray], Iterable[Reply]],
    state: State,
    failed: int | None = None,
) -> State:
    """The same rounds in NumPy, for any victim: one call of `ask` a round, replies in parts.

    failed: stop, still RUNNING, once so many touches explained nothing.
    """
    while state.phase == lines.RUNNING and (failed is None or state.failed < failed):
        asked = int(state.size + 2 * state.touches)
        x = queries(s, state, 0, asked)
        first = 0
        for part in ask(x):
            for start in range(0, len(part.value), s.chunk):
                reply = Reply(*(a[start : start + s.chunk] for a in part))
                state = store(s, state, first, x[first : first + len(reply.value)], reply)
                first += len(reply.value)
        state = absorb(s, state)
    return state


@QUIET
def bracket(s: Settings, state: State, budget: int) -> State:
    """Reopen an ended search, in NumPy, to certify its kinks one by one and not by touching.

    Touching can mistake units with parallel rows; two points beside a kink cannot.
    """
    state = state._replace(
        single=np.zeros_like(state.single),
        failed=np.asarray(lines.FAILED_TOUCHES),
        width=np.asarray(-1),  # that many were found, and it was wrong
        budget=np.asarray(budget),
    )
    return plan(s, state)


@QUIET
def grow(s: Settings, state: State) -> State:
    """Twice the capacity, the round planned anew, in NumPy: for a search that ended lines.FULL."""
    bigger = twice(s)
    empty = lines.begin(bigger, arrays.host_key(state.key), state.width, state.budget)

    def widen(name: str) -> Array:
        old, new = getattr(state, name), getattr(empty, name)
        return old if old.shape == new.shape else arrays.put(new, slice(len(old)), old)

    kept = {name: widen(name) for name in State._fields if name not in lines.PER_GROUP}
    state = State(**kept, **{name: getattr(empty, name) for name in lines.PER_GROUP})
    return plan(bigger, state)


@QUIET
def unlike(s: Settings, state: State) -> bool:
    """Whether the replies of an ended search, in NumPy, are plainly not piecewise linear.

    Of a smooth function every interval holds a "kink", and neighbouring jumps are in proportion
    to their intervals; of noise every interval too, and neighbouring jumps turn back.
    """
    iv = lines.intervals(s, state)
    both = iv.kink[1:] & iv.kink[:-1]
    if np.sum(both) < MANY:
        return False
    jump = (state.along[iv.right] - state.along[iv.left]).reshape(len(iv.kink), -1)
    length = np.tan(iv.high) - np.tan(iv.low)
    slope = jump / np.where(length > 0, length, 1.0)[:, None]
    size, steep = np.linalg.norm(jump, axis=1), np.linalg.norm(slope, axis=1)
    change = np.linalg.norm(slope[1:] - slope[:-1], axis=1)[both]
    change = change / (steep[1:] + steep[:-1])[both]
    turn = np.sum(jump[1:] * jump[:-1], 1)[both] / (size[1:] * size[:-1])[both]
    change, turn = change[np.isfinite(change)], turn[np.isfinite(turn)]  # no jump, but a shift
    smooth = len(change) > 0 and np.median(change) < 0.1
    return bool(smooth or (len(turn) > 0 and np.mean(turn) < -0.25))


def twice(s: Settings) -> Settings:
    """The settings `grow` grows to."""
    return s._replace(capacity=2 * s.capacity)
