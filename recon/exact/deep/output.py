"""The last layer, by linear regression: f = V max(z, 0) + U y + c over all replies.

z: of the last hidden layer, y: outputs of the one before.  Signs of z are not needed, as
max(z, 0) - max(-z, 0) = z is linear in y; U takes that up, and units that are on everywhere.
A unit that is missing, but is on at nearly all replies or at few, spoils few of them: these are
left out one after the other, until the rest is met exactly (`most`); those left out tell where the
unit switches.  Jacobians take part there: each is worth many values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon.exact.deep import known, lift
from recon.exact.deep.known import Layers
from recon.replies import Reply

EXACT = 1e-8  # of a value, or of the usual one: what a fit may leave
FAR = 1000.0  # times the median distance: replies from beyond are left out
NEAR = 20.0  # the same, where Jacobians take part
SPARE = 2  # replies more than unknowns, at least
TRIALS = (3, 6, 12)  # turns of reweighting, after which the worst replies are left out
TRIMS = 6  # turns of that, at most
HOPELESS = 0.01  # of the replies are met: of 100 fits that came out one met so few at first
SLOPES = 8  # directions in which Jacobians take part
MOST_BAD = 0.3  # of the replies
RANK = 1e-10  # of the largest singular value
SAMPLES = 32  # bad replies that say what is open


class Output(NamedTuple):
    """weights [K, h], slope [K, h before] and offset [K]."""

    weights: np.ndarray
    slope: np.ndarray
    offset: np.ndarray

    def __call__(self, layers: Layers, x: np.ndarray) -> np.ndarray:
        """Values [n, K] at x [n, d]."""
        z = known.before(layers, x)
        y = np.maximum(z[-2], 0) if len(z) > 1 else x
        return np.maximum(z[-1], 0) @ self.weights.T + y @ self.slope.T + self.offset

    def gradient(self, layers: Layers, x: np.ndarray) -> np.ndarray:
        """The Jacobian [K, d] at x [d]."""
        tangents = known.tangents(layers, x)
        z, along = tangents[-1]
        made = self.weights @ np.where(z > 0, along.T, 0).T
        if len(tangents) > 1:
            z, along = tangents[-2]
            along = np.where(z > 0, along.T, 0).T
        else:
            along = np.eye(len(x))
        return np.asarray(made + self.slope @ along)


class Fit(NamedTuple):
    """An output layer, and the replies that it does not meet (row numbers), good ones first."""

    output: Output
    good: np.ndarray
    bad: np.ndarray


def fit(
    layers: Layers, x: np.ndarray, value: np.ndarray, guess: np.ndarray | None = None
) -> Fit | None:
    """The output layer behind these hidden layers; None where too few replies are met exactly.

    guess [K, h]: its weights, as jumps show them, where replies do not tell.
    """
    (near,) = np.nonzero(within(x, FAR))
    hidden, linear, value = *_features(known.before(layers, x[near])), value[near]
    for slope in (linear[:, :0], linear):
        a = np.column_stack([hidden, slope, np.ones(len(near))])
        left = a / (length := _lengths(a))
        # far replies are to weigh no more than near ones
        weight = 1 / np.linalg.norm(left, axis=1)
        start = np.zeros((a.shape[1], value.shape[1]))
        start[: hidden.shape[1]] = 0 if guess is None else guess.T
        solved, rank, off = _solved(left[:, None], (value - a @ start)[:, None], weight)
        off = off * (np.abs(value - a @ start).max() / max(float(np.abs(value).max()), 1e-300))
        good = off < EXACT
        if good.sum() >= rank + SPARE and good.mean() >= 1 - MOST_BAD:
            solved, good = _widened(left[:, None], (value - a @ start)[:, None], solved, good)
            solved = start + solved / length[:, None]
            return _split(solved, hidden.shape[1], linear.shape[1], near, good)
    return None


def most(layers: Layers, x: np.ndarray, reply: Reply, place: np.ndarray) -> Fit | None:
    """The output layer that meets most replies, if these are many enough.

    place [d, h_1]: how x follows z_1 (`cells.Chart`), for which Jacobians take part.
    """
    (near,) = np.nonzero(within(x, NEAR) & ~known.beside(layers, x))
    if not len(near):
        return None
    x, value, gradient = x[near], reply.value[near], reply.gradient[near]
    z = known.before(layers, x)
    hidden, linear = _features(z)
    _, slope = lift.slopes(layers[:-1], z[0])
    along = np.random.default_rng(0).standard_normal((place.shape[1], SLOPES))
    slope = (z[-2] > 0)[:, :, None] * (slope @ along)
    last = (z[-1] > 0)[:, :, None] * (layers[-1].weights @ slope)
    slopes = np.concatenate([last, slope, np.zeros((len(near), 1, SLOPES))], 1)
    values = np.column_stack([hidden, linear, np.ones(len(near))])[:, None]
    jump = (gradient @ (place @ along)).swapaxes(1, 2)
    scale = max(float(np.abs(value).max()), 1e-300), max(float(np.abs(jump).max()), 1e-300)
    a = np.concatenate([values / scale[0], slopes.swapaxes(1, 2) / scale[1]], 1)
    b = np.concatenate([value[:, None] / scale[0], jump / scale[1]], 1)
    a = a / (length := _lengths(a))
    weight = np.ones(len(near))
    for turn in range(1, max(TRIALS) + 1):
        _, _, off = _solved(a, b, weight)
        weight = 1 / np.sqrt(np.maximum(off, 1e-10))
        if turn not in TRIALS:
            continue
        for _ in range(TRIMS):
            kept = off <= max(EXACT, np.quantile(off, 1 - MOST_BAD))
            solved, rank, off = _solved(a, b, kept)
            good = off < EXACT
            if (good == kept).all():
                break
        if good.sum() >= rank + SPARE and good.mean() >= 1 - MOST_BAD:
            solved, good = _widened(a, b, solved, good)
            solved = solved / length[:, None]
            return _split(solved, hidden.shape[1], linear.shape[1], near, good)
        if good.mean() < HOPELESS:
            break
    return None


def within(x: np.ndarray, most: float) -> np.ndarray:
    """Which points [n, d] are no farther out than so many times the median: [n]."""
    size = np.linalg.norm(x, axis=1)
    return np.asarray(size <= most * np.median(size))


def _features(z: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of the last hidden layer, and of the one before, if any."""
    before = np.maximum(z[-2], 0) if len(z) > 1 else np.zeros((len(z[-1]), 0))
    return np.maximum(z[-1], 0), before


