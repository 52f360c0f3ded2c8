"""Where queries must stay: the lines of an attack there, and the points of its certificate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from recon.exact import certify
from recon.exact.certify import Place, Points
from recon.exact.inputs import Inputs
from recon.networks import TwoLayer

NORMAL = 6  # fresh points at least, near and farther out in turn
FEW, MANY = 3, 48  # inputs up to which, and points that are asked there, or of one or two outputs
SLIDES, SLID = 8, 0.5  # steps to where logits show, and how far within the limit each ends
SEVERAL = 16  # the same of most small networks
SMALL, OUT = 16, 32  # units up to which, and points that are asked at any distance besides
USUAL = 0.35  # of the limit: how far logits part at a line's first ends, and at fresh points
BESIDE = 0.2  # of a usual distance: how far from the origin lines pass, so that few kinks are far
HALF = 3.0  # of a line in a box, in t: its ends lie at angles of 72 degrees
INWARD = 0.1  # of a box's sides: where a line begins and ends
INSIDE, CORNERS = 30, 256  # fresh points of a box: a share of 10 %; it has 2^d corners
DIRECTIONS = 64
USUALLY = 1024  # usual points, among which those are looked for that show logits
FARTHEST = 1e6  # of fresh points, times standard normal
SEEN = 25.0  # the size of a single logit up to which its probability tells anything


def spread(values: np.ndarray) -> np.ndarray:
    """How far logits [n, K] part, [n]; the size of a single one."""
    return np.abs(values[:, 0]) if values.shape[1] == 1 else np.ptp(values, axis=1)


def slid(network: TwoLayer, x: np.ndarray, limit: float) -> np.ndarray:
    """x [n, d], those moved at which logits part by more than the limit, as far as that helps.

    By the shortest steps to where they part by less: far points stay far where there is room.
    """
    x = x.copy()
    for _ in range(SLIDES):
        values = network(x)
        apart = spread(values)
        off = ~(apart <= limit)
        if not off.any():
            return x
        slope = network.gradient(x[off])
        if values.shape[1] > 1:
            values, slope = (a - a.mean(1, keepdims=True) for a in (values, slope))
        less = values[off] * (SLID * limit / apart[off] - 1)[:, None]
        step = np.einsum("ndk,nk->nd", np.linalg.pinv(np.nan_to_num(slope)), less)
        step = np.where(np.isfinite(step), step, 0.0)
        most = np.linalg.norm(x[off], axis=1) / np.maximum(np.linalg.norm(step, axis=1), 1e-300)
        x[off] += step * np.minimum(1.0, most)[:, None]
    return x


class Ends(NamedTuple):
    """A line u + t v, |t| <= reach."""

    u: np.ndarray
    v: np.ndarray
    reach: float


@dataclass(frozen=True)
class Softmax:
    """Where logits part by less than `limit`, so that no probability is zero."""

    limit: float
    lines: int = 24  # at most
    between: int = certify.BETWEEN  # points between two of the user's
    least: int = 0  # fresh points, of a single certificate

    def line(self, rng: np.random.Generator, dim: int, two: Any) -> Ends:
        """A random line, or through two points [2, d], as far as wanted."""
        u, v = BESIDE * rng.standard_normal((2, dim))
        if two is not None:
            u, v = two[0], two[1] - two[0]
            v = v * (BESIDE * dim**0.5 / np.linalg.norm(v))
        return Ends(u, v, np.inf)

    def points(
        self, seeds: Any, network: TwoLayer, line: certify.Line, eps: float, count: int
    ) -> tuple[Points, list[Place]]:
        """Fresh points, and the distributions that errors are judged on."""
        dim = len(line.u)
        x = np.random.default_rng(seeds[0]).standard_normal((DIRECTIONS, dim))
        values = network(x)
        alone = values.shape[1] == 1
        # a network is linear far out: as far as the logits it gives part by some of the limit
        most = USUAL * (SEEN + self.limit if alone else self.limit)
        radius = min(certify.FAR, most / max(float(np.median(spread(values))), 1e-300))
        count = max(count, NORMAL if values.shape[1] > 2 and dim > FEW else MANY)
        reach = radius * dim**0.5 / float(np.linalg.norm(line.v))
        places = certify.normal_places(seeds[0], dim, count, radius)
        rng, far = np.random.default_rng(seeds), certify.FAR  # other points than the near ones
        while far < FARTHEST and np.median(spread(network(far * x))) < most:
            far *= 2
        # and at any distance between, up to where most logits are seen no more
        out = count if count >= MANY else OUT * (network.width <= SMALL)
        if out:
            places.append(Place(certify.spread_out(rng, dim, far), out))
        # and where many are not: here, or as far out as usual inputs may be for all that is known
        certain = (spread(values) > self.limit).any()
        dead = not np.median(np.abs(network.gradient(x)).max((1, 2)))
        beyond = x[:0]
        if not alone and (certain or dead or out):
            many = MANY if certain or dead else SEVERAL
            near, beyond = self.shown(rng, network, 1.0 if certain else far, many)
            if certain:
                places += [Place(near, len(near))] * bool(len(near))
            else:
                beyond = np.concatenate([near, beyond])
        points = certify.points(seeds[1], network, line._replace(reach=reach), eps, places)
        place = np.concatenate([points.place, np.full(len(beyond), -1)])
        return Points(np.concatenate([points.x, beyond]), place), places

    def shown(
        self, rng: np.random.Generator, network: TwoLayer, scale: float, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points [m, d] where logits show, `scale` times as far out as normal ones, and farther;
        `count` near and twice as many far ones, at most.
        """
        usual = scale * rng.standard_normal((USUALLY, network.rows.shape[1]))
        seen = usual[spread(network(usual)) <= self.limit][:count]
        far = certify.FAR ** rng.uniform(0, 2, (count, 1)) * usual[:count]
        far = slid(network, np.concatenate([far, -far]), self.limit)
        return seen, far[spread(network(far)) <= self.limit]


