"""The biases of a network whose rows and weights are known, from values at ordinary points.

f(x) = c + slope x + sum_j w_j max(n_j x + b_j, 0) is linear in b and c once it is known which units
are on, and at points some CLEAR times as far out as biases reach, n_j x alone tells nearly always:

    f(x) - slope x - sum_{on} w_j n_j x = c + sum_{on} w_j b_j,        q equations a point,

so that a little more than (h + q) / q points do.  Patterns are then taken anew from the biases
found, until nothing changes (Newton's method); what is more than rounding in the end tells that
the rows and weights do not hold near the origin.  Points are chosen so that the equations, whose
left sides are known before anything is asked, are as independent as they can be.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from recon.exact import regions
from recon.exact.less.odds import Log
from recon.networks import TwoLayer

FIRST = 2.0**10  # how far out it is first asked, to learn the size of biases
SOME = 2  # points there
CLEAR = 32.0
FARTHER, TRIES = 16.0, 3
SPARE, MORE = 1.05, 2  # equations over unknowns, and points on top
GAP = 3.0  # reaches: a distance from a plane that biases hardly bridge
POOL, LEAST, FEW = 4, 64, 8192  # points to choose from: for each, at least, and over the units
OPEN = 1e-3  # of an equation for one unit: what others leave of it, if it is worth a point
STEPS = 20
VAGUE = 1e-4  # a singular value of the equations, below which they leave some bias open
NOTHING = 1e-13  # of levels at usual points: a bias that is zero
LEVEL = 512.0  # noises that rounding may explain


@dataclass
class Biases:
    """What is asked for them: values, in `log`, of a service of so many outputs K.

    scale [d]: of inputs; limit: how far logits may part where one asks; reach: the size of biases
    over that of n_j scale.
    """

    log: Log
    outputs: int
    scale: np.ndarray
    limit: float
    rng: np.random.Generator
    reach: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.log.z = np.zeros((0, self.outputs))

    def found(self, network: TwoLayer) -> tuple[TwoLayer, bool]:
        """The network, so far without biases, and whether all values bear it out.  Raises Spent."""
        first = self.drawn(network, SOME, FIRST)
        off = self.log.f(self.log.ask(first)) - network(first) @ self.log.basis
        strength = np.sqrt(np.mean(np.sum((self.log.basis.T @ network.weights) ** 2, 1)) / 2)
        steep = float(strength * np.median(self.lengths(network))) if network.width else 0.0
        size = float(np.sqrt(np.mean(off**2)))
        self.reach = max(size / steep, 1 / CLEAR) if np.isfinite(size) and steep > 0 else 1.0
        good = False
        for i in range(TRIES):
            found, good = self.more(network, CLEAR * FARTHER**i, SOME * (i == 0))
            if good:
                return found, True
        return network, False

    def sharper(self, network: TwoLayer) -> tuple[TwoLayer, bool]:
        """The network with its biases from values nearer by as well, where rounding is less."""
        return self.more(network, 1.0, 0)

    def more(self, network: TwoLayer, times: float, known: int) -> tuple[TwoLayer, bool]:
        """The same by values at points so many times as far out as biases reach."""
        q = self.log.basis.shape[1]
        count = int(np.ceil(SPARE * (network.width + q) / q)) + MORE - known
        many = POOL * count + LEAST + FEW // (1 + network.width)  # of few inputs sectors are slim
        pool = self.drawn(network, many, times * self.reach)
        if times >= CLEAR:  # those farthest from any plane, where biases hardly tell what is on
            gap = np.abs(pool @ network.rows.T) / self.lengths(network)[None]
            gap = gap.min(1, initial=np.inf)
            clear = np.argsort(-gap)[: max(POOL * count, int((gap > GAP * self.reach).sum()))]
            pool = pool[clear]
        number = self.log.ask(pool[self.independent(pool, count, network)])
        if times > CLEAR:  # where these are as many as they should be
            network, _ = self.newton(network, number)
        return self.newton(network, np.arange(len(self.log.x)))

    def lengths(self, network: TwoLayer) -> np.ndarray:
        """Of the rows [h], for normal points: how large n_j x is there."""
        lengths = np.linalg.norm(network.rows * self.scale[None], axis=1)
        return np.where(lengths > 0, lengths, 1.0)

    def drawn(self, network: TwoLayer, count: int, radius: float) -> np.ndarray:
        """Normal points [n, d], nearer where the logits would part too far."""
        x = radius * self.scale[None] * self.rng.standard_normal((count, self.log.dim))
        apart = np.maximum(regions.spread(network(x)), 1e-300)
        return np.asarray(x * np.minimum(1.0, regions.USUAL * self.limit / apart)[:, None])

    def independent(self, pool: np.ndarray, count: int, network: TwoLayer) -> list[int]:
        """Numbers of `count` points, or more if it takes more, chosen one by one for the most that
        their equations add to those before.
        """
        weights = self.log.basis.T @ network.weights
        alike = weights / strengths(weights)[None]
        on = pool @ network.rows.T + network.bias[None] > 0
        rest = system(on, alike).reshape(len(pool), len(weights), -1)
        size = np.sum(rest**2, (1, 2))
        chosen = list[int]()
        while len(chosen) < len(pool) and (len(chosen) < count or size.max() > OPEN):
            chosen.append(int(size.argmax()))
            _, singular, rows = np.linalg.svd(rest[chosen[-1]], full_matrices=False)
            rows = rows[singular > OPEN]
            rest = rest - (rest @ rows.T) @ rows
            size = np.sum(rest**2, (1, 2))
            size[chosen] = -1.0
        return chosen

    def newton(self, network: TwoLayer, number: np.ndarray) -> tuple[TwoLayer, bool]:
        """The network with biases and offset by these values, and whether they bear it out."""
        log, weights = self.log, self.log.basis.T @ network.weights
        number = number[log.usable[number]]
        x, f = log.x[number], log.f(number)
        along, straight = x @ network.rows.T, x @ network.slope.T @ log.basis
        heavy = np.repeat(1 / log.noise(number), len(weights))
        bias, before, wrong = network.bias, None, np.inf
        offset = log.basis.T @ network.offset
        for _ in range(STEPS):
            on = along + bias[None] > 0
            if before is not None and (on == before).all():
                break
            before, left = on, (f - straight - (on * along) @ weights.T).reshape(-1)
            equations = system(on, weights)
            weighed = equations * heavy[:, None]
            size = np.linalg.norm(weighed, axis=0)  # of weights, and of the offset's ones
            size = np.where(size > 0, size, 1.0)
            solved = np.linalg.lstsq(weighed / size, left * heavy, rcond=1e-13)[0] / size
            bias, offset = np.split(solved, [network.width])
            wrong = float((np.abs(equations @ solved - left) * heavy).max(initial=0.0))
        usual = self.lengths(network) + np.abs(bias).max(initial=0.0)
        bias = np.where(np.abs(bias) <= NOTHING * usual, 0.0, bias)
        network = replace(network, bias=bias, offset=log.basis @ offset)
        if len(x) * len(weights) < network.width + len(weights):
            return network, False
        even = system(along + bias[None] > 0, weights / strengths(weights)[None])
        least = np.linalg.svd(even, compute_uv=False)[-1]
        return network, least > VAGUE and wrong <= LEVEL * (1 + network.width / 64) ** 0.5


def strengths(weights: np.ndarray) -> np.ndarray:
    """Of the units [h], for weights [q, h]."""
    strength = np.linalg.norm(weights, axis=0)
    return np.where(strength > 0, strength, 1.0)


def system(on: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Equations [n q, h + q] for the biases and the offset, by which units are on [n, h]."""
    q = len(weights)
    by_bias = on[:, None] * weights[None]
    by_offset = np.broadcast_to(np.eye(q)[None], (len(on), q, q))
    return np.concatenate([by_bias, by_offset], 2).reshape(len(on) * q, q + by_bias.shape[2])
