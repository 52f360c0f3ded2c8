"""Services that show less than logits and their Jacobians, as oracles that attacks can use.

A softmax hides one number: what all logits have in common.  The rest is in log p, as
log p_k - mean_j log p_j = z_k - mean_j z_j, and a Jacobian of probabilities has
dp_k = p_k (dz_k - sum_j p_j dz_j), so that its rows over p_k, less their mean over k, are those of
the centred logits.  One logit behind a sigmoid is hidden by nothing.  So the centred network is
recovered, to the same probabilities and labels; it is piecewise linear where p is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from recon.networks import TwoLayer
from recon.oracles import CHUNK, AnyOracle, Form, Reply
from recon.replies import View

Change = Callable[[np.ndarray, Reply], Reply]
FAINT = (
    "The probabilities hardly differ from input to input: by less than their rounding shows. Ask "
    "for the logits, or in float64."
)
BINARY = 10.0  # the size of a single logit at most
FINE = 1e-12  # eps from which digits are so few that it is no larger than COARSER allows
BLIND = 37.0  # the size at which 1 - p has no digits
FLOOR = 16.0  # roundings of log p, however little it says of logits that hardly differ
COARSER = 256.0  # times the rounding of replies, where a probability is computed anew
SATURATED = (
    "The probabilities are those of one class alone, to all digits, wherever asked: no logits can "
    "be read. Ask for the logits, or elsewhere (box=, data=); a softmax over one output tells "
    "nothing."
)
SPREAD = 0.9  # of the smallest and the largest number, in logarithms: as far as logits may part


@dataclass(frozen=True)
class Derived:
    """An oracle of z whose replies are those of `inner` to x = shift + scale z, changed row by row.

    inner: what is really asked; change(z, reply) -> reply, in float64 and not checked.
    """

    traced: ClassVar[bool] = False
    inner: Any
    change: Change
    scaling: tuple[np.ndarray, np.ndarray] | None = None  # shift and scale [d]

    def points(self, z: np.ndarray) -> np.ndarray:
        """Where `inner` is asked [n, d]."""
        if self.scaling is None:
            return z
        shift, scale = self.scaling
        return np.asarray(shift[None] + scale[None] * z.astype(np.float64)).astype(z.dtype)

    def answer(self, z: np.ndarray, reply: Reply) -> Reply:
        """The reply, unchecked, to z [n, d], by that of `inner`."""
        with np.errstate(all="ignore"):  # what is not finite is found out where it is used
            value, gradient = self.change(z, reply)
        scaled = 1.0 if self.scaling is None else self.scaling[1][None, None]
        return Reply(value, gradient * scaled)

    def stream(self, z: np.ndarray, shapes: Sequence[int] = (CHUNK,)) -> Iterator[Reply]:
        """Unchecked replies to z [n, d] in float64, in the parts in which `inner` gives them."""
        first = 0
        for part in self.inner.stream(self.points(z), shapes):
            here = slice(first, first + len(part.value))
            first = here.stop
            yield self.answer(z[here], part)

    def form(self, dim: int, at: np.ndarray | None = None) -> tuple[Derived, Form]:
        """The oracle, and what it answers; asks what `inner` asks, at `at` [d], or at ones."""
        at = np.ones(dim) if at is None else at
        inner, form = self.inner.form(dim, at)
        with np.errstate(all="ignore"):
            reply = self.change(at[None], Reply(form.value, form.gradient))
        return replace(self, inner=inner), form._replace(**reply._asdict())

    def scaled(self, shift: np.ndarray, scale: np.ndarray, dtype: str) -> Derived:
        """The oracle as a function of z, x = shift + scale z."""
        return Derived(self, lambda _, reply: reply, (shift, scale))


@dataclass(frozen=True)
class Whole(Derived):
    """The oracle of logits behind a service that takes whole numbers alone: asked at the nearest.

    From there its reply goes on along its gradient: exact, but where a kink lies between.
    """

    def points(self, z: np.ndarray) -> np.ndarray:
        """The whole numbers nearest to z [n, d]."""
        return np.rint(z)

    def answer(self, z: np.ndarray, reply: Reply) -> Reply:
        """The reply to z [n, d], on along the gradient."""
        step = z.astype(np.float64) - np.rint(z.astype(np.float64))
        value, gradient = reply
        return Reply(value + np.einsum("nkd,nd->nk", gradient, step), gradient)

    def form(self, dim: int, at: np.ndarray | None = None) -> tuple[Derived, Form]:
        """The oracle, and what it answers, asked at whole numbers."""
        inner, form = self.inner.form(dim, np.ones(dim) if at is None else np.rint(at))
        return replace(self, inner=inner), form


def both(oracle: Any, z: np.ndarray) -> tuple[Reply, Reply]:
    """Replies to z [n, d], unchecked: the service's own, and what the oracle makes of them."""
    if not isinstance(oracle, Derived):
        reply = Reply(*(np.concatenate(a) for a in zip(*oracle.stream(z), strict=True)))
        return reply, reply
    own, reply = both(oracle.inner, oracle.points(z))
    return own, oracle.answer(z, reply)


