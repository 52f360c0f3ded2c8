"""Log-odds: what a classifier's probabilities say of its logits, as a piecewise linear function.

Centred over the classes, log p is centred z: the softmax only hides a shift common to all logits.
In K - 1 orthonormal coordinates that is `Log.f`; a service of logits or values shows all K.  Log p
is exact to a few eps as long as p does not underflow, so queries stay where |log p| < DEEP.
One probability p is the sigmoid of one logit, log p - log(1 - p), good where neither is near 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax
import numpy as np

from recon import oracles, probe
from recon.exact import arrays
from recon.exact.asking import Spent, check_scale, roundoff
from recon.exact.derived import FAINT, SATURATED
from recon.exact.less.chords import Line, Replies
from recon.exact.recovery import CONSTANT
from recon.oracles import AnyOracle, Cost

DEEP = 640.0  # -log p: beyond, float64 has fewer digits, and then none
SIGMOID = 25.0  # of a single logit whose probability is shown
NOISE = 4.0  # eps: rounding of the victim's own sums, relative to what they add up
NOTHING = 1e-100  # of outputs, which are larger, or all zero
REACH = 1e3  # ends of a line, in its tau, where nothing saturates
LEAST, SHALLOW = 60.0, 4.0  # where something does: else the line is drawn nearer the origin
FEW_DIGITS = (
    "The values have float32's digits, or few decimals. Without the gradients of all outputs that "
    "is too few: ask the model in float64."
)
HARDLY = 1e4  # roundings by which log-odds must change along a line
ROUGH = 1e-9  # eps from which that is so
SMALL = 1e-2  # radius of a line below which it may be shorter than that
SHRINK = 1.6
FIRST = 8  # replies on a line before anything is known


class Unreadable(Exception):
    """Log-odds that cannot be read, and why: a sentence."""


class OneOutput(Exception):
    """The gradient of the top output is that of the only one: of all."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost


@dataclass
class Log:
    """All replies in the order asked: x [n, d], z [n, K] (logits or log p), gradient [n, d]; and
    the last values as they were shown.
    """

    oracle: AnyOracle
    dim: int
    budget: float = np.inf
    flat: float = np.inf  # -log(1 - p) of the top class beyond which its gradient says too little
    cost: Cost = field(default_factory=Cost)
    eps: float = float(np.finfo(np.float64).eps)
    x: np.ndarray = field(init=False)
    z: np.ndarray = field(init=False)
    gradient: np.ndarray = field(init=False)
    shown: np.ndarray = field(init=False)
    fresh: int = 0  # standard normal points of the last certificate, worth as many of a single one
    tests: int = 0  # certificates so far

    def __post_init__(self) -> None:
        self.x = self.gradient = np.zeros((0, self.dim))
        self.z = self.shown = np.zeros((0, 0))

    def ask(self, x: np.ndarray) -> np.ndarray:
        """Ask x [n, d] in one round; their numbers [n].  Raises Spent, ReplyError."""
        first = len(self.x)
        if first + len(x) > self.budget:
            raise Spent
        with jax.enable_x64(True):
            reply, cost = oracles.ask(self.oracle, x, first)
        self.cost = self.cost + cost
        if isinstance(self.oracle, oracles.HostOracle):  # which is held to its outputs
            self.oracle = replace(self.oracle, outputs=reply.value.shape[1])
        parts = [a.dtype for a in reply if a is not None]
        self.eps = max(self.eps, roundoff(*parts))
        self.shown = reply.value.astype(np.float64)
        z = self._logits(self.shown)
        self.z = np.concatenate([self.z, z]) if first else z
        self.x = np.concatenate([self.x, x])
        if reply.gradient is not None:
            self.gradient = np.concatenate([self.gradient, reply.gradient.astype(np.float64)])
        return np.arange(first, len(self.x))

    def _logits(self, value: np.ndarray) -> np.ndarray:
        """Logits, values, log p, or the one logit of a single probability; [n, K]."""
        if not self.saturates:
            return value
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p = np.log(value) if self.oracle.view.outputs == "probabilities" else value
            if value.shape[1] > 1:
                return np.asarray(log_p)
            return np.asarray(log_p - np.log(-np.expm1(log_p)))

    @property
    def saturates(self) -> bool:
        """Whether probabilities are shown, or their logarithms."""
        return self.oracle.view.outputs in ("probabilities", "log_probabilities")

    @property
    def hidden(self) -> bool:
        """Whether a shift common to all logits is hidden."""
        return self.saturates and self.outputs > 1

    @property
    def outputs(self) -> int:
        """K, 0 before the first reply."""
        return self.z.shape[1]

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
        if self.saturates and self.outputs == 1:
            return SIGMOID
        return DEEP if self.oracle.view.outputs == "probabilities" else np.inf

    def readable(self, number: np.ndarray) -> np.ndarray:
        """Whether the log-odds of replies [n] are numbers with digits."""
        z = self.z[number]
        return np.asarray(np.isfinite(z).all(1) & (np.abs(z).max(1) < self.depth))

    def f(self, number: np.ndarray) -> np.ndarray:
        """Coordinates [n, q] of the log-odds or logits."""
        with np.errstate(invalid="ignore"):  # of replies that underflow, which are not used
            return np.asarray(self.z[number] @ self.basis)

    def noise(self, number: np.ndarray) -> np.ndarray:
        """What bounds the rounding errors [n] of f."""
        good = self.usable
        if not good.any():
            return np.full(len(number), np.inf)
        length = np.linalg.norm(self.x, axis=1)
        usual = max(float(np.median(length[good])), 1e-300)
        size = np.where(good, np.abs(self.z).max(1), np.inf)
        steep = float((size[good] / (length[good] + usual)).max())
        least = 1.0 if self.saturates else NOTHING
        noise = NOISE * self.eps * (least + size[number] + steep * (length[number] + usual))
        if self.saturates and self.outputs == 1:  # 1 - p near p = 1
            noise = noise + 2 * self.eps * np.exp(np.maximum(self.z[number, 0], 0))
        return np.asarray(noise)

    @property
    def label(self) -> np.ndarray:
        """The top class [n]."""
        return np.asarray(self.z.argmax(1))

    def replies(self, line: Line, t: np.ndarray) -> Replies:
        """Ask at t [n] of a line."""
        number = self.ask(line.at(t))
        return Replies(t, self.f(number), self.noise(number), number)


