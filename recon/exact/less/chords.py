"""Kinks of a piecewise linear function of one variable, from its values alone.

F: R -> R^q is continuous and piecewise linear, with jumps dS_j of its slope at kinks k_j (along a
line: one for each hidden unit, so that every jump has its own direction).  Replies F(t_0), ...,
F(t_n) have second differences

    D_i = (F_{i+1} - F_i) / (t_{i+1} - t_i) - (F_i - F_{i-1}) / (t_i - t_{i-1})
        = sum_j dS_j phi_i(k_j),                   phi_i the hat function of node i.

For numbers c_i let c(t) = sum_i c_i phi_i(t) be the broken line through the points (t_i, c_i);
then sum_i c_i D_i = sum_j c(k_j) dS_j.

Lemma.  If sum_i c_i D_i = 0 over m <= q neighbouring nodes, while no fewer of them have such a
relation, and the jumps are in general position, then c vanishes at every kink in the window.
So the first and the last of its m + 1 gaps hold no kink, and each other gap holds exactly one,
where c changes sign.

m = 1 says that three points on a straight line bound no kink, m = 2 that chords of two cells that
meet in all coordinates meet at the only kink between them; with q = 9 up to eight kinks are read
off eleven replies at once.  m vectors in R^q are dependent by chance with probability zero; here q
is the dimension of what the jumps span (`rank`), which is less where an output reads no unit.
q = 1 knows m = 1 only: there a kink is bracketed by two points just beside where chords meet.  So
it is with one input, where two kinks taken for one are wrong between them alone.

A reply's `noise` bounds its rounding error; relations must hold to that.  On 64 random kinks this
takes 1.9 replies a kink for q = 9, 2.2 for q = 3, 2.9 for q = 2 and about 6 for q = 1; with hints
of which cells are one 1.8, 2.1, 2.8 and 4.8.  All this is our own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

OPEN, EMPTY, KINK = 0, 1, 2  # what is known of a gap between neighbouring replies
FULL = -1  # of a hint: the gap holds a kink, one or several
LEVEL = 8.0  # noises up to which a relation holds
CLEAR = 1e4  # noises that the other singular values of a relation must exceed
BLIND = 1e-4  # of the largest slope: noise of a second difference above which it proves nothing
WINDOW = 12  # nodes of a window at most
NARROW = 1e-8  # radians: kinks as close count as one
BESIDE, SLIM = (
    1e-4,
    1e-2,
)  # of a gap: how far beside where chords meet a kink of q = 1 is bracketed;
# and how slim a gap is beside its neighbours if it is such a bracket
EDGE = 0.02  # of a gap: where chords meet nearer its ends, it is halved instead
ALONE, PART = 4, 1 / 3  # open gaps up to which one is split a round; of more, how many
ROUNDS = 200
FEW = 256  # replies on a later line, where few units are missing
MANY = 1 << 12  # replies on a line at most
WILD = 4  # gaps of a line left undecided, above which nothing of it is used


class Wild(Exception):
    """A first line on which nearly every reply shows new kinks: noise, or many more than MANY."""


class Line(NamedTuple):
    """x = u + tau tan(angle) v."""

    u: np.ndarray  # [d]
    v: np.ndarray  # [d]
    tau: float

    def at(self, t: np.ndarray) -> np.ndarray:
        """Points [n, d] at t [n]."""
        return self.u[None] + t[:, None] * self.v[None]


class Replies(NamedTuple):
    """Sorted by t: t [n], f [n, q], noise [n]; number [n] of the reply, for the caller."""

    t: np.ndarray
    f: np.ndarray
    noise: np.ndarray
    number: np.ndarray

    def only(self, which: np.ndarray) -> Replies:
        """Those in a mask."""
        return Replies(*(a[which] for a in self))

    def and_(self, other: Replies) -> Replies:
        """Both, sorted."""
        order = np.argsort(np.concatenate([self.t, other.t]), kind="stable")
        return Replies(*(np.concatenate(pair)[order] for pair in zip(self, other, strict=True)))


class Kinks(NamedTuple):
    """Where [m], the jumps of the slope there [m, q], the line base [2, q] left of all, and how
    uncertain each jump is [m]: much where kinks are close.  open: gaps left undecided, as many.
    """

    t: np.ndarray
    jump: np.ndarray
    base: np.ndarray
    doubt: np.ndarray
    open: int

    def only(self, which: np.ndarray) -> Kinks:
        """Some of them, by a mask or in an order; as a function F is then another."""
        return Kinks(self.t[which], self.jump[which], self.base, self.doubt[which], self.open)

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """F [n, q] at t [n]."""
        return basis(t, self.t) @ np.concatenate([self.base, self.jump])


def basis(t: np.ndarray, kinks: np.ndarray) -> np.ndarray:
    """1, t and max(t - k_j, 0) for kinks [m]: [n, 2 + m]."""
    return np.column_stack([np.ones_like(t), t, np.maximum(t[:, None] - kinks[None], 0.0)])


Ask = Callable[[np.ndarray], Replies]  # t [n] -> replies
Hint = Callable[[np.ndarray], np.ndarray]  # numbers [n] -> OPEN, EMPTY or FULL for [n - 1] gaps


def no_hint(number: np.ndarray) -> np.ndarray:
    """Nothing known but the values."""
    return np.full(len(number) - 1, OPEN)


def _differences(r: Replies) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Second differences [n - 2, q] in units of their noise [n - 2], and which prove anything."""
    gap = np.diff(r.t)
    slope = np.diff(r.f, axis=0) / gap[:, None]
    left, right = gap[:-1], gap[1:]
    noise = r.noise[:-2] / left + r.noise[1:-1] * (1 / left + 1 / right) + r.noise[2:] / right
    steep = max(np.abs(slope).max(initial=0.0), CLEAR / BLIND * np.median(noise))  # if f is flat
    return np.diff(slope, axis=0) / noise[:, None], noise, LEVEL * noise < BLIND * steep


