"""Random small victims of every sort behind every view, in NumPy: what an attack may meet.

Networks with dead, far, faint, repeated, opposite and nearly parallel units, sparse rows and
weights, features and outputs of any scale; replies in any precision; boxes; and victims that are
no two-layer ReLU network, or break off.  The distributions are our own choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from recon import oracles
from recon.explanations import SIGMA
from recon.networks import TwoLayer
from recon.oracles import View

ODDS = ("probabilities", "log_probabilities")
VIEWS = (
    View(),
    View("values"),
    *(View(shown, of=of) for shown in ODDS for of in ("logits", *ODDS)),
    View(explanation="input_x_gradient"),
    View("probabilities", "input_x_gradient", "probabilities"),
    View("top", "top"),
    *(View(shown, "top") for shown in ("logits", *ODDS)),
    *(View(shown, "top", "probabilities") for shown in ODDS),
    *(View(shown, "none") for shown in ("logits", "values", *ODDS)),
    *(
        View(shown, mean, of)
        for mean in ("integrated_gradients", "smoothgrad")
        for shown, of in (("logits", "logits"), ("probabilities", "log_probabilities"))
    ),
)
BENDS = ("tanh", "clipped", "twice", "noise", "dropout")  # no two-layer network with digits
BREAKS = ("raises", "nan", "shape")
VISIBLE = 0.1  # weights of victims whose replies are rounded to decimals, which show no less
SMOOTH = 8  # points of SmoothGrad
NOISE = 1e-6  # relative
CALL = 6  # calls before a victim breaks off, at most

Function = Callable[[np.ndarray], np.ndarray]


class Broken(Exception):
    """What a victim that breaks off raises."""


class Odd(NamedTuple):
    """A victim: values [n, K] and Jacobians [n, K, d] of x [n, d], and how a service shows them.

    kind: "relu", one of BENDS or of BREAKS; scale [d]: of the inputs; dtype and decimals: of the
    replies; box: (low, high) where it may be asked, or None; rng: of its noise.
    """

    kind: str
    view: View
    value: Function
    gradient: Function
    dim: int
    width: int
    outputs: int
    scale: np.ndarray
    dtype: str
    decimals: int | None
    box: tuple[float, float] | None
    rng: np.random.Generator

    @property
    def eps(self) -> float:
        """The rounding unit of its replies, their noise included."""
        unit = float(np.finfo(self.dtype).eps)
        unit = unit if self.decimals is None else max(unit, 10.0**-self.decimals)
        return max(unit, 10 * NOISE) if self.kind == "noise" else unit

    def oracle(self) -> oracles.HostOracle:
        """The service."""
        left = int(self.rng.integers(1, CALL))

        def fn(x: np.ndarray) -> Any:
            nonlocal left
            left -= 1
            with np.errstate(all="ignore"):
                value, explained = self._shown(x)
            if left == 0 and self.kind in BREAKS:
                if self.kind == "raises":
                    raise Broken
                value = value[:, :-1] if self.kind == "shape" else value * np.nan
            return value if explained is None else (value, explained)

        return oracles.from_host(fn, view=self.view)

    def deviations(self, network: Any, n: int) -> np.ndarray:
        """The errors [m] of a network at n fresh inputs, relative to the rms of the victim's
        values, of what the view shows, m <= n: of centred logits behind a softmax, where it is not
        certain, or of the top one, where its class is one that was ever seen.
        """
        rng = np.random.default_rng(self.dim + 13 * self.width)
        x = self.scale * rng.standard_normal((n, self.dim))
        x = x if self.box is None else rng.uniform(*self.box, x.shape)
        true, found = self.value(x), np.asarray(network(x), np.float64)
        if self.view.outputs == "top":
            top = true.argmax(1)
            seen = np.isin(top, np.flatnonzero(np.isfinite(found).all(0)))
            true, found, top = true[seen], found[seen], top[seen]
            at = np.arange(len(top))
            true, found = true[at, top][:, None], np.stack([found[at, top], found.max(1)], 1)
        elif true.shape != found.shape:
            return np.array([np.inf])
        shows = np.full(len(true), True)
        if self.view.outputs in ODDS or self.view.of in ODDS:
            part = np.abs(true[:, 0]) if self.outputs == 1 else np.ptp(true, 1)
            deep = 20.0 if self.outputs == 1 else -0.8 * np.log(np.finfo(self.dtype).tiny)
            if self.outputs == 1 or "probabilities" in (self.view.outputs, self.view.of):
                shows = part < deep
            if self.outputs > 1:
                true, found = (z - z.mean(1, keepdims=True) for z in (true, found))
        error = np.abs(true - found).max(1)[shows]
        size = float(np.abs(true).max(initial=0.0))
        rms = size * float(np.sqrt(np.mean((true / size) ** 2))) if size > 0 else 1.0
        return np.where(np.isnan(error), np.inf, error) / rms

    def _shown(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        view, z = self.view, self.value(x)
        top, at = z.argmax(1), np.arange(len(x))
        values = {"probabilities": np.exp(_log(z)), "log_probabilities": _log(z)}
        values["top"] = np.stack([top, z[at, top]], 1)
        value = self._rounded(values.get(view.outputs, z))
        if view.explanation == "none":
            return value, None
        if view.explanation == "integrated_gradients":
            assert view.path is not None
            path = zip(view.path.weights, view.path.shares, strict=True)
            rows = sum(w * self._jacobian(share * x) for w, share in path) * x[:, None]
        elif view.explanation == "smoothgrad":
            noise = SIGMA * self.rng.standard_normal((SMOOTH, *x.shape))
            rows = np.mean([self._jacobian(x + part) for part in noise], 0)
        else:
            rows = self._jacobian(x)
        if view.explanation == "input_x_gradient":
            rows = rows * x[:, None]
        return value, self._rounded(rows[at, top] if view.explanation == "top" else rows)

    def _jacobian(self, x: np.ndarray) -> np.ndarray:
        """Of what is explained, [n, K, d]."""
        rows = self.gradient(x)
        if self.view.of == "logits":
            return rows
        p = np.exp(_log(self.value(x)))[:, :, None]
        alone = self.outputs == 1
        rows = rows * (1 - p) if alone else rows - np.sum(p * rows, 1, keepdims=True)
        return rows * p if self.view.of == "probabilities" else rows

    def _rounded(self, a: np.ndarray) -> np.ndarray:
        a = a if self.decimals is None else np.round(a, self.decimals)
        return a.astype(self.dtype)


def _log(z: np.ndarray) -> np.ndarray:
    """Log-probabilities [n, K] of logits, of a sigmoid for one."""
    if z.shape[1] == 1:
        return -np.logaddexp(0, -z)
    z = z - z.max(1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(1, keepdims=True)))


def random_odd(seed: Any, view: View) -> Odd:
    """A victim behind a view, by a seed of NumPy's generators; d and h from 1 to 12, K 1 to 10."""
    rng = np.random.default_rng(seed)
    some = lambda p: bool(rng.random() < p)  # noqa: E731
    kind = str(rng.choice(BENDS if some(0.7) else BREAKS)) if some(0.15) else "relu"
    dim, width = (int(n) for n in rng.integers(1, 13, 2))
    outputs = int(rng.choice([2, 3, 10] if view.outputs == "top" else [1, 2, 3, 10]))
    network = _network(rng, dim, width, outputs)
    full = view.explanation in ("jacobian", "input_x_gradient")
    scale, box = np.ones(dim), None
    if full and some(0.2):
        box = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))[rng.integers(3)]
        half, middle = (box[1] - box[0]) / 2, (box[1] + box[0]) / 2
        scale, rows = np.full(dim, half), network.rows / half
        network = replace(network, rows=rows, bias=network.bias - middle * rows.sum(1))
    elif full and some(0.25):
        scale = 10.0 ** rng.uniform(-3, 4, dim)
        network = replace(network, rows=network.rows / scale, slope=network.slope / scale)
    value, gradient = _bent(rng, network, kind)
    dtype = str(rng.choice(["float64", "float32", "float16"], p=[0.85, 0.12, 0.03]))
    shows = np.abs(network.weights).max() > VISIBLE
    decimals = int(rng.integers(2, 9)) if some(0.08) and shows else None
    shape = dim, width, outputs
    return Odd(kind, view, value, gradient, *shape, scale, dtype, decimals, box, rng)


