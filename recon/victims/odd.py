"""Random small victims of every sort behind every view, in NumPy: what an attack may meet.

Networks with dead, far, faint, repeated, opposite and nearly parallel units, sparse rows and
weights, features and outputs of any scale; replies in any precision; boxes; and victims that are
no two-layer ReLU network, or break off.  `draws` draws them, `identified` says what can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from recon import oracles
from recon.exact.less.by_values import PROMISE
from recon.exact.less.top_probability import PROMISE as TOP_PROBABILITY
from recon.exact.recovery import promise
from recon.explanations import SIGMA
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
SMOOTH = 8  # points of SmoothGrad
NOISE = 1e-6  # relative
CALL = 6  # calls before a victim breaks off, at most

Function = Callable[[np.ndarray], np.ndarray]


class Broken(Exception):
    """What a victim that breaks off raises."""


class Odd(NamedTuple):
    """A victim: values [n, K] and Jacobians [n, K, d] of x [n, d], and how a service shows them.

    kind: "relu", one of BENDS or of BREAKS; shift and scale [d]: its inputs are normal by these,
    or uniform in the box, if there is one; dtype and decimals: of the replies; told: what its user
    tells the attack (box, data, precision: how far replies are off, relative); rng: of its noise.
    """

    kind: str
    view: View
    value: Function
    gradient: Function
    dim: int
    width: int
    outputs: int
    shift: np.ndarray
    scale: np.ndarray
    dtype: str
    decimals: int | None
    told: Mapping[str, Any]
    rng: np.random.Generator

    @property
    def eps(self) -> float:
        """The rounding unit of its replies, their noise included."""
        unit = float(np.finfo(self.dtype).eps)
        unit = unit if self.decimals is None else max(unit, 10.0**-self.decimals)
        unit = max(unit, self.told.get("precision", 0.0))
        return max(unit, 10 * NOISE) if self.kind == "noise" else unit

    @property
    def promised(self) -> float:
        """The error that an `ok` network may have, relative to the rms of the values."""
        every = self.view.axes == 3 or (self.view.explanation == "top" and self.outputs == 1)
        if every or self.view.outputs == "top":
            return promise(self.eps)
        return TOP_PROBABILITY if self.view.of in ODDS else PROMISE

    def oracle(self) -> oracles.HostOracle:
        """The service."""
        left = int(self.rng.integers(1, CALL))

        def fn(x: np.ndarray) -> Any:
            nonlocal left
            left -= 1
            with np.errstate(all="ignore"):
                value, explained = self.shown(x)
            if left == 0 and self.kind in BREAKS:
                if self.kind == "raises":
                    raise Broken
                value = value[:, :-1] if self.kind == "shape" else value * np.nan
            return value if explained is None else (value, explained)

        return oracles.from_host(fn, view=self.view)

    @property
    def hides(self) -> bool:
        """Whether a softmax or a sigmoid is between the logits and what is shown."""
        return self.view.outputs in ODDS or self.view.of in ODDS

    @property
    def spread(self) -> np.ndarray:
        """The scale [d] of the inputs, of those that never change one."""
        return np.where(self.scale > 0, self.scale, 1.0)

    def inputs(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Fresh inputs [n, d] as its users have them."""
        x = self.shift + self.scale * rng.standard_normal((n, self.dim))
        low, high = self.told.get("box", (x, x))
        return np.asarray(rng.uniform(low, high, x.shape)) if "box" in self.told else x

    def shows(self, z: np.ndarray) -> np.ndarray:
        """Where logits [n, K] are not those of one class that is certain: a mask [n]."""
        deep = 20.0 if self.outputs == 1 else -0.8 * np.log(np.finfo(self.dtype).tiny)
        part = np.abs(z[:, 0]) if self.outputs == 1 else np.ptp(z, 1)
        sure = self.outputs == 1 or "probabilities" in (self.view.outputs, self.view.of)
        return part < deep if self.hides and sure else np.full(len(z), True)

    def deviations(self, network: Any, n: int) -> np.ndarray:
        """The errors [m] of a network at n fresh inputs, relative to the rms of the victim's
        values, of what the view shows, m <= n: of centred logits behind a softmax, where it is not
        certain, or of the top one, where its class is one that was ever seen.
        """
        x = self.inputs(np.random.default_rng(self.dim + 13 * self.width), n)
        true, found = self.value(x), np.asarray(network(x), np.float64)
        if self.view.outputs == "top":
            top = true.argmax(1)
            seen = np.isin(top, np.flatnonzero(np.isfinite(found).all(0)))
            true, found, top = true[seen], found[seen], top[seen]
            at = np.arange(len(top))
            true, found = true[at, top][:, None], np.stack([found[at, top], found.max(1)], 1)
        elif true.shape != found.shape:
            return np.array([np.inf])
        shows = self.shows(true)
        if self.hides and self.outputs > 1:
            true, found = (z - z.mean(1, keepdims=True) for z in (true, found))
        error = np.abs(true - found).max(1)[shows]
        size = float(np.abs(true).max(initial=0.0))
        rms = size * float(np.sqrt(np.mean((true / size) ** 2))) if size > 0 else 1.0
        return np.where(np.isnan(error), np.inf, error) / rms

    def shown(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """What the service returns at x [n, d]."""
        view, z = self.view, self.value(x)
        top, at = z.argmax(1), np.arange(len(x))
        value = self.answers(z)
        if view.explanation == "none":
            return value, None
        if view.explanation == "integrated_gradients":
            assert view.path is not None
            path = zip(view.path.weights, view.path.shares, strict=True)
            rows = sum(w * self.jacobian(share * x) for w, share in path) * x[:, None]
        elif view.explanation == "smoothgrad":
            noise = SIGMA * self.rng.standard_normal((SMOOTH, *x.shape))
            rows = np.mean([self.jacobian(x + part) for part in noise], 0)
        else:
            rows = self.jacobian(x)
        if view.explanation == "input_x_gradient":
            rows = rows * x[:, None]
        return value, self.rounded(rows[at, top] if view.explanation == "top" else rows)

    def answers(self, z: np.ndarray) -> np.ndarray:
        """The values that are shown of logits [n, K]."""
        top = z.argmax(1)
        values = {"probabilities": np.exp(_log(z)), "log_probabilities": _log(z)}
        values["top"] = np.stack([top, z[np.arange(len(z)), top]], 1)
        return self.rounded(values.get(self.view.outputs, z))

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """Of what is explained, [n, K, d]."""
        rows = self.gradient(x)
        if self.view.of == "logits":
            return rows
        p = np.exp(_log(self.value(x)))[:, :, None]
        alone = self.outputs == 1
        rows = rows * (1 - p) if alone else rows - np.sum(p * rows, 1, keepdims=True)
        return rows * p if self.view.of == "probabilities" else rows

    def rounded(self, a: np.ndarray) -> np.ndarray:
        """Numbers as the service returns them."""
        off = self.told.get("precision", 0.0) * self.rng.uniform(-1, 1, a.shape)
        a = a * (1 + off) if "precision" in self.told else a
        a = a if self.decimals is None else np.round(a, self.decimals)
        return a.astype(self.dtype)


def _log(z: np.ndarray) -> np.ndarray:
    """Log-probabilities [n, K] of logits, of a sigmoid for one."""
    if z.shape[1] == 1:
        return -np.logaddexp(0, -z)
    z = z - z.max(1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(1, keepdims=True)))