def rank(r: Replies) -> int:
    """The dimension of what the jumps seen so far span, at least 1."""
    scaled, _, seen = _differences(r)
    return max(1, int((np.linalg.svd(scaled[seen], compute_uv=False) > CLEAR).sum()))


def explain(r: Replies, hint: np.ndarray, joint: int = WINDOW) -> tuple[np.ndarray, np.ndarray]:
    """What each gap [n - 1] holds, by the lemma, and where its kink is (nan without one).

    joint: nodes of a relation at most.
    """
    gap = np.diff(r.t)
    state = np.where(hint == EMPTY, EMPTY, OPEN)
    where = np.full(len(gap), np.nan)
    scaled, noise, seen = _differences(r)
    for m in range(1, min(joint, len(noise), WINDOW) + 1):
        a = np.arange(len(noise) - m + 1)  # windows: nodes a + 1 ... a + m, gaps a ... a + m
        inner, nodes = a[:, None] + np.arange(1, m)[None], a[:, None] + np.arange(m)[None]
        fits = (state[a] != KINK) & (state[a + m] != KINK) & (hint[a] >= 0) & (hint[a + m] >= 0)
        fits &= (state[inner] != EMPTY).all(1) & seen[nodes].all(1)
        fits &= (state[a[:, None] + np.arange(m + 1)[None]] == OPEN).any(1)
        if not (a := a[fits]).size:
            continue
        basis, size, _ = np.linalg.svd(scaled[nodes[fits]], full_matrices=False)
        c = basis[:, :, -1] / noise[nodes[fits]]
        good = (size[:, -1] <= LEVEL) & (c[:, 1:] * c[:, :-1] < 0).all(1)
        if m > 1:
            good &= size[:, -2] > CLEAR
        for i, weight in zip(a[good], np.abs(c[good]), strict=True):
            gaps = np.arange(i, i + m + 1)
            now = state[gaps]
            want = np.full(m + 1, KINK)
            want[[0, -1]] = EMPTY
            if ((now != OPEN) & (now != want)).any():
                continue
            state[gaps] = want
            share = weight[:-1] / (weight[:-1] + weight[1:])
            where[gaps[1:-1]] = r.t[gaps[1:-1]] + gap[gaps[1:-1]] * share
    if joint == 1:
        _bracketed(r, state, where)
    return state, where


def _bracketed(r: Replies, state: np.ndarray, where: np.ndarray) -> None:
    """Take slim gaps in which the tangents of their neighbours meet for kinks, in place."""
    gap = np.diff(r.t)
    sides = (state[:-2] == EMPTY) & (state[1:-1] == OPEN) & (state[2:] == EMPTY)
    slim = np.minimum(SLIM * (gap[:-2] + gap[2:]), EDGE * np.minimum(gap[:-2], gap[2:]))
    for i in np.flatnonzero(sides & (gap[1:-1] < slim)) + 1:
        share = _share(r, int(i))
        if 0 < share < 1:
            state[i], where[i] = KINK, r.t[i] + share * gap[i]


