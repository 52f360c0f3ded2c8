"""From planes and replies to the classes' weights; and which inputs would tell what is missing.

With every unit's plane known, each reply is linear in what is unknown of the class k on top:

    gradient = sum over units on of W_ki n_i + S_k      value = gradient x + sum on W_ki b_i + c_k

W_k from the normal equations, whose matrix is (P^T P) * (N N^T), the pattern of units on [n, h]
times the rows elementwise; S_k is what is left over, or taken out first by centring P.  Where the
rows are independent and all gradients are sums of them, units can be turned so that S = 0: then
one reply with all units on tells all of W_k.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact.less.top_replies import Log
from recon.exact.less.top_touch import Planes
from recon.networks import TwoLayer

SWEEPS = 3  # of rows and weights in turn
FITS = 1e-6  # of the largest gradient: what rounding leaves of replies that are explained
ENTERS = 1e-6  # the part of a unit in a sum of weights, above which it has one
TOLD = 1e-4  # of the largest singular value: smaller ones leave rows and biases as they were found
RANK = 1e-9  # of the largest eigenvalue: one below is a direction that no reply tells
CANDIDATES = 512  # inputs among which the most telling is chosen
RADII = (0.3, 1.0, 3.0, 10.0)  # of random inputs, among which they are chosen too
FARTHEST = 1e6  # times standard normal: beyond, rounding may decide which class is on top
BARELY = 1e-4  # how far beyond its plane a unit is switched, relative to what is usual


class Reading(NamedTuple):
    """What the replies say: the network, and what they do not say of it."""

    network: TwoLayer
    seen: np.ndarray  # [K] classes that were on top somewhere
    plain: bool  # whether S = 0
    open: list[np.ndarray]  # of each class the sums of weights [h, r] that no reply tells

    @property
    def missing(self) -> np.ndarray:
        """Whether W_ki is still open, [K, h]."""
        return np.stack([(np.abs(sums) > ENTERS).any(1) for sums in self.open])

    @property
    def left(self) -> int:
        """How many sums of weights are open."""
        return sum(sums.shape[1] for sums in self.open)


def read(log: Log, planes: Planes) -> Reading:
    """The network that fits all replies best, of which some may still be open."""
    planes, plain = _turned(log, planes)
    rows, bias = planes
    on = (log.x @ rows.T + bias[None] > 0).astype(float)
    outputs = max(int(log.label.max()) + 1, log.classes)
    seen = np.isin(np.arange(outputs), log.label)
    weights, unknown = np.zeros((outputs, len(bias))), [np.zeros((len(bias), 0))] * outputs
    slope, offset = np.zeros((outputs, log.dim)), np.where(seen, 0.0, -np.inf)
    for _ in range(SWEEPS):
        for k in np.flatnonzero(seen):
            here = log.label == k
            fitted = _weights(on[here], log.gradient[here], rows, plain)
            weights[k], slope[k], unknown[k] = fitted
        active = on * weights[log.label]
        rest = log.gradient - slope[log.label] - active @ rows
        if np.linalg.norm(rest, axis=1).max(initial=0.0) > FITS * log.scale:
            break  # a unit is missing, which would spoil all rows
        whole = np.array([sums.shape[1] == 0 for sums in unknown])
        told = whole[log.label]  # what is open of a class would spoil them too
        rows = rows + _least(active[told], rest[told])
        size = np.linalg.norm(rows, axis=1)
        size = np.where(size > 0, size, 1.0)
        rows, bias, weights = rows / size[:, None], bias / size, weights * size[None]
    else:
        bias, offset = _offsets(log, TwoLayer(rows, bias, weights, slope, offset), on, told)
    return Reading(TwoLayer(rows, bias, weights, slope, offset), seen, plain, unknown)


def _turned(log: Log, planes: Planes) -> tuple[Planes, bool]:
    """The planes, rows turned to the side where their units are on, if there is one; whether."""
    rows, bias = planes
    parts = log.parts(rows)
    if parts is None:
        return planes, False
    shown = np.abs(parts) > log.shown
    right = log.x @ rows.T + bias[None] > 0
    on_right, on_left = (shown & right).any(0), (shown & ~right).any(0)
    plain = not (on_right & on_left).any()
    sign = np.where(plain & on_left, -1.0, 1.0)
    return Planes(rows * sign[:, None], bias * sign), bool(plain)


def _weights(
    on: np.ndarray, gradient: np.ndarray, rows: np.ndarray, plain: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W_k [h], S_k [d] and the sums of weights that are open [h, r], from replies of one class."""
    pattern = on if plain else on - on.mean(0)
    gram = (pattern.T @ pattern) * (rows @ rows.T)
    value, vector = np.linalg.eigh(gram)
    kept = value > RANK * value.max(initial=0.0)
    inverse = (vector[:, kept] / value[kept]) @ vector[:, kept].T
    weights = np.zeros(len(rows))
    for _ in range(3):  # normal equations square the condition number; refinement undoes it
        rest = gradient - (on * weights) @ rows
        rest = rest if plain else rest - rest.mean(0)
        weights = weights + inverse @ np.sum(pattern * (rest @ rows.T), 0)
    slope = 0.0 if plain else 1.0
    return weights, slope * (gradient - (on * weights) @ rows).mean(0), vector[:, ~kept]


