"""Explanations that are means of gradients: integrated gradients and SmoothGrad.

Integrated gradients over x - x0, x0 the baseline, are sum_i w_i J(x0 + s_i (x - x0)): a unit
n r + b of r = x - x0 switches in term i at n r = -b / s_i, on parallel planes at known ratios.  Far
out, at r = R z, these planes lie at n z = -b / (s_i R), and fall together with the plane n z = 0 to
all digits: the mean over s_i > 0 IS the gradient there, of the network without its biases.  A term
with s = 0 adds w_0 J(x0), the same everywhere; it is read off next to the baseline.  SmoothGrad's
noise is nothing beside R z.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact.derived import Derived, hides, values
from recon.networks import TwoLayer
from recon.oracles import AnyOracle
from recon.paths import RULES, Path
from recon.replies import Reply, View

FAR = 2.0**80  # R: what float32 can just hold, and beside it no bias is seen
ROUNDING = 256.0  # eps
STEPS = (*range(2, 65), *range(70, 101, 5), 128, 150, 200, 250, 256, 300, 500, 512, 1000)  # tried
SNAP = 1e-9  # of the largest: levels of units that switch in the baseline itself


class Average(NamedTuple):
    """The rule of integrated gradients: x0 [d], shares [m] of the path and weights [m]."""

    start: np.ndarray
    shares: np.ndarray
    weights: np.ndarray

    def of(self, network: TwoLayer, x: np.ndarray) -> np.ndarray:
        """The mean gradients [n, K, d] of a known network at x [n, d]."""
        level = network.rows @ self.start + network.bias
        along = (x - self.start[None]) @ network.rows.T
        on = along[:, :, None] * self.shares[None, None] + level[None, :, None] > 0
        at_start = level > SNAP * np.abs(level).max(initial=0.0)  # there relu' is 0 at 0
        on = np.where(self.shares[None, None] == 0, at_start[None, :, None], on)
        share = on @ self.weights
        n, k, h = len(x), len(network.weights), network.width
        units = (share[:, None] * network.weights[None]).reshape(n * k, h) @ network.rows
        return units.reshape(n, k, -1) + self.weights.sum() * network.slope[None]

    @property
    def moving(self) -> float:
        """The weights of what moves with x."""
        return float(self.weights[self.shares > 0].sum())


def declared(path: Path, dim: int) -> tuple[Average, Average]:
    """The rule as the user has it, with weights in float64, and rounded to float32 as Captum's."""
    weights = path.weights
    rounded = weights.astype(np.float32).astype(np.float64)
    start, shares = path.start(dim), path.shares
    return Average(start, shares, weights), Average(start, shares, rounded)


def fitting(
    path: Path, network: TwoLayer, x: np.ndarray, mean: np.ndarray, eps: float
) -> tuple[Average | None, Path]:
    """The rule by which a known network has the mean gradients [n, K, d] at x [n, d]: that of
    `path` or, from the same baseline, another; None where there is none.
    """
    size = np.linalg.norm(network.weights) + np.linalg.norm(network.slope)
    most = ROUNDING * eps * max(np.linalg.norm(mean), size)  # where all units are off, of nothing
    for rule in (path, *(Path(n, name, path.baseline) for n in STEPS for name in RULES)):
        for average in declared(rule, x.shape[1]):
            if np.linalg.norm(average.of(network, x) - mean) <= most:
                return average, rule
    return None, path


def centred(view: View, mean: np.ndarray) -> np.ndarray:
    """Means of gradients [n, K, d] up to what all outputs have in common, where that is hidden.

    The gradients of log p are those of z less what all classes have in common, wherever on the
    path they are taken.
    """
    return mean - mean.mean(1, keepdims=True) if hides(view) and mean.shape[1] > 1 else mean


def far(
    oracle: AnyOracle, view: View, average: Average | None, constant: np.ndarray, eps: float
) -> Derived:
    """The oracle of the network without biases, as a function of z: gradients and values.

    average: of integrated gradients, None for SmoothGrad; constant [K, d]: of terms that stay at
    the baseline.  Where values saturate they are made from the gradients, which hold all of such
    a network.
    """

    def change(z: np.ndarray, reply: Reply) -> Reply:
        z = z.astype(np.float64)
        mean = reply.gradient.astype(np.float64)
        if average is not None:
            mean = mean / (FAR * z)[:, None] - constant[None]
            nothing = np.abs(mean) <= ROUNDING * eps * np.abs(constant)[None]
            mean = np.where(nothing, 0.0, mean) / average.moving
        mean = centred(view, mean)
        made = np.einsum("nkd,nd->nk", mean, z)
        value = made if hides(view) else reply.value.astype(np.float64) / FAR
        return Reply(value, mean / FAR)  # which `Derived` multiplies by its scale

    start = np.zeros(1) if average is None else average.start
    return Derived(oracle, change, (start, np.full(1, FAR)))


def near(
    oracle: AnyOracle, view: View, average: Average | None, network: TwoLayer, scale: np.ndarray
) -> Derived:
    """The oracle of logits as a function of z, x = scale z, for a network to be held against.

    Its replies differ from the network's as the service's values and means of gradients differ from
    those of the network.  It is asked a little farther from the baseline, where the last point of
    the path is x: beside a plane of the network, this is.  SmoothGrad's gradients tell nothing near
    the origin, as its noise is not known.
    """
    last = 1.0 if average is None else float(average.shares.max())
    start = np.zeros(1) if average is None else average.start
    shift, farther = start * (1 - 1 / last), scale / last

    def change(z: np.ndarray, reply: Reply) -> Reply:
        x = scale[None] * z.astype(np.float64)
        at = shift[None] + farther[None] * z.astype(np.float64)
        at = at.astype(z.dtype).astype(np.float64)
        off = values(view, reply.value.astype(np.float64)) - network(at)
        gradient = network.gradient(x)
        if average is not None:
            mean = reply.gradient / (at - start[None])[:, None]
            gradient = gradient + centred(view, mean) - average.of(network, at)
        return Reply(network(x) + off, gradient * last)  # `Derived` multiplies by `farther`

    return Derived(oracle, change, (shift, farther))