@dataclass(frozen=True)
class Anywhere:
    """No limit at all: for the certificate of a network that was found by other means."""

    limit: float = np.inf
    least: int = 0  # fresh points, of a single certificate

    def points(
        self, seeds: Any, network: TwoLayer, line: certify.Line, eps: float, count: int
    ) -> tuple[Points, list[Place]]:
        """Fresh points, and the distributions that errors are judged on."""
        places = certify.normal_places(seeds[0], len(line.u), count)
        far = line._replace(reach=eps**-0.5)
        return certify.points(seeds[1], network, far, eps, places), places


@dataclass(frozen=True)
class Box:
    """low [d] <= x <= high [d], as the service has it; grid: whose whole numbers it takes alone."""

    low: np.ndarray
    high: np.ndarray
    limit: float = np.inf  # of how far logits part
    lines: int = 64
    between: int = 0
    grid: Inputs | None = None
    least: int = INSIDE  # fresh points, of a single certificate

    def line(self, rng: np.random.Generator, dim: int, two: Any) -> Ends:
        """From near a random corner of the box to near the opposite one, or between two points
        [2, d].

        Not through the middle, where planes of all units may meet.
        """
        if two is None:
            corner = self._corners(rng, 1)[0]
            ends = np.stack([corner, self.low + self.high - corner])
            two = ends + INWARD * rng.random(ends.shape) * (ends[::-1] - ends)
        a, b = two
        return Ends((a + b) / 2, (b - a) / (2 * HALF), HALF)

    def points(
        self, seeds: Any, network: TwoLayer, line: certify.Line, eps: float, count: int
    ) -> tuple[Points, list[Place]]:
        """Fresh points, and the distributions that errors are judged on."""
        rng = np.random.default_rng(seeds[0])
        inside = self._inside(rng, max(certify.SAMPLE, count))
        free = self.low < self.high
        if (few := int(free.sum())) <= math.log2(CORNERS):  # all of them
            side = np.arange(2**few)[:, None] >> np.arange(few)[None] & 1
            corners = np.repeat(self.low[None], len(side), 0)
            corners[:, free] = np.where(side, self.high[None, free], self.low[None, free])
        else:
            corners = self._corners(rng, CORNERS)
        inside, corners = (self._on_grid(x) for x in (inside, corners))
        places = [Place(inside, count), Place(corners, len(corners))]
        beside = self._beside(rng, network, line.scale, eps)
        parts = [*(place.sample[: place.asked] for place in places), beside]
        return Points(np.concatenate(parts), np.repeat([0, 1, -1], [*map(len, parts)])), places

    def _beside(
        self, rng: np.random.Generator, network: TwoLayer, scale: float, eps: float
    ) -> np.ndarray:
        """Points [m, d] on either side of the planes of few units, each somewhere in the box.

        Two units that were taken for one part there.
        """
        if network.width > SMALL or self.grid is not None:
            return np.zeros((0, len(self.low)))
        x, step = self._inside(rng, network.width), certify.blur(network, scale, eps)
        step = step * len(self.low) ** 0.5
        pairs = certify.on_either_side(network.rows, network.bias, x, step)
        return pairs[((self.low <= pairs) & (pairs <= self.high)).all(1)]

    def _on_grid(self, z: np.ndarray) -> np.ndarray:
        """The nearest points [n, d] that the service takes."""
        if self.grid is None:
            return z
        return self.grid.seen(np.rint(self.grid.shift[None] + self.grid.scale[None] * z))

    def _inside(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.uniform(self.low, self.high, (n, len(self.low)))

    def _corners(self, rng: np.random.Generator, n: int) -> np.ndarray:
        side = rng.random((n, len(self.low))) < 0.5
        return np.where(side, self.low[None], self.high[None])