def _network(rng: np.random.Generator, dim: int, width: int, outputs: int) -> TwoLayer:
    """With one oddity, or several."""
    some = lambda p: bool(rng.random() < p)  # noqa: E731
    rows = rng.standard_normal((width, dim)) / dim**0.5
    bias = rng.choice([0.0, 0.5, 3.0]) * rng.standard_normal(width)
    weights = 2 * rng.standard_normal((outputs, width)) / width**0.5
    slope, offset = np.zeros((outputs, dim)), some(0.7) * rng.standard_normal(outputs)
    unit, other = rng.integers(width), rng.integers(width)
    if some(0.1):
        rows = rows * (rng.random(rows.shape) < 0.4)
    if some(0.1):
        weights = weights * (rng.random(weights.shape) < 0.5)
    if some(0.1):  # repeated or opposite, on one plane or two parallel ones
        sign = rng.choice([-1.0, 1.0])
        rows[unit], bias[unit] = sign * rows[other], rng.choice([sign, 0.3]) * bias[other]
    if some(0.1):
        rows[unit] = rows[other] + 10 ** rng.uniform(-8, -2) * rng.standard_normal(dim)
    if some(0.05):
        rows[unit] = 0
    if some(0.1):  # off or on nearly everywhere
        bias[unit] = rng.choice([-1.0, 1.0]) * 10 ** rng.uniform(0.3, 4)
    if some(0.05):
        weights[:, unit] *= 10 ** rng.uniform(-10, -3)
    if some(0.05):
        weights[rng.integers(outputs)] = 0
    if some(0.1):  # as of leaky ReLU, of max-pooling and of a residual path
        slope = rng.standard_normal(slope.shape)
    size = 10.0 ** rng.choice([-6, -3, 0, 3, 6], p=[0.05, 0.05, 0.8, 0.05, 0.05])
    return TwoLayer(rows, bias, size * weights, size * slope, size * offset)


