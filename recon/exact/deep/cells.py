"""Where all known units are on: the region in which the next layer's kinks are planes.

With at most d independent rows in the first layer, its z_1 = q can be anything: x = P (q - b).
Where every unit of the known layers is on, z of the last is affine in q, and a unit of the next
layer switches on a plane that shows its whole row.  The region is a convex polyhedron in q; for
the first layer alone it is the orthant q > 0, whose rays a plane must separate from each other or
from the origin if it meets the orthant at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recon.exact.deep.known import Layer, Layers

INSIDE = 0.02  # how far a vertex is pulled towards the centre of its region


def lowest(
    cost: np.ndarray,
    upper: np.ndarray,
    level: np.ndarray,
    bounds: Any,
    equal: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray | None:
    """The x of least cost x with upper x <= level, equal[0] x = equal[1], within bounds; None where
    there is none, or it was not found.
    """
    from scipy.optimize import linprog  # slow to import

    a, b = (None, None) if equal is None else equal
    found = linprog(cost, upper, level, a, b, bounds=bounds, method="highs")
    return np.asarray(found.x) if found.status == 0 else None


class Chart(NamedTuple):
    """x = place (q - bias): how to reach any z_1 = q [h] of the first layer."""

    place: np.ndarray  # [d, h]
    bias: np.ndarray

    def x(self, q: np.ndarray) -> np.ndarray:
        """Points [n, d] of q [n, h]."""
        return (q - self.bias) @ self.place.T


def chart(first: Layer) -> Chart:
    """Of a layer of independent rows."""
    return Chart(np.linalg.pinv(first.weights), first.bias)


class Region(NamedTuple):
    """Points q with rows q + level >= 0, where z of the last layer is affine: map q + shift."""

    rows: np.ndarray  # [m, h_1], of length one
    level: np.ndarray  # [m]
    map: np.ndarray  # [h, h_1]
    shift: np.ndarray  # [h]

    def less(self, off: np.ndarray) -> Region:
        """The part of it where units `off` [h] of the last layer are off."""
        length = np.linalg.norm(self.map[off], axis=1)
        length = np.where(length > 1e-12, length, 1.0)
        return self._replace(
            rows=np.concatenate([self.rows, -self.map[off] / length[:, None]]),
            level=np.concatenate([self.level, -self.shift[off] / length]),
        )

    def beyond(self, row: np.ndarray, bias: float, off: bool) -> Region:
        """The part of it where a unit of the next layer, row [h] and bias, is off, or on."""
        sign, q = -1.0 if off else 1.0, row @ self.map
        length = max(float(np.linalg.norm(q)), 1e-12)
        return self._replace(
            rows=np.concatenate([self.rows, sign * q[None] / length]),
            level=np.append(self.level, sign * (row @ self.shift + bias) / length),
        )


def region(layers: Layers, masks: list[np.ndarray]) -> Region:
    """Of all points at which exactly the units `masks` are on; True for all of the last layer.

    masks: one [h_l] a layer.  Units of the last layer that are not in its mask may be either.
    """
    width = len(layers[0].bias)
    rows, level = [np.zeros((0, width))], [np.zeros(0)]
    a, c = np.eye(width), np.zeros(width)
    for number, (layer, mask) in enumerate(zip(layers, masks, strict=True)):
        if number:
            a, c = layer.weights @ a, layer.weights @ c + layer.bias
        last = number == len(layers) - 1
        sign = np.where(mask, 1.0, -1.0)[:, None]
        keep = mask if last else np.ones(len(mask), bool)
        rows.append((sign * a)[keep])
        level.append((sign[:, 0] * c)[keep])
        if not last:
            a, c = a * mask[:, None], c * mask
    flat, at = np.concatenate(rows), np.concatenate(level)
    length = np.linalg.norm(flat, axis=1)
    length = np.where(length > 1e-12, length, 1.0)
    return Region(flat / length[:, None], at / length, a, c)


def centre(where: Region, box: float) -> tuple[np.ndarray, float] | None:
    """The point deepest inside, within the box, and its distance to the sides; None if empty."""
    width = where.rows.shape[1]
    bounds = [(-box, box)] * width + [(0, box)]
    x = lowest(
        np.append(np.zeros(width), -1.0),
        np.column_stack([-where.rows, np.ones(len(where.rows))]),
        where.level,
        bounds,
    )
    if x is None or x[-1] < 1e-6 * box:
        return None
    return x[:-1], float(x[-1])


def vertex(
    where: Region, middle: np.ndarray, box: float, rng: np.random.Generator
) -> np.ndarray | None:
    """A point near a random vertex of the region, within the box: few outputs of the last layer
    large, the others near zero, as on the rays of an orthant.
    """
    count = len(where.shift)
    sign = np.ones(count)
    sizes = (1, 1, 2, 3, max(1, count // 4), max(1, count // 2))
    sign[rng.permutation(count)[: rng.choice(sizes)]] = -1.0
    length = np.linalg.norm(where.map, axis=1) + 1e-12
    aim = (sign * rng.uniform(0.3, 1, count) / length) @ where.map
    side = box * rng.uniform(0.4, 1, (2, len(middle)))
    low = np.minimum(-side[0], 2 * np.minimum(middle, 0))
    high = np.maximum(side[1], 2 * np.maximum(middle, 0))
    x = lowest(aim, -where.rows, where.level, np.stack([low, high], 1))
    if x is None:
        return None
    share = INSIDE * rng.uniform(0.5, 1.5)
    return (1 - share) * x + share * middle


def deepest(where: Region, cost: np.ndarray, middle: np.ndarray, box: float) -> np.ndarray | None:
    """The point of the region of the least cost q, within the box, pulled towards its middle."""
    bounds = np.stack([np.minimum(-box, 2 * middle), np.maximum(box, 2 * middle)], 1)
    q = lowest(cost, -where.rows, where.level, bounds)
    return None if q is None else (1 - INSIDE) * q + INSIDE * middle


def ray(width: int, unit: int, box: float, rng: np.random.Generator) -> np.ndarray:
    """A point far along a ray of the orthant, the other coordinates just above zero."""
    q = 0.01 * box * rng.random(width)
    q[unit] = 10 * box
    return q


def most(
    layers: Layers, masks: list[np.ndarray], box: float, rng: np.random.Generator
) -> np.ndarray | None:
    """Units of the last layer, as many as a linear program finds, that can all be on where those
    of the layers before are on as in `masks`.
    """
    count = len(layers[-1].bias)
    open_ = region(layers, [*masks, np.zeros(count, bool)])
    width = open_.rows.shape[1]
    length = np.linalg.norm(open_.map, axis=1)
    length = np.where(length > 1e-12, length, 1.0)
    margin = 1e-3 * box
    one = np.eye(count)
    cost = np.concatenate([np.zeros(width), rng.uniform(0.2, 1, count)])
    upper = np.concatenate(
        [
            np.column_stack([-open_.rows, np.zeros((len(open_.rows), count))]),
            np.column_stack([-open_.map / length[:, None], -one]),
        ]
    )
    level = np.concatenate([open_.level - margin, open_.shift / length - margin])
    bounds = [(-box, box)] * width + [(0, None)] * count
    x = lowest(cost, upper, level, bounds)
    return None if x is None else np.asarray(x[width:] <= 1e-9 * box)
