"""What is always on: the linear part that units leave of a network, and how units are turned.

A unit is met with either sign: w max(y, 0) = w max(-y, 0) + w y, y = n x + b.  Where rows are
independent, what is left always on is - sum of w_i n_i over the units that were taken the wrong way
round; these are turned, and nothing is left, for any class.  Else it stays a linear part.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon.exact.less import fresh
from recon.exact.less.odds import Log
from recon.networks import TwoLayer

SIGN = 1e-5  # how far a coefficient of the always-on part may be from 0 or -w
STEADY = 1e-3  # of the largest gradient: what differs more within a class is a missing unit's


def _left(log: Log, network: TwoLayer) -> np.ndarray:
    """What the units leave of the gradients [n, d]: of each class what is always on."""
    return np.asarray(log.gradient - fresh.top_gradient(network, log.x, log.label))


def steady(log: Log, units: TwoLayer) -> bool:
    """Whether that is the same in all replies of a class, as it is if no unit is missing."""
    left, ok = _left(log, units), True
    scale = np.linalg.norm(log.gradient, axis=1).max()
    for a in np.unique(log.label):
        here = left[log.label == a]
        ok &= bool(np.linalg.norm(here - np.median(here, axis=0), axis=1).max() <= STEADY * scale)
    return ok


def assembled(log: Log, units: TwoLayer) -> tuple[TwoLayer, list[int]]:
    """The network of these units: turned round so that no linear part is left, or with one.

    Then also the classes that were never seen on top, whose linear part is not known.
    """
    left = _left(log, units)
    nearest = np.argsort(np.linalg.norm(log.x, axis=1), kind="stable")
    seen = {int(a): left[nearest][log.label[nearest] == a][0] for a in np.unique(log.label)}
    now = turned(units, seen)
    if now is not None:
        return _with_offset(log, now), []
    slope = np.tile(np.mean([*seen.values()], axis=0), (log.outputs, 1))
    for a, row in seen.items():
        slope[a] = row
    unseen = [a for a in range(log.outputs) if a not in seen]
    return _with_offset(log, replace(units, slope=slope)), unseen


def turned(units: TwoLayer, seen: dict[int, np.ndarray]) -> TwoLayer | None:
    """The units with signs that leave nothing always on, None if there are none."""
    if units.width > units.rows.shape[1]:
        return None
    turn = np.zeros(units.width, bool)
    sure = np.zeros(units.width)
    for a, row in seen.items():
        part = np.linalg.lstsq(units.rows.T, row)[0]
        scale = np.abs(units.weights[a]).max(initial=1e-300)
        if np.linalg.norm(part @ units.rows - row) > SIGN * scale:
            return None
        weight = units.weights[a]
        to_turn = np.abs(part + weight) < np.abs(part)
        if (
            np.abs(part + weight * to_turn) > SIGN * np.maximum(np.abs(weight), 1e-4 * scale)
        ).any():
            return None
        better = np.abs(weight) > sure
        turn, sure = np.where(better, to_turn, turn), np.maximum(sure, np.abs(weight))
    sign = np.where(turn, -1.0, 1.0)
    return replace(units, rows=units.rows * sign[:, None], bias=units.bias * sign)


def solved(log: Log, network: TwoLayer, unseen: list[int], seed: np.ndarray) -> TwoLayer:
    """The network with slopes of classes never seen on top, from values at ordinary points."""
    x = np.random.default_rng(seed).standard_normal((log.dim + 2, log.dim))
    number = log.ask(fresh.inside(log, network, x))
    number = number[log.usable[number]]
    left = log.z[number] - network(log.x[number])
    if log.hidden:  # the shift of each reply is that of a class seen
        seen = np.delete(np.arange(log.outputs), unseen)
        left = left - left[:, seen[:1]]
    system = np.column_stack([log.x[number], np.ones(len(number))])
    slope, offset = network.slope.copy(), network.offset.copy()
    solved = np.linalg.lstsq(system, left[:, unseen])[0]
    slope[unseen] += solved[:-1].T
    offset[unseen] += solved[-1]
    return _with_offset(log, replace(network, slope=slope, offset=offset))


def _with_offset(log: Log, network: TwoLayer) -> TwoLayer:
    """The network with offsets by the median of all replies that are not saturated."""
    number = np.flatnonzero(log.usable)
    left = log.f(number) - network(log.x[number]) @ log.basis
    offset = log.basis @ np.median(left, axis=0)
    return replace(network, offset=network.offset + offset)