def whole(oracle: Any) -> Whole:
    """The oracle, asked at whole numbers alone."""
    return Whole(oracle, lambda _, reply: reply)


def less(oracle: Any, network: TwoLayer, lift: float) -> Derived:
    """What the victim answers beyond the network, the units that are missing there, plus `lift`:
    the size of its own values, which is what their rounding goes by.
    """

    def change(z: np.ndarray, reply: Reply) -> Reply:
        z = z.astype(np.float64)
        return Reply(reply.value - network(z) + lift, reply.gradient - network.gradient(z))

    return Derived(oracle, change)


def hides(view: View) -> bool:
    """Whether a service shows its logits up to what they have in common only."""
    return "probabilities" in view.outputs or "probabilities" in view.of


def logits(oracle: AnyOracle) -> Any:
    """The oracle of (centred) logits and Jacobians behind one of probabilities or of logarithms,
    or of Jacobians times inputs.

    A view of logits throughout is returned as it is.
    """
    view = oracle.view
    if view.explanation == "input_x_gradient":
        return Derived(oracle, lambda x, reply: shown(view, _divided(x, reply)))
    return Derived(oracle, lambda _, reply: shown(view, reply)) if hides(view) else oracle


def floor(view: View, eps: float) -> float:
    """Rounding of logits behind replies of rounding unit eps, however small these logits are."""
    return FLOOR * eps if hides(view) else 0.0


def limits(view: View, form: Form, eps: float = 0.0) -> tuple[float, float]:
    """How far logits may part until a probability that is asked for is no number (inf: any), and
    how many times coarser than the replies, of rounding unit eps, the logits are.
    """
    if form.outputs == 1 and hides(view):  # 1 - p loses digits as exp(z)
        return BINARY if eps < FINE else float(np.log(COARSER)), COARSER
    if "probabilities" not in (view.outputs, view.of):
        return np.inf, 1.0
    limit = SPREAD * float(-np.log(np.finfo(form.replied).tiny))
    return limit, 1.0 if view.outputs == "probabilities" else COARSER


def faint(view: View, x: np.ndarray, reply: Reply) -> float:
    """How many times coarser (centred) logits are at x [n, d] than the probabilities shown, where
    these hardly differ: log p is exact to eps, however little it changes.
    """
    if not hides(view):
        return 1.0
    steep = float(np.linalg.norm(reply.gradient, axis=2).max(initial=0.0))
    size = float(np.abs(reply.value).max(initial=0.0)) + steep * np.linalg.norm(x, axis=1).max()
    return max(1.0, 1.0 / size) if size > 0 else 1.0  # nothing at all: no unit is on here


def blurred(view: View, reply: Reply) -> float:
    """How many times coarser gradients of a single logit are than those of its probability."""
    if not hides(view) or reply.value.shape[1] > 1:
        return 1.0
    return 1.0 + float(np.exp(min(np.abs(reply.value).max(initial=0.0), BLIND)))


def lifted(view: View, reply: Reply) -> Reply:
    """Values as large as what their rounding goes by: log p is exact to eps, log (1 - p) to less.

    All are shifted alike, so that no difference changes.
    """
    if not hides(view):
        return reply
    alone, most = reply.value.shape[1] == 1, min(float(np.abs(reply.value).max()), BLIND)
    return reply._replace(value=reply.value + (np.exp(most) if alone else 1.0))


def _divided(x: np.ndarray, reply: Reply) -> Reply:
    """Gradients of products with the inputs, which lose nothing but where an input is zero: there
    they are taken for zero, as for an input that may not change.
    """
    x = np.where(x == 0, np.inf, x.astype(np.float64))
    return Reply(reply.value, reply.gradient / x[:, None])


def shown(view: View, reply: Reply) -> Reply:
    """Centred logits [n, K] and their Jacobians [n, K, d], or those of a single logit."""
    value, gradient = reply
    alone = value.shape[1] == 1
    if view.outputs == "probabilities":
        log = np.log(value) - (np.log1p(-value) if alone else 0.0)
    elif view.outputs == "log_probabilities" and alone:
        log = value - np.log(-np.expm1(value))
    else:
        log = value
    if view.of == "log_probabilities" and alone:
        gradient = gradient * (1 + np.exp(log))[:, :, None]
    elif view.of == "probabilities":
        odds = value  # as the service had it: its rounding is also the gradient's
        if view.outputs != "probabilities":
            odds = 1 / (1 + np.exp(-log)) if alone else _softmax(log)
        gradient = gradient / (odds * (1 - odds) if alone else odds)[:, :, None]
    if alone or not hides(view):
        return Reply(log, gradient)
    return Reply(log - log.mean(1)[:, None], gradient - gradient.mean(1)[:, None])


def values(view: View, value: np.ndarray) -> np.ndarray:
    """The (centred) logits [n, K] of values [n, K] alone."""
    if not hides(view):
        return value
    with np.errstate(divide="ignore"):
        return np.asarray(shown(view, Reply(value, np.zeros((*value.shape, 1)))).value)


def _softmax(log: np.ndarray) -> np.ndarray:
    odds = np.exp(log - log.max(1)[:, None])
    return odds / odds.sum(1)[:, None]
