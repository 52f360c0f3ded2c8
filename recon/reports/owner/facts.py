"""What a report says, as numbers: the model is asked openly here, after the attack.

Queries asked here are no part of the attack's cost.  Everything else of a report (`text`,
`figure`) comes from these facts alone.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np

from recon import exact, probe
from recon.exact import asking, derived, paper, two_layer
from recon.exact.recovery import Recovery, promise
from recon.networks import Deep, Network, TwoLayer
from recon.oracles import AnyOracle

Facts = dict[str, Any]  # what JSON holds

KIND = "recon report"
DELTA, SEPARATION = 0.05, 0.1  # of Algorithm 1, as `recon attack` has them
ASKED = 4  # inputs at which the precision of replies is looked at
FLOOR = "floor, as many numbers as the model has"
ALGORITHM1, MEMBERSHIP = "Algorithm 1 of the paper", "its membership form"


@dataclass(frozen=True)
class Subject:
    """What was attacked, and how.

    x [n, d]: inputs at which network and model are held against each other, inside the box if
    there is one; own: whether these are the owner's; note: what was done to ask the model.
    """

    name: str
    oracle: AnyOracle
    x: np.ndarray
    own: bool = False
    method: str = "tangent"
    box: Any = None
    note: str = ""


def measure(
    subject: Subject,
    recovery: Recovery,
    seconds: float | None = None,
    price: float | None = None,
    compare: Any = None,
) -> Facts:
    """The facts of one attack.

    seconds it took; price of one query; compare: a key with which to run Algorithm 1 and its
    membership form too, where they are defined for the model.  Nothing is asked if the attack
    failed.  ValueError for x or a price that make no sense.
    """
    x = np.asarray(subject.x, np.float64)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x must be inputs [n, d], not {x.shape}")
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise ValueError(f"a price of {price} a query makes no sense")
    if subject.box is not None:
        low, high = subject.box
        if ((x < low) | (x > high)).any():
            raise ValueError("x must lie in the box")
    certificate = recovery.certificate if math.isfinite(recovery.certificate) else None
    facts: Facts = {
        **{"kind": KIND, "name": subject.name, "note": subject.note, "method": subject.method},
        **{"status": recovery.status.name, "ok": recovery.ok, "message": str(recovery)},
        **{"dim": x.shape[1], "view": str(subject.oracle.view), "box": _plain(subject.box)},
        "hides": derived.hides(subject.oracle.view),
        **{"queries": recovery.cost.queries, **asdict(recovery.cost)},
        **{"seconds": seconds, "price": price, "certificate": certificate},
    }
    network = recovery.network
    if not recovery.ok or network is None:
        return facts
    with jax.enable_x64(True):
        facts |= agreement(subject, network, x)
    facts |= structure(network, facts["eps"])
    rows = comparison(facts)
    if compare is not None and not facts["undefined"]:
        rows[2:] = [
            _run(row, method, subject.oracle, facts, compare)
            for row, method in zip(rows[2:], ("bisect", "membership"), strict=True)
        ]
    return facts | {"comparison": rows}


def agreement(subject: Subject, network: Network, x: np.ndarray) -> Facts:
    """Errors [n] at x, sorted: max over outputs |f^ - f|, relative to the rms of f there.

    Of a service that shows probabilities f is its centred logits.  same: the share of x where the
    same output is the largest, None for one output.  eps: the rounding unit of the replies.
    All None where the view has not the values of every output.
    """
    none = dict.fromkeys(("promise", "eps", "errors", "max_error", "same"))
    facts: Facts = {"checked": len(x), "own": subject.own, **none}
    view = subject.oracle.view
    if view.outputs not in ("logits", "values", "probabilities", "log_probabilities"):
        return facts
    logits, form = derived.logits(subject.oracle).form(x.shape[1], x[0])
    x = x.astype(form.asked)
    few = two_layer.ask(logits, x[:ASKED])
    eps = max(asking.roundoff(form.asked, form.replied), probe.digits(few))
    if derived.hides(view):
        truth = two_layer.ask(logits, x).value
    else:
        truth = subject.oracle.values(x).astype(np.float64)
    found = np.asarray(network(x.astype(np.float64)))
    rms = float(np.sqrt(np.mean(truth**2)))
    errors = np.abs(found - truth).max(1) / (rms if rms > 0 else 1.0)
    facts |= {"eps": eps, "errors": np.sort(errors).tolist(), "max_error": float(errors.max())}
    if subject.method == "tangent":
        facts["promise"] = promise(eps * derived.limits(view, form)[1])
    if truth.shape[1] > 1:
        facts["same"] = float(np.mean(found.argmax(1) == truth.argmax(1)))
    return facts


def structure(network: Network, eps: float | None) -> Facts:
    """What the network is made of, and why Algorithm 1 is not defined for it, if it is not.

    network_numbers: how many numbers it takes to write it down, zeros known to be zeros left out.
    """
    bar = 1e-6 if eps is None else promise(eps)  # what rounding makes of a bias of zero
    if isinstance(network, Deep) and network.depth > 1:
        return _structure_of_deep(network, bar)
    turned = _turned(_two_layer(network))
    outputs, dim = turned.slope.shape
    weight = max(np.abs(turned.weights).max(initial=0.0), np.finfo(float).tiny)
    inner = bool(np.abs(turned.bias).max(initial=0.0) > bar)
    offset = bool(np.abs(turned.offset).max() > bar * weight)
    linear = bool(np.abs(turned.slope).max() > bar * weight)
    biases = inner or offset
    width = network.width
    numbers = width * (dim + outputs + inner) + outputs * (dim * linear + offset)
    why = {
        f"{outputs} outputs": outputs > 1,
        "biases": biases,
        "a part without kinks": linear,
        "more units than inputs": width > dim,
        "no units": width == 0,
    }
    return {
        **{"width": width, "widths": [width], "outputs": outputs},
        **{"biases": biases, "linear": linear, "network_numbers": numbers},
        "undefined": [reason for reason, holds in why.items() if holds],
    }


def _structure_of_deep(network: Deep, bar: float) -> Facts:
    """Of several hidden layers, for none of which the paper has a method.

    A bias counts as zero below `bar` of the largest weight of its layer.
    """
    layers = [*zip(network.weights, network.biases, strict=True)]
    has = [bool(np.abs(b).max(initial=0.0) > bar * np.abs(w).max(initial=0.0)) for w, b in layers]
    numbers = sum(w.size + b.size * there for (w, b), there in zip(layers, has, strict=True))
    return {
        **{"width": network.width, "widths": list(network.widths), "outputs": network.outputs},
        **{"biases": any(has), "linear": False, "network_numbers": numbers},
        "undefined": [f"{network.depth} hidden layers"],
    }


def _two_layer(network: Network) -> TwoLayer:
    """A network of one hidden layer, as the record of such."""
    if isinstance(network, TwoLayer):
        return network
    (rows, weights), (bias, offset) = network.weights, network.biases
    return TwoLayer(rows, bias, weights, np.zeros((network.outputs, network.dim)), offset)


def _turned(network: TwoLayer) -> TwoLayer:
    """The same network, its units on the side on which they leave the smallest slope.

    A recovery has every unit off near the origin, w max(z, 0) = w z + w max(-z, 0), and the rest
    in the slope.  The side c of each unit solves 2 slope = sum (c - 1) w n^T, where that has one
    solution.
    """
    rows, bias, weights, slope, offset = (np.asarray(a, np.float64) for a in vars(network).values())
    gram = (weights.T @ weights) * (rows @ rows.T)
    sides = 1 + np.linalg.lstsq(gram, 2 * np.sum((weights.T @ slope) * rows, axis=1))[0]
    other = sides < 0
    moved = weights[:, other]
    sign = np.where(other, -1.0, 1.0)
    return TwoLayer(
        rows=rows * sign[:, None],
        bias=bias * sign,
        weights=weights,
        slope=slope + moved @ rows[other],
        offset=offset + moved @ bias[other],
    )


def comparison(facts: Facts) -> list[Facts]:
    """Queries of this attack, the floor, and the paper's two: measured, counted, computed.

    The floor of several hidden layers: their numbers, less one a unit, whose scale is free, over
    the d + 1 numbers that a model of one output answers with its gradient.  The paper's two have
    no count then.
    """
    width, dim = facts["width"], facts["dim"]
    floor = ("floor, one gradient a unit", width, "counted")
    if deep := len(facts["widths"]) > 1:
        floor = (FLOOR, -(-(facts["network_numbers"] - width) // (dim + 1)), "counted")
    defined = width and not deep
    rows = [
        ("this attack", facts["queries"], "measured"),
        floor,
        (ALGORITHM1, sum(algorithm1(dim, width)) if defined else 0, "computed"),
        (MEMBERSHIP, membership(dim, width) if defined else 0, "computed"),
    ]
    return [dict(zip(("what", "queries", "known"), row, strict=True)) for row in rows]


def algorithm1(dim: int, width: int) -> tuple[int, int]:
    """Gradients and values that Algorithm 1 asks for `width` units, about: Theorem 2's constants.

    A binary search of log2(2 l / eps) steps for each unit and the two ends of the line; two values
    a unit for the signs, and the certificate's.
    """
    eps, reach = asking.theorem2_constants(width, DELTA, SEPARATION)
    gradients = math.ceil(width * math.log2(2 * reach / eps)) + 2
    return gradients, 2 * width + paper.certificate_size(width, dim)


def membership(dim: int, width: int) -> int:
    """Values that the membership form asks, about: a step more for each search, and d + 1 values
    twice in each of h + 1 cells, in every tenth again (results/bench_exact).
    """
    gradients, values = algorithm1(dim, width)
    return gradients + width + values + math.ceil(2.1 * (width + 1)) * (dim + 1)


def _run(row: Facts, method: str, oracle: AnyOracle, facts: Facts, key: Any) -> Facts:
    """The row of one of the paper's methods, run on the model."""
    settings = {"delta": DELTA, "separation": SEPARATION, "width": facts["width"]}
    got = exact.METHODS[method](oracle, dim=facts["dim"], key=key, **settings)
    known = "measured" if got.ok else f"measured, failed: {got.status.name}"
    return row | {"queries": got.cost.queries, "known": known}


def _plain(box: Any) -> list[float] | None:
    """The lowest and the highest number of a box."""
    return None if box is None else [float(np.min(box[0])), float(np.max(box[1]))]