def _lengths(a: np.ndarray) -> np.ndarray:
    """Of columns, of a [..., m]: [m], one for those of zeros."""
    length = np.linalg.norm(a.reshape(-1, a.shape[-1]), axis=0)
    return np.where(length > 0, length, 1.0)


def _solved(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """X of a X = b with a [n, e, m] and b [n, e, K], weights [n]; the rank, and how far each of
    the n is off, relative to its size and the median one.
    """
    left, right = ((part * weight[:, None, None]).reshape(-1, part.shape[2]) for part in (a, b))
    solved, _, rank, _ = np.linalg.lstsq(left, right, rcond=1e-12)
    size = np.abs(b).max((1, 2))
    off = np.abs(a @ solved - b).max((1, 2)) / np.maximum(size + np.median(size), 1e-300)
    return solved, int(rank), off


def _widened(
    a: np.ndarray, b: np.ndarray, solved: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The solution with what good replies leave open as most of the others have it, and all that
    are good then.

    A unit that is off at all good replies, or on at all of them, has any weight: each other reply
    says which, as far as it uses what is open, and the one that most of them agree with is right.
    """
    size = np.abs(b).max((1, 2))
    size = size + np.median(size)
    while (~good).sum() > SPARE:
        left, (bad,) = b[~good] - a[~good] @ solved, np.nonzero(~good)
        values, basis = np.linalg.svd(np.linalg.qr(a[good].reshape(-1, a.shape[2]), mode="r"))[1:]
        open_ = basis[np.sum(values > RANK * values[0]) :].T
        part = a[bad] @ open_  # [n, e, open]
        some = np.arange(0, len(bad), -(-len(bad) // SAMPLES))
        made = np.linalg.pinv(part[some], rcond=RANK) @ left[some]
        off = np.abs(left - part @ made[:, None]).max((2, 3)) / size[bad]
        best = int(np.argmax((off < EXACT).sum(1)))
        if (off[best] < EXACT).sum() <= SPARE:
            break
        solved, good = solved + open_ @ made[best], good.copy()
        good[bad[off[best] < EXACT]] = True
    return solved, good


def _split(solved: np.ndarray, count: int, before: int, near: np.ndarray, good: np.ndarray) -> Fit:
    """The fit of these coefficients: of `count` units, of none or all outputs before, an offset."""
    slope = np.zeros((solved.shape[1], before))
    slope[:, : len(solved) - 1 - count] = solved[count:-1].T
    return Fit(Output(solved[:count].T, slope, solved[-1]), near[good], near[~good])
