"""Planes of units, and which of those presumed are: asked beside all of them at once.

Two points on either side of many planes at once, somewhere along them, differ in gradient by
sum_i w_i n_i, whatever else is on there.  Of two units taken for one the planes lie elsewhere,
and the coefficient is zero.  Two queries test a group of up to ROOM d planes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact import touch
from recon.exact.less.top_replies import Log

ALIKE = 64.0  # roots of eps: the angle between rows that are one, as far as poor replies tell
STEP = 1e-4  # how far beside its planes a touch asks, relative to the point
RETRIES = 3  # touches that cross something unknown, or another class
ROOM = 0.8  # of the dimensions may be rows touched at once: their systems stay well conditioned


class Planes(NamedTuple):
    """n_i x + b_i = 0, rows of length one."""

    rows: np.ndarray  # [m, d]
    bias: np.ndarray  # [m]

    def and_(self, other: Planes) -> Planes:
        return Planes(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    def distinct(self, eps: float) -> Planes:
        """The first of those that are alike, whichever way their rows point, as far as replies of
        rounding unit eps tell.
        """
        angle = ALIKE * eps**0.5
        cosine = self.rows @ self.rows.T
        apart = np.abs(self.bias[:, None] - np.sign(cosine) * self.bias[None])
        close = apart < angle * (1 + np.abs(self.bias[None]))
        new = ~np.tril((np.abs(cosine) > 1 - angle**2 / 2) & close, -1).any(1)
        return Planes(self.rows[new], self.bias[new])


def touched(log: Log, units: Planes, rng: np.random.Generator) -> np.ndarray:
    """Which of the planes [m] are units': those across which the gradient jumps far from the line.

    All false where nothing could be told, as in one dimension.
    """
    real = np.zeros(len(units.bias), bool)
    todo = np.arange(len(real))
    for _ in range(RETRIES):
        groups = beside(Planes(units.rows[todo], units.bias[todo]), rng)
        if not groups:
            break
        asked = log.ask(np.concatenate([pair for _, pair in groups])).reshape(-1, 2)
        again = np.zeros(0, int)
        for (group, _), (plus, minus) in zip(groups, asked, strict=True):
            rows, jump = units.rows[todo[group]], log.gradient[plus] - log.gradient[minus]
            part = np.linalg.lstsq(rows.T, jump)[0]
            unexplained = np.linalg.norm(jump - part @ rows) > 1e-6 * log.scale
            if log.label[plus] != log.label[minus] or unexplained:
                again = np.concatenate([again, todo[group]])
            else:
                real[todo[group]] = np.abs(part) > 1e4 * log.tiny
        todo = again
    return real


def beside(units: Planes, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Groups of planes, and for each two points [2, d] on either side of all planes in it."""
    count, dim = units.rows.shape
    if dim == 1 or not count:
        return []
    size = -(-count // -(-count // max(1, int(ROOM * dim))))
    left, groups = np.arange(count), []
    while len(left):
        some, left = left[:size], left[size:]
        rows = units.rows[some]
        _, keep = touch.inverse(rows @ rows.T, np.ones(len(some), bool))
        groups.append((some[keep], _pair(rows[keep], units.bias[some[keep]], rng)))
        left = np.concatenate([left, some[~keep]])  # rows that depend on others of their group
    return groups


def _pair(rows: np.ndarray, bias: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two points [2, d] beside all planes, on either side of each, somewhere along them."""
    inverse = np.linalg.pinv(rows)
    away = rng.standard_normal(rows.shape[1])
    foot = away - inverse @ (rows @ away + bias)
    foot -= inverse @ (rows @ foot + bias)
    step = inverse @ np.ones(len(bias))
    step *= STEP * (1 + np.linalg.norm(foot)) / max(float(np.linalg.norm(step)), 1.0)
    return np.stack([foot + step, foot - step])
