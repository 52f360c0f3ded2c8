"""Deep ReLU networks of any number of hidden layers, from gradient queries: the paper's section 1.1
asks whether that can be done with few.

    line    all kinks of one line, about one a unit of every layer (`segment`)
    first   those that are planes of the whole space are the first layer's (`first`)
    then layer by layer (`layer`): in the region where all known units are on, a kink of the next
    layer shows a whole row (`cells`, `rows`); a row predicts kinks on every line searched so far,
    which tells it from deeper ones; rows seen in part are lifted (`lift`)
    last    an output layer that meets every reply ends it (`output`, `finish`), and fresh points
    decide

A first layer of more units than inputs is found where one hidden layer follows it (`wide`).  Else
it has at most d units, and later layers are not wider than those before (but for the last hidden
one); replies are in float64.  Not identifiable, and so our choice: the order of units, their
scale, and how units that are on everywhere mix; these are passed on by identity units, one for each
input.

What is proved and what is not: every value is met to rounding, and m fresh standard normal points
are, with their gradients, drawn once the network stood.  With confidence 95 % the network answers
at most ln(20) / m of such inputs wrongly (`Recovery.share`): a unit that switches on fewer
can be missed.  A network that fails is mended and put to another test; the more points, the more
tests failed, so that all of them together have that confidence (`repeated`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from recon.exact.deep import finish, layer, wide
from recon.exact.deep.layer import Last
from recon.exact.deep.log import Log
from recon.exact.deep.search import Asked, Incomplete, Search, Stuck
from recon.exact.deep.segment import Ask
from recon.exact.recovery import EVIDENCE
from recon.networks import Deep
from recon.replies import Reply

FINEST = 1e-12  # eps of replies above which nothing is tried
LAYERS = 8  # hidden layers, at most
BACK = 8  # returns to a layer that was taken for complete
MOST = 30_000  # queries: a victim that bends smoothly somewhere may take any number
SHARE = 0.1  # of the inputs, that a network may be wrong on, where the caller does not say
SLOPE = 1e-6  # of the largest gradient seen: what those at fresh points may be off by
NUMBERS = "Linear algebra on the replies failed"
HIDDEN = "Fresh values are met and gradients are not: values are so large that they hide units."


class Found(NamedTuple):
    """A network that met `fresh` standard normal points, and its largest deviation on fresh points
    relative to rms f there; or none, and why.

    several: two hidden layers or more were found, which a network of one has not.
    """

    network: Deep | None
    fresh: int
    deviation: float
    why: str
    several: bool = False


def points(share: float) -> int:
    """Fresh points that bound the share of wrong inputs so, as `Recovery.share` says."""
    return math.ceil(EVIDENCE / share)


def recover(
    ask: Ask,
    dim: int,
    seed: Any,
    eps: float,
    share: float = SHARE,
    line: Asked | None = None,
    others: np.ndarray | None = None,
    unit: np.ndarray | None = None,
) -> Found:
    """The network behind `ask`.

    line: replies that were asked for already; others [m, d]: fresh points it must meet besides;
    unit [d]: deviations of the normal inputs that are asked fresh, by default one.

    Exceptions of `ask`, as of a budget that is spent, pass through.
    """
    if eps > FINEST:
        why = f"More hidden layers need replies in float64, and these are off by {eps:.0e}."
        return Found(None, 0, math.inf, why)
    asked = 0

    def bounded(x: np.ndarray) -> Reply:
        nonlocal asked
        asked += len(x)
        if asked > MOST:
            raise Stuck(f"More hidden layers were not found with {MOST:,} queries.")
        return ask(x)

    s = Search(
        Log(bounded, eps), dim, np.random.default_rng(seed), np.ones(dim) if unit is None else unit
    )
    try:
        last = _layers(s, line, points(share), np.zeros((0, dim)) if others is None else others)
    except Stuck as stuck:
        return Found(None, 0, math.inf, str(stuck), len(s.layers) > 1)
    except np.linalg.LinAlgError as error:
        return Found(None, 0, math.inf, f"{NUMBERS} ({error}).", len(s.layers) > 1)
    value, gradient = s.log.reply
    made = finish.of([*s.layers, last.layer], last.output, s.log.points, value)
    network = Deep(tuple(a.weights for a in made), tuple(a.bias for a in made))
    at = s.log.at(last.fresh)
    slope = np.linalg.norm(network.gradient(last.fresh) - gradient[at], axis=(1, 2)).max()
    if slope > SLOPE * s.log.scale:
        return Found(None, 0, math.inf, HIDDEN)
    off = np.abs(network(last.fresh) - value[at]).max()
    rms = float(np.sqrt(np.mean(value[at] ** 2)))
    return Found(network, points(share), float(off) / max(rms, 1e-300), "")


def _layers(s: Search, line: Asked | None, fresh: int, others: np.ndarray) -> Last:
    planes = s.begin(line)
    if planes is not None:
        return wide.last(s, planes, fresh, others)
    for _ in range(LAYERS + BACK):
        try:
            found = layer.find(s, fresh, others)
        except Incomplete as lacks:
            s.back(lacks.number, lacks.ends)
            if lacks.number == 0 and s.begin() is not None:
                raise Stuck("Layer 1 lacks units.") from None
            continue
        if isinstance(found, Last):
            return found
        s.layers.append(found)
        if len(s.layers) > LAYERS:
            break
    raise Stuck(f"More than {LAYERS} hidden layers, or layers that change.")
