"""Kinks that no known unit explains, and how one of them shows its unit's whole row.

At a kink of a unit of the layer after `layers`, its normal is w_A times the Jacobian of the
inputs A that are on there: w_A by least squares, nothing about the others.  To see them, go along
the unit's own plane, inside the cell of the layers before, to where inputs that are off reach zero
(a linear program), and a little further: two replies on either side of the plane show the weights
of all that were raised.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact.deep import cells, known
from recon.exact.deep.cells import Chart
from recon.exact.deep.known import Layer, Layers
from recon.exact.deep.segment import Ask

CLOSE = 1e-6  # relative: a kink on a known unit's surface
SPAN = 1e-6  # of a normal of length one: what may lie outside a span
BESIDE = 1e-5  # of the point's size: how far beside the plane it is asked
RAISED = 1e-3  # of that: how far the inputs are raised


def tangents(layers: Layers, q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(z_l, its Jacobian in q) of every layer at q = z_1 [h_1]."""
    one = Layer(np.eye(len(q)), np.zeros(len(q)))
    return known.tangents([one, *layers[1:]], q)


def slopes(layers: Layers, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z [n, h] of the last layer and its Jacobian in q [n, h, h_1] at many q = z_1 [n, h_1]."""
    z, jacobian = q, np.eye(q.shape[1])[None]
    for weights, bias in layers[1:]:
        jacobian = weights @ ((z > 0)[:, :, None] * jacobian)
        z = np.maximum(z, 0) @ weights.T + bias
    return z, jacobian


class Owner(NamedTuple):
    """What is known of a kink: the unit that explains it (layer, unit), or else the first layer
    whose active rows do not span its normal (the number of layers, if all do).
    """

    unit: tuple[int, int] | None
    outside: int


def owner(layers: Layers, q: np.ndarray, normal: np.ndarray) -> Owner:
    """Of a kink at q with this normal in q."""
    length = float(np.linalg.norm(normal))
    size = 1 + float(np.linalg.norm(q))
    outside = len(layers)
    for number, (z, jacobian) in enumerate(tangents(layers, q)):
        norms = np.linalg.norm(jacobian, axis=1)
        norms = np.where(norms > 0, norms, 1e-300)
        cosine = np.abs(jacobian @ normal) / (norms * length)
        mine = (np.abs(z) < CLOSE * norms * size) & (cosine > 1 - 1e-7)
        if mine.any():
            return Owner((number, int(np.argmax(np.where(mine, cosine, 0)))), outside)
        if outside == len(layers) and number and not spanned(jacobian[z > 0], normal):
            outside = number
    return Owner(None, outside)


def spanned(rows: np.ndarray, vector: np.ndarray) -> bool:
    """Whether a vector [d] lies in the span of rows [m, d]."""
    norms = np.linalg.norm(rows, axis=1)
    rows = rows[norms > 0] / norms[norms > 0][:, None]
    if not len(rows):
        return False
    a = np.linalg.lstsq(rows.T, vector, rcond=1e-10)[0]
    return bool(np.linalg.norm(vector - a @ rows) < SPAN * np.linalg.norm(vector))


class Partial(NamedTuple):
    """A row of the next layer as far as seen: weights [h] of the inputs `seen` [h], and bias.

    At q its unit switches; masks: of all layers there, the last a part of `seen`.
    """

    q: np.ndarray
    masks: tuple[np.ndarray, ...]
    weights: np.ndarray
    bias: float
    seen: np.ndarray


def partial(layers: Layers, q: np.ndarray, normal: np.ndarray) -> Partial | None:
    """What a kink tells of a unit of the next layer; None where it is not one, or is not told."""
    found = tangents(layers, q)
    z, jacobian = found[-1]
    masks = tuple(z > 0 for z, _ in found)
    on = z > 1e-9 * (1 + np.abs(z).max())
    if not on.any():
        return None
    norms = np.linalg.norm(jacobian[on], axis=1)
    base = jacobian[on] / norms[:, None]
    a, _, rank, _ = np.linalg.lstsq(base.T, normal, rcond=1e-9)
    off = np.linalg.norm(normal - a @ base)
    if rank < on.sum() or off > SPAN * np.linalg.norm(normal):
        return None
    weights = np.zeros(len(z))
    weights[on] = a / norms
    length = np.linalg.norm(weights)
    weights = weights / length
    return Partial(q, (*masks[:-1], on), weights, -float(weights @ np.where(on, z, 0)), on)


def lifted(
    ask: Ask, layers: Layers, chart: Chart, part: Partial, box: float, rng: np.random.Generator
) -> Partial | None:
    """The row with more of its inputs seen; two queries.  None where none can be raised, or the
    victim does not switch there.
    """
    where = cells.region(layers, list(part.masks))
    on, off = part.masks[-1], part.seen & ~part.masks[-1]
    where = where.less(off)
    e = part.weights @ (where.map * on[:, None])
    level = part.bias + part.weights @ (where.shift * on)
    if not e.any():
        return None
    if len(layers) == 1:
        q: np.ndarray | None = np.where(part.seen, part.q, 0.0)
        raised = ~part.seen
    else:
        q, raised = _to_zero(where, ~part.seen, e, level, part.q, box, rng)
    if q is None:
        return None
    up, across = where.map[raised], e / np.linalg.norm(e)
    system = np.concatenate([up, across[None]])
    if np.linalg.matrix_rank(system, tol=1e-9) < len(system):
        return None
    solve = np.linalg.pinv(system)
    aim = np.append(np.linalg.norm(up, axis=1), 0.0)
    lift, through = solve @ aim, solve @ np.append(np.zeros(len(up)), 1.0)
    size = BESIDE * (1 + np.abs(q).max())
    inner = where.rows @ through
    room = (where.rows @ q + where.level) / np.where(np.abs(inner) > 0, np.abs(inner), 1e-300)
    size = min(size, 0.1 * float(room.min(initial=np.inf)))
    start = q + RAISED * size * lift / max(np.abs(lift).max(), 1e-300)
    reply = ask(chart.x(np.stack([start + size * through, start - size * through])))
    jump = (reply.gradient[0] - reply.gradient[1]) @ chart.place
    _, values, right = np.linalg.svd(jump, full_matrices=False)
    noise = 1e-9 * np.linalg.norm(reply.gradient @ chart.place)
    if values[0] <= noise or (len(values) > 1 and values[1] > 1e-6 * values[0] + noise):
        return None
    base = np.concatenate([e[None], up])
    norms = np.linalg.norm(base, axis=1)
    a = np.linalg.lstsq((base / norms[:, None]).T, right[0], rcond=1e-12)[0]
    if np.linalg.norm(right[0] - a @ (base / norms[:, None])) > SPAN or abs(a[0]) < 1e-9:
        return None
    a = a / norms
    weights = part.weights.copy()
    weights[raised] = a[1:] / a[0]
    masks = (*part.masks[:-1], on | raised)
    length = np.linalg.norm(weights)
    return Partial(q, masks, weights / length, part.bias / float(length), part.seen | raised)


def _to_zero(
    where: cells.Region,
    off: np.ndarray,
    e: np.ndarray,
    level: float,
    q: np.ndarray,
    box: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray | None, np.ndarray]:
    """A point of the unit's plane, in the cell, with many of the inputs `off` at zero; and them."""
    inner = where.rows @ q + where.level
    margin = np.minimum(0.1 * inner, 1e-3 * box)
    a, shift = where.map[off], where.shift[off]
    norms = np.where(np.linalg.norm(a, axis=1) > 1e-12, np.linalg.norm(a, axis=1), 1.0)
    a, shift = a / norms[:, None], shift / norms
    side = box * rng.uniform(1, 3, (2, len(q))) + np.abs(q)
    length = np.linalg.norm(e)
    x = cells.lowest(
        -(a * rng.uniform(0.5, 1, len(a))[:, None]).sum(0),
        np.concatenate([-where.rows, a]),
        np.concatenate([where.level - margin, -shift]),
        np.stack([-side[0], side[1]], 1),
        ((e / length)[None], np.array([-level / length])),
    )
    if x is None:
        return None, off
    at = a @ x + shift > -1e-9 * box
    if not at.any():
        return None, off
    raised = np.zeros(len(off), bool)
    raised[np.flatnonzero(off)[at]] = True
    return x, raised