def _bent(rng: np.random.Generator, network: TwoLayer, kind: str) -> tuple[Function, Function]:
    """Values and Jacobians of a network of a kind made of this one."""
    a, b, w = network.rows, network.bias, network.weights
    if kind == "tanh":
        return (
            lambda x: np.tanh(x @ a.T + b) @ w.T,
            lambda x: ((1 - np.tanh(x @ a.T + b) ** 2)[:, None] * w) @ a,
        )
    if kind == "clipped":
        most = float(np.abs(w).sum(1).mean()) / 2
        inside = lambda x: np.abs(network(x)) < most  # noqa: E731
        return (
            lambda x: np.clip(network(x), -most, most),
            lambda x: network.gradient(x) * inside(x)[:, :, None],
        )
    if kind == "twice":
        after = rng.standard_normal((len(w), len(w)))
        return (
            lambda x: np.maximum(network(x), 0) @ after.T,
            lambda x: np.einsum("kj,nj,njd->nkd", after, network(x) > 0, network.gradient(x)),
        )
    if kind == "noise":
        off = lambda z: z * (1 + NOISE * rng.standard_normal(z.shape))  # noqa: E731
        return lambda x: off(network(x)), lambda x: off(network.gradient(x))
    if kind == "dropout":
        kept = lambda x: 2.0 * (rng.random((len(x), 1, len(b))) < 0.5) * w  # noqa: E731
        return (
            lambda x: (kept(x) * np.maximum(x @ a.T + b, 0)[:, None]).sum(2),
            lambda x: (kept(x) * (x @ a.T + b > 0)[:, None]) @ a,
        )
    return network, network.gradient
