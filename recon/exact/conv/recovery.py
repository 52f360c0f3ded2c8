"""The door: an oracle, the shape of its images, and what comes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from recon import probe
from recon.exact import asking
from recon.exact.conv import dense, layer, reading
from recon.exact.conv.known import Layer, Shape
from recon.exact.conv.reading import Reading
from recon.exact.deep.log import Log
from recon.exact.deep.recovery import FINEST, SHARE, points
from recon.exact.deep.search import Stuck
from recon.exact.inputs import of_data
from recon.exact.recovery import Recovery, Status, repeated
from recon.exact.two_layer import ask
from recon.networks import Convolutional
from recon.oracles import AnyOracle, Cost, need
from recon.replies import Reply

BUDGET = 3_000  # queries, where the caller does not say
CONVOLUTIONS = 2
NOTHING = Cost()
AT_ONCE = 8  # points of a test that are asked together
MOVED = 1e-3  # of the inputs' spread: how far these are moved


@dataclass(frozen=True)
class Convolutions(Recovery):
    """A Recovery with the convolutions found, first one first, kernels of length one, and what
    these cost until they explained fresh points.

    Where `ok`, `network` is a `networks.Convolutional` that met `fresh` standard normal points and
    up to 32 inputs like the data, values to within `promise`(eps) of their rms and gradients to
    1e-6: with 95 % confidence it fails to on at most `share` of standard normal inputs.  With
    Status.CONVOLUTIONS it is None, and of the convolutions alone the same holds: they explain the
    Jacobians.
    """

    network: Convolutional | None  # type: ignore[assignment]
    layers: tuple[Layer, ...] = ()
    searched: Cost = NOTHING


def convolutional(
    oracle: AnyOracle,
    *,
    shape: Shape,
    key: Any,
    budget: int | None = None,
    data: Any = None,
    share: float = SHARE,
) -> Convolutions:
    """Recover a network of two convolutions, each with ReLU and a 2x2 max-pool, and two dense
    layers, from its logits and their Jacobians in float64.

    shape: (h, w, c) of its images, which x [d] holds row by row, channels last.  Kernels are
    square, of stride 1, without padding; their sizes, channels, signs and biases are found.  key:
    a JAX key, consumed, or a whole number; budget: most queries to ask; data [n, d]: inputs like
    which some are asked (moved a little, as pools of blank images tie), to find what these need,
    and that it is held to besides; share: of standard normal inputs, the most that what is found
    may fail on, with 95 % confidence.  Raises what `exact.recover` does.

    Units of the dense layer that are on at every point met are part of a linear one, which passes
    through units of its own; those that are off at every point met are lacking.
    """
    need(oracle, outputs=("logits", "values"), explanation="jacobian", shown="plain")
    dim, budget = int(np.prod(shape)), BUDGET if budget is None else budget
    if len(shape) != 3 or min(shape) < 1 or not 0 < share < 1 or budget < 0:
        raise ValueError(f"no attack on images {shape}, with budget {budget} and share {share}")
    others = np.zeros((0, dim))
    if data is not None:
        of_data(data, dim)
        others = np.asarray(data, np.float64)
    if budget < 1 + probe.MOST:
        return Convolutions(None, Status.BUDGET, Cost(), detail="Nothing was asked.")
    with jax.enable_x64(True):
        return _recover(oracle, shape, asking.seed(key), budget, others, points(share))


def _recover(
    oracle: Any, shape: Shape, seed: Any, budget: int, others: np.ndarray, fresh: int
) -> Convolutions:
    dim = int(np.prod(shape))
    victim, form = oracle.form(dim)
    rng = np.random.default_rng(seed)
    eps = max(float(np.finfo(name).eps) for name in (form.asked, form.replied))
    others = (
        others + MOVED * others.std() * rng.standard_normal(others.shape) if len(others) else others
    )
    log, spent = Log(lambda x: more(x), eps), form.cost

    def more(x: np.ndarray) -> Reply:
        nonlocal spent
        if spent.queries + len(x) > budget:
            raise asking.Spent
        spent = spent + Cost(len(x), 0, len(x) * form.outputs * (dim + 1), 1)
        return ask(victim, x.astype(form.asked))

    def ended(status: Status, detail: str, layers: tuple[Layer, ...] = ()) -> Convolutions:
        found = {"layers": layers, "searched": searched}
        return Convolutions(None, status, spent, detail=detail, **found)

    layers: tuple[Layer, ...] = ()
    searched = spent
    try:
        first = probe.points(rng, -np.ones(dim), np.ones(dim), eps).astype(form.asked)
        found = probe.findings(first.astype(float), log(first.astype(float)), eps)
        if found.sentence or max(found.eps, eps) > FINEST:
            why = f"Convolutions need replies in float64, and these are off by {found.eps:.0e}."
            return ended(Status.UNFIT, found.sentence or why)
        if form.outputs < 2:
            return ended(Status.UNFIT, "Convolutions need two outputs at least, to be told apart.")

        failed, x = 0, others[:0]

        def left(last: Layer, x: np.ndarray) -> list[Reading]:
            readings = reading.read((*layers, last), shape, x, log(x)) if len(x) else []
            return [of for of in readings if not of.off < reading.LEFT]

        def unmet(last: Layer) -> list[Reading]:
            nonlocal failed, x
            if found := left(last, x):
                return found
            new = rng.standard_normal((repeated(fresh, failed), dim))
            new = rng.permutation(np.concatenate([new, others[: dense.ROWS]]))
            for part in np.split(new, range(AT_ONCE, len(new), AT_ONCE)):
                x, found = np.concatenate([x, part]), left(last, part)
                if found:  # a test that is not passed makes the next one longer
                    failed += 1
                    break
            return found

        for number in range(CONVOLUTIONS):
            last = (unmet,) if number == CONVOLUTIONS - 1 else ()
            layers = (*layers, layer.find(log, shape, layers, rng, *last))
            searched = spent
        network, off = dense.found(log, layers, shape, rng, fresh, x, others)
    except asking.Spent:
        return ended(Status.BUDGET, _told(layers), layers)
    except Stuck as stuck:
        why = f"{_told(layers)} {stuck}".strip()
        if len(layers) < CONVOLUTIONS:
            return ended(Status.UNCERTIFIED, why, layers)
        return replace(ended(Status.CONVOLUTIONS, why, layers), fresh=fresh)
    told = f"{_told(layers)} Dense layer of {network.head.widths[0]} units."
    done = replace(ended(Status.RECOVERED, told, layers), network=network, fresh=fresh)
    return replace(done, certificate=off)


def _told(layers: tuple[Layer, ...]) -> str:
    said = [f"{k.shape[-1]} channels of {k.shape[0]}x{k.shape[1]}" for k, _ in layers]
    return f"Convolutions found: {', '.join(said)}." if said else ""
