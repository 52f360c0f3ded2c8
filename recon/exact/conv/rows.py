"""Rows of the dense layer's units, once it is known which of them are on where: linear equations.

At a point where feature f is on, column f of M = df/dy is sum_j s_j v_j u_jf + p_f, with s_j = 1
where unit j is on and its name v_j known: K equations for the h + K unknowns (p_f, u_f), whatever
the other features.  p, a linear part, takes up what never changes: units that are on at all points,
and what it costs to take on for off.  A triangle for each feature keeps the equations; a unit that
is new was off at all points before, and adds a column of zeros.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WEAK = 1e-9  # of the largest singular value: those below are of what is not told


class Rows(NamedTuple):
    """slope [K, f] and rows [h, f], nan where they are not told; the same with what is least where
    they are not; open [f, K + h, K + h], the projection on what is not told.
    """

    slope: np.ndarray
    rows: np.ndarray
    least_slope: np.ndarray
    least: np.ndarray
    open: np.ndarray


def parts(basis: np.ndarray, names: np.ndarray, states: np.ndarray) -> np.ndarray:
    """What the unknowns add to a column of M at points with states [n, h]: [n, K, a + h]."""
    fixed = np.broadcast_to(basis, (len(states), *basis.shape))
    return np.concatenate([fixed, np.swapaxes(states[:, :, None] * names, 1, 2)], 2)


class Equations:
    """Of each feature; triangle [f, n, n] and right sides [f, n] of n = a + h unknowns: what the
    columns of a basis [K, a] count in the linear part, and the rows.
    """

    def __init__(self, features: int, basis: np.ndarray, units: int = 0) -> None:
        self.basis, n = basis, basis.shape[1] + units
        self.triangle = np.zeros((features, n, n))
        self.right = np.zeros((features, n))
        self.left = np.zeros(features)  # what the equations of each contradict each other by

    @property
    def size(self) -> tuple[int, int]:
        """Of the basis, and the number of units."""
        a = self.basis.shape[1]
        return a, self.triangle.shape[1] - a

    def grow(self, units: int) -> None:
        """So many units more, off so far."""
        self.triangle = np.pad(self.triangle, ((0, 0), (0, units), (0, units)))
        self.right = np.pad(self.right, ((0, 0), (0, units)))

    def add(self, names: np.ndarray, state: np.ndarray, y: np.ndarray, slope: np.ndarray) -> None:
        """Those of a point."""
        (on,) = np.nonzero(y > 0)
        n = self.triangle.shape[1]
        system = np.zeros((len(on), n + len(slope), n + 1))
        system[:, :n, :n], system[:, :n, n] = self.triangle[on], self.right[on]
        system[:, n:, :n], system[:, n:, n] = parts(self.basis, names, state[None])[0], slope.T[on]
        reduced = np.asarray(np.linalg.qr(system, mode="r"))
        self.triangle[on], self.right[on] = reduced[:, :n, :n], reduced[:, :n, n]
        self.left[on] = np.hypot(self.left[on], reduced[:, n, n])

    def solved(self) -> Rows:
        """By singular values."""
        u, size, vt = np.linalg.svd(self.triangle)
        told = size > WEAK * np.maximum(size[:, :1], 1e-300)
        inverse = np.where(told, 1 / np.where(told, size, 1.0), 0.0)
        least = np.einsum("fin,fi->fn", vt, np.einsum("fni,fn->fi", u, self.right) * inverse).T
        free = vt * ~told[:, :, None]
        open_ = np.swapaxes(free, 1, 2) @ free
        loose = np.einsum("fnn->nf", open_) > WEAK
        exact = np.where(loose, np.nan, least)
        a = self.basis.shape[1]
        slope = np.where(loose[:a].any(0), np.nan, self.basis @ least[:a])
        return Rows(slope, exact[a:], self.basis @ least[:a], least[a:], open_)