def begin(
    log: Log, key: np.ndarray, first: int = FIRST, radius: float = 0.5
) -> tuple[Line, Replies]:
    """A random line and its first replies, as far out as the log-odds can be read.

    Raises Unreadable where that is nowhere near the origin, or replies cannot be used at all, and
    OneOutput where there is one, which is explained.
    """
    u, v = arrays.normal(key, (2, log.dim))
    v *= log.dim**0.5 / np.linalg.norm(v)
    share = np.tan(np.arctan(REACH) * (2 * (np.arange(first) + 0.5) / first - 1))
    least = LEAST if min(log.depth, log.flat) > SIGMOID else SHALLOW
    while True:
        line = Line(radius * u, v, radius)
        r = log.replies(line, radius * share)
        if max(log.eps, probe.few_digits(log.shown)) > ROUGH:
            raise Unreadable(FEW_DIGITS)
        if log.outputs == 1 and log.oracle.view.axes:
            raise OneOutput(log.cost)
        if not log.saturates:
            check_scale(r.f, log.cost)
        with np.errstate(invalid="ignore"):  # log-odds that are no numbers
            change = np.ptp(r.f, 0).max()
        if change == 0 and probe.decimals(log.shown) is not None:
            raise Unreadable(CONSTANT)
        if log.saturates and 0 < change <= HARDLY * r.noise.min():
            raise Unreadable(FAINT)
        strain = log.strain(r.number)
        far = _far(r.t, strain, radius) if (strain < 1).all() else 0.0
        if far >= least * radius or (radius < SMALL and far > r.t[-1]):
            break
        if radius < SMALL / 16:
            raise Unreadable(SATURATED)
        radius = max(radius / 16, far / (2 * least))
    todo = np.array([-far, far])
    while len(todo):
        asked = log.replies(line, todo)
        good = log.strain(asked.number) < 1
        r = r.and_(asked.only(good))
        todo = asked.t[~good] / SHRINK
        todo = todo[np.abs(todo) > radius * share[-1]]
    return line, r._replace(noise=log.noise(r.number))


def _far(t: np.ndarray, strain: np.ndarray, radius: float) -> float:
    """How far a line may go, where it goes on as steeply as so far: its t."""
    middle = int(np.abs(t).argmin())
    away = (strain - strain[middle]) / np.maximum(np.abs(t - t[middle]), 1e-300)
    steep = np.max(np.delete(away, middle), initial=1e-300)
    return float(min(REACH * radius, max(0.7 - strain[middle], 0.0) / steep))