def _least(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Least squares, columns of a scaled alike."""
    size = np.linalg.norm(a, axis=0)
    size = np.where(size > 0, size, 1.0)
    x = np.linalg.lstsq(a / size, b, rcond=TOLD)[0]
    return np.asarray((x.T / size).T)


def _offsets(
    log: Log, network: TwoLayer, on: np.ndarray, told: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """b [h] by the values told [n], and c [K] by all; those from far out count less.

    c by itself at first: values too few to tell b would make up for it by both.
    """
    rows, bias, weights, slope, offset = (np.asarray(a) for a in _fields(network))
    active = on * weights[log.label]
    indicator = np.eye(len(offset))[log.label]
    linear = np.sum((active @ rows + slope[log.label]) * log.x, 1)
    weigh = 1 / (1e-100 + np.abs(log.value) + log.scale * (1 + np.linalg.norm(log.x, axis=1)))
    for columns in (indicator, np.concatenate([indicator, active * told[:, None]], 1)):
        c = np.where(np.isfinite(offset), offset, 0.0)
        rest = (log.value - linear - active @ bias - c[log.label]) * weigh
        change = _least(columns * weigh[:, None], rest)
        offset = offset + change[: len(offset)]
    bias = bias + change[len(offset) :]
    return bias, offset


def _fields(network: TwoLayer) -> tuple[np.ndarray, ...]:
    return network.rows, network.bias, network.weights, network.slope, network.offset


def telling(log: Log, reading: Reading, rng: np.random.Generator) -> np.ndarray:
    """Inputs [m, d], one for each class whose weights are open, that should tell most of them.

    From inputs where the class was on top: open units are moved barely beyond their planes, to
    the side on which they were not seen, all of them or some.  A unit barely on changes no logit.
    Where S = 0 a reply tells of all units on; else a pattern p of units tells of a sum v of weights
    by sum_i p_i v_i n_i, where that is not zero.
    """
    network = reading.network
    rows, bias = network.rows, network.bias
    found, missing = [], reading.missing
    for k in np.flatnonzero(missing.any(1)):
        x = log.x[log.label == k]
        on = x @ rows.T + bias[None] > 0
        want = np.where(reading.plain | ~on.any(0), 1.0, -1.0)
        start = x[rng.integers(len(x), size=CANDIDATES)]
        share = rng.random(CANDIDATES) ** 2 * (np.arange(CANDIDATES) > CANDIDATES // 4)
        moved = missing[k][None] & (rng.random((CANDIDATES, len(bias))) >= share[:, None])
        away = rng.standard_normal(start.shape) * rng.choice(RADII, (CANDIDATES, 1))
        tried = np.concatenate([_moved(start, moved, want, rows, bias), away])
        pattern = tried @ rows.T + bias[None] > 0
        if reading.plain:
            score = (pattern & missing[k]).sum(1).astype(float)
        else:
            pattern = pattern - on.mean(0)
            tells = (reading.open[k] @ reading.open[k].T) * (rows @ rows.T)
            score = np.sum(pattern @ tells * pattern, 1)
        far = np.linalg.norm(tried, axis=1) > FARTHEST * log.dim**0.5
        score[far | (network(tried).argmax(1) != k)] -= len(bias)
        found.append(tried[np.argmax(score)])
    return np.array(found).reshape(-1, log.dim)


def all_on(reading: Reading, x: np.ndarray) -> np.ndarray:
    """x [m, d] moved to where a class tells all of its weights, if one reply can: S = 0."""
    rows, bias = reading.network.rows, reading.network.bias
    if not reading.plain:
        return x
    every = np.ones((len(x), len(bias)), bool)
    return _moved(x, every, np.ones(len(bias)), rows, bias)


def _moved(
    x: np.ndarray, moved: np.ndarray, want: np.ndarray, rows: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """x [m, d] with the units moved [m, h] barely beyond their planes on the side they want.

    The others stay where they are, if the rows are independent.
    """
    y = x @ rows.T + bias[None]
    level = want[None] * BARELY * (1e-3 + np.abs(y).mean(1, keepdims=True))
    change = np.where(moved & (y * want[None] <= 0), level - y, 0.0)
    if len(rows) <= rows.shape[1]:
        return np.asarray(x + change @ np.linalg.pinv(rows).T)
    chosen = rows[None] * (change != 0)[:, :, None]
    return np.asarray(x + np.einsum("mdh,mh->md", np.linalg.pinv(chosen), change))