def search(
    ask: Ask,
    line: Line,
    start: Replies,
    hint: Hint = no_hint,
    most: int = MANY,
    joint: int = WINDOW,
) -> tuple[Replies, Kinks]:
    """All kinks between the first and the last of the replies `start`, by asking some `most` more.

    joint: nodes of a relation at most; with 1, jumps need not be in general position.

    Gaps that are not explained by then, or so narrow, count as a kink each; where these are more
    than WILD, none is returned: fitting thousands would take minutes.  Raises Wild where `most` is
    MANY and they are not enough.
    """
    r = start
    for _ in range(ROUNDS):
        hints, nodes = hint(r.number), min(joint, rank(r))
        state, where = explain(r, hints, nodes)
        angle = np.arctan(r.t / line.tau)
        open_ = (state == OPEN) & (np.diff(angle) > NARROW)
        if open_.any() and len(r.t) > MANY:
            raise Wild(f"{len(r.t)} replies on a line leave {int(open_.sum())} gaps unexplained.")
        if not open_.any() or len(r.t) > most:
            break
        new = np.unique(
            np.concatenate(
                [_stretch(r, angle, state, a, b, line.tau, nodes) for a, b in _runs(open_)]
            )
        )
        r = r.and_(ask(new))
    return r, _kinks(r, state, where)


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Stretches [a, b) of neighbours where mask [n] holds."""
    edge = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(zip(edge[::2].tolist(), edge[1::2].tolist(), strict=True))


def _stretch(
    r: Replies, angle: np.ndarray, state: np.ndarray, a: int, b: int, tau: float, joint: int
) -> np.ndarray:
    """Where to ask in the stretch of open gaps a ... b - 1: a t [k]."""
    width = np.diff(angle[a : b + 1])
    some = 1 if b - a <= ALONE else max(1, int((b - a) * PART))
    chosen = a + np.argsort(-width, kind="stable")[:some]
    out = []
    for i in chosen:
        if b - a == 1:
            out.extend(_meeting(r, state, i, tau, joint))
        else:
            out.append(tau * np.tan((angle[i] + angle[i + 1]) / 2))
    return np.array(out)


def _meeting(r: Replies, state: np.ndarray, i: int, tau: float, joint: int) -> list[float]:
    """Where to split gap i, whose neighbours hold no kink: where their tangents meet."""
    low, high = r.t[i], r.t[i + 1]
    middle = tau * np.tan((np.arctan(low / tau) + np.arctan(high / tau)) / 2)
    if i == 0 or i + 2 >= len(r.t) or state[i - 1] != EMPTY or state[i + 1] != EMPTY:
        return [middle]
    share = _share(r, i)
    if joint == 1 and EDGE < share < 1 - EDGE:
        return [low + (share + side * BESIDE) * (high - low) for side in (-1, 1)]
    return [low + share * (high - low)] if EDGE < share < 1 - EDGE else [middle]


def _share(r: Replies, i: int) -> float:
    """Where in gap i the chords of its neighbours meet, by least squares, as a share of it."""
    gap = r.t[i + 1] - r.t[i]
    before = (r.f[i] - r.f[i - 1]) / (r.t[i] - r.t[i - 1])
    after = (r.f[i + 2] - r.f[i + 1]) / (r.t[i + 2] - r.t[i + 1])
    jump, off = after - before, r.f[i + 1] - after * gap - r.f[i]
    size = float(jump @ jump)
    return float(-(jump @ off) / size / gap) if size > 0 else 0.5


def _kinks(r: Replies, state: np.ndarray, where: np.ndarray) -> Kinks:
    """The kinks and their jumps, by least squares over all replies."""
    narrow = state == OPEN
    if (count := int(narrow.sum())) > WILD:
        none = np.zeros((0, r.f.shape[1]))
        return Kinks(none[:, 0], none, np.zeros((2, r.f.shape[1])), none[:, 0], count)
    at = np.where(narrow, (r.t[:-1] + r.t[1:]) / 2, where)
    t = at[(state == KINK) | narrow]
    system = basis(r.t, t) / r.noise[:, None]
    size = np.linalg.norm(system, axis=0)
    size = np.where(size > 0, size, 1.0)
    inverse = np.linalg.pinv(system / size, rcond=1e-15)
    solved = inverse @ (r.f / r.noise[:, None]) / size[:, None]
    doubt = np.linalg.norm(inverse, axis=1) / size
    return Kinks(t, solved[2:], solved[:2], doubt[2:], count)
