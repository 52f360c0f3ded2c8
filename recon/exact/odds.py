"""Log-odds: what a classifier's probabilities say of its logits, as a piecewise linear function.

Centred over the classes, log p is centred z: the softmax only hides a shift common to all logits.
In K - 1 orthonormal coordinates that is `Log.f`; a service of logits or values shows all K.  Log p
is exact to a few eps as long as p does not underflow, so queries stay where |log p| < DEEP.
One probability p is the sigmoid of one logit, log p - log(1 - p), good where neither is near 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recon import oracles
from recon.exact import arrays
from recon.exact.asking import roundoff
from recon.exact.chords import Line, Replies
from recon.oracles import AnyOracle, Cost

DEEP = 640.0  # -log p: beyond, float64 has fewer digits, and then none
SIGMOID = 25.0  # of a single logit whose probability is shown
NOISE = 4.0  # eps: rounding of the victim's own sums, relative to what they add up
REACH = 1e3  # ends of a line, in its tau, where nothing saturates
LEAST = 60.0  # the same, where something does: else the line is drawn nearer the origin
SHRINK = 1.6
FIRST = 8  # replies on a line before anything is known


class Spent(Exception):
    """The budget does not cover the next queries; none of them was asked."""


@dataclass
class Log:
    """All replies in the order asked: x [n, d], z [n, K] (logits or log p), gradient [n, d]."""

    oracle: AnyOracle
    dim: int
    budget: float = np.inf
    flat: float = np.inf  # -log(1 - p) of the top class beyond which its gradient says too little
    cost: Cost = field(default_factory=Cost)
    eps: float = float(np.finfo(np.float64).eps)
    x: np.ndarray = field(init=False)
    z: np.ndarray | None = None
    gradient: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.x = self.gradient = np.zeros((0, self.dim))

    def ask(self, x: np.ndarray) -> np.ndarray:
        """Ask x [n, d] in one round; their numbers [n].  Raises Spent, ReplyError."""
        first = len(self.x)
        if first + len(x) > self.budget:
            raise Spent
        reply, cost = oracles.ask(self.oracle, x, first)
        self.cost = self.cost + cost
        parts = [a.dtype for a in reply if a is not None]
        self.eps = max(self.eps, roundoff(*parts))
        z = self._logits(reply.value.astype(np.float64))
        self.z = z if self.z is None else np.concatenate([self.z, z])
        self.x = np.concatenate([self.x, x])
        if reply.gradient is not None:
            self.gradient = np.concatenate([self.gradient, reply.gradient.astype(np.float64)])
        return np.arange(first, len(self.x))

    def _logits(self, value: np.ndarray) -> np.ndarray:
        """Logits, values, log p, or the one logit of a single probability; [n, K]."""
        if not self.hidden and self.view not in ("probabilities", "log_probabilities"):
            return value
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p = value if self.view == "log_probabilities" else np.log(value)
            if value.shape[1] > 1:
                return log_p
            p = np.exp(log_p)
            return np.asarray(log_p - np.where(p < 0.5, np.log1p(-p), np.log(-np.expm1(log_p))))

    @property
    def view(self) -> str:
        """What the service shows."""
        return self.oracle.view.outputs

    @property
    def hidden(self) -> bool:
        """Whether a shift common to all logits is hidden."""
        shows = self.view in ("probabilities", "log_probabilities")
        return shows and (self.z is None or self.z.shape[1] > 1)

    @property
    def outputs(self) -> int:
        """K."""
        return 0 if self.z is None else self.z.shape[1]

    @property
    def basis(self) -> np.ndarray:
        """[K, q]: coordinates f = z basis; orthonormal, of the centred space where hidden."""
        eye = np.eye(self.outputs)
        if not self.hidden:
            return eye
        return np.linalg.qr(np.column_stack([np.ones(self.outputs), eye[:, 1:]]))[0][:, 1:]

    @property
    def usable(self) -> np.ndarray:
        """Which replies [n] are not saturated."""
        return self.strain(np.arange(len(self.x))) < 1

    def strain(self, number: np.ndarray) -> np.ndarray:
        """How near replies [n] are to saturation, at which this is 1."""
        z = self.z[number]
        out = np.abs(z).max(1) / self.depth
        if np.isfinite(self.flat):
            rest = np.exp(np.delete(np.sort(z, 1), -1, 1)).sum(1)
            with np.errstate(divide="ignore"):
                out = np.maximum(out, -np.log(rest) / self.flat)
        return np.where(np.isfinite(z).all(1), out, np.inf)

    @property
    def depth(self) -> float:
        """How large log p, or the logit of a single probability, may be."""
        if self.view not in ("probabilities", "log_probabilities"):
            return np.inf
        if self.outputs == 1:
            return SIGMOID
        return DEEP if self.view == "probabilities" else np.inf

    def f(self, number: np.ndarray) -> np.ndarray:
        """Coordinates [n, q] of the log-odds or logits."""
        return self.z[number] @ self.basis

    def noise(self, number: np.ndarray) -> np.ndarray:
        """What bounds the rounding errors [n] of f."""
        good = self.usable
        length = np.linalg.norm(self.x, axis=1)
        usual = max(float(np.median(length[good])), 1e-300)
        size = np.abs(self.z).max(1)
        steep = float((size[good] / (length[good] + usual)).max())
        noise = NOISE * self.eps * (1 + size[number] + steep * (length[number] + usual))
        if self.outputs == 1 and self.hidden_sigmoid:
            noise = noise + self.eps * 2 * np.exp(np.maximum(self.z[number, 0], 0))
        return np.asarray(noise)

    @property
    def hidden_sigmoid(self) -> bool:
        """Whether a single probability is shown."""
        return self.outputs == 1 and self.view in ("probabilities", "log_probabilities")

    @property
    def label(self) -> np.ndarray:
        """The top class [n]."""
        return np.asarray(self.z.argmax(1))

    def replies(self, line: Line, t: np.ndarray) -> Replies:
        """Ask at t [n] of a line."""
        number = self.ask(line.at(t))
        return Replies(t, self.f(number), self.noise(number), number)


def begin(log: Log, key: np.ndarray, first: int = FIRST, radius: float = 0.5) -> tuple[Line, Replies]:
    """A random line and its first replies, as far out as the log-odds can be read."""
    u, v = arrays.normal(key, (2, log.dim))
    v *= log.dim**0.5 / np.linalg.norm(v)
    while True:
        line = Line(radius * u, v, radius)
        inner = np.arctan(REACH) * (2 * (np.arange(first) + 0.5) / first - 1)
        t = radius * np.tan(inner)
        number = log.ask(line.at(t))
        good = log.usable[number]
        far = _far(t[good], log.strain(number[good]), radius) if good.any() else 0.0
        near = far < LEAST * radius and radius > 1e-3 and min(log.depth, log.flat) > SIGMOID
        if not good.all() or near:
            radius = max(radius / 16, far / (2 * LEAST)) if far else radius / 16
            if radius < 1e-9:
                raise Spent
            continue
        break
    ends, todo = [], [-far, far]
    while todo:
        asked = log.ask(line.at(np.array(todo)))
        good = log.usable[asked]
        ends += [(t, n) for t, n, g in zip(todo, asked, good, strict=True) if g]
        todo = [t / SHRINK for t, g in zip(todo, good, strict=True) if not g]
    at = np.concatenate([t, [t for t, _ in ends]])
    number = np.concatenate([number, [n for _, n in ends]]).astype(int)
    order = np.argsort(at)
    at, number = at[order], number[order]
    # shrunk ends may lie inside of the first replies: all are of use
    return line, Replies(at, log.f(number), log.noise(number), number)


def _far(t: np.ndarray, strain: np.ndarray, radius: float) -> float:
    """How far a line may go, where it goes on as steeply as so far: its t."""
    middle = int(np.abs(t).argmin())
    away = (strain - strain[middle]) / np.maximum(np.abs(t - t[middle]), 1e-300)
    steep = np.max(np.delete(away, middle), initial=1e-300)
    return float(min(REACH * radius, max(0.7 - strain[middle], 0.0) / steep))
