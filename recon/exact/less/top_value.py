"""Recovery of z = W max(Ax + b, 0) + c from a service that shows the top class alone.

Each reply is the label k of the largest logit, its value z_k and its gradient.  `top_line` finds
the units' planes along a line, `top_classes` reads every class's weights off the replies and says
where to ask for those still open, and here the network is held to fresh queries.  Where it
fails, a line through the point of failure is searched for what is missing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from recon.exact import asking, certify
from recon.exact.asking import Spent
from recon.exact.less import top_classes
from recon.exact.less.chords import Wild
from recon.exact.less.odds import Unreadable
from recon.exact.less.top_classes import Reading
from recon.exact.less.top_line import Line, search
from recon.exact.less.top_replies import Log
from recon.exact.less.top_touch import Planes, beside, touched
from recon.exact.less.top_unseen import unseen
from recon.exact.recovery import Recovery, Status, repeated, single
from recon.networks import TwoLayer
from recon.oracles import AnyOracle

LINES = 12  # searches for units that are missing before giving up
ROUNDS = 64  # of queries for weights that are open and classes that were not seen
STUCK = 12  # rounds in succession that tell nothing of open weights, as of a class rarely on top
LIKELY = 0.02  # chance of another class at which it is looked for
UNKNOWN, KNOWN = 24, 16  # queries in succession that look for one in vain, where K is known
PAIRS = 1  # of far points x, -x: every unit is on at one of them
DISTANCE = 8.0  # times standard normal, as far out these lie
NORMAL = 2  # standard normal points at least, one of each class that is top at any
FEW, NORMAL_IF_FEW = 8, 64  # units found: the fewer, the less is seen of others
SPREAD = 32  # points at any distance, of so few
MISSED = 1e-6  # of the largest gradient: a deviation of a reply with a unit that is missing
NEAREST = 8  # pairs of replies, of which one is taken, as the unit may not show between them
SAMPLE = 2000  # points among which those of every class are chosen
NEVER = 300  # normal points that a class must not be on top of, whose weights no query told, and
# that must not show more, where fewer units are found than told
BESIDE = 1e-6  # of a point's length: so near to a plane, it may lie on either side
BAR = 2.0**14  # eps: deviations that rounding explains, relative to the largest there


def recover(
    oracle: AnyOracle,
    dim: int,
    key: Any,
    width: int | None = None,
    budget: int | None = None,
    classes: int | None = None,
) -> Recovery:
    """The network of all classes behind View("top", "top"); `exact.recover`.

    classes: K, if known, which says for how long to look for classes that were never on top.  Such
    a one has weights 0 and offset -inf, and the sentence says which were seen: a rare class that
    no query met is not known of.  So has one whose weights stay open, if none of 300 normal points
    shows it, which is said: `share` bounds how many do.  Others come out as they are, no common
    shift is left open.  ok: label, value and gradient agree with fresh queries to within rounding,
    and so do all values that were ever asked.
    """
    log = Log(oracle, dim, np.inf if budget is None else budget, classes or 1)
    return _recover(log, np.random.default_rng(asking.seed(key)), width, classes)


class Verdict(NamedTuple):
    """error: the largest deviation, in what rounding explains; fresh: the replies held to; worst:
    the one that deviates most; normal: new ones to standard normal points.
    """

    error: float
    fresh: np.ndarray
    worst: int
    normal: int = 0


def _recover(
    log: Log, rng: np.random.Generator, width: int | None, classes: int | None
) -> Recovery:
    planes = Planes(np.zeros((0, log.dim)), np.zeros(0))
    reading: Reading | None = None
    line: Line | None = Line(*rng.standard_normal((2, log.dim))[::-1])  # None: none is called for
    hint, lines = "", 0
    verdict, tests = Verdict(np.inf, np.zeros(0, int), 0), 0
    try:
        while lines < LINES:
            if line is not None:
                planes = planes.and_(search(log, line, planes, None if lines else width, rng))
            planes = planes.distinct(log.eps)
            reading = _completed(log, planes, classes, lines, rng)
            used = np.abs(reading.network.weights).max(0, initial=0.0) > log.tiny
            fewer = width is not None and used.sum() < width
            verdict, tests = _judged(log, reading, verdict.fresh, fewer, tests, rng), tests + 1
            hint = _sentence(reading)
            some = np.asarray(reading.missing[:, used].any(1))
            if verdict.error <= 1 and (off := _off(log, reading.network, some)) > 1:
                verdict = verdict._replace(error=off)
            if verdict.error <= 1:
                same = width in (None, int(used.sum()))
                status, found = Status.RECOVERED, reading.network
                fresh = single(verdict.normal, tests - 1)
                status = status if same else Status.OTHER_WIDTH
                if some.any():
                    rest, fresh = _without(found, some), NEVER
                    if _met(log, rest, some, rng):
                        count = int(reading.missing[:, used].sum())
                        status, hint = Status.UNCERTIFIED, f"{hint} Weights no query told: {count}."
                    else:
                        found = rest
                        hint += f" Not told, as on top at none of {NEVER} inputs: {_listed(some)}."
                return Recovery(found, status, log.cost, verdict.error, hint, fresh)
            planes = Planes(reading.network.rows[used], reading.network.bias[used])
            line = None  # a class that turned up is no sign of units that are missing
            if len(np.unique(log.label)) == reading.seen.sum():
                lines += 1
                more = _left_over(log, reading.network, verdict.fresh, rng)
                planes = planes.and_(more)
                line = None if len(more.bias) else _between(log, planes, rng)
    except Unreadable as why:
        return Recovery(None, Status.UNCERTIFIED, log.cost, detail=str(why))
    except Wild as why:
        network = None if reading is None else reading.network
        return Recovery(network, Status.NOISY, log.cost, detail=str(why))
    except Spent:
        network = None if reading is None else reading.network
        return Recovery(network, Status.BUDGET, log.cost, detail=hint)
    assert reading is not None
    return Recovery(reading.network, Status.UNCERTIFIED, log.cost, verdict.error, hint)


def _without(network: TwoLayer, some: np.ndarray) -> TwoLayer:
    """The network without some of its classes [K]."""
    weights, slope = (np.where(some[:, None], 0, a) for a in (network.weights, network.slope))
    offset = np.where(some, -np.inf, network.offset)
    return replace(network, weights=weights, slope=slope, offset=offset)


def _met(log: Log, network: TwoLayer, some: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether NEVER fresh normal points show one of some classes [K], or another network."""
    number = log.ask(rng.standard_normal((NEVER, log.dim)))
    others = np.isin(log.label[number], np.flatnonzero(~some))
    return bool(not others.all() or _held(log, network, number).error > 1)


def _completed(
    log: Log, planes: Planes, classes: int | None, lines: int, rng: np.random.Generator
) -> Reading:
    """The reading once nothing is open that queries tell, and no other class is likely.

    lines: how often one was looked for already, in vain.
    """
    reading, vain, stuck = top_classes.read(log, planes), 0, 0
    for _ in range(ROUNDS):
        x = top_classes.telling(log, reading, rng)
        count = int(reading.seen.sum())
        if not len(x):
            known = classes is not None or count < len(reading.seen)
            if count == classes or vain >= (KNOWN if known else UNKNOWN) / (1 + lines):
                return reading
            point, chance = unseen(log, reading.network, reading.seen, rng)
            if chance < LIKELY:
                return reading
            x, vain = top_classes.all_on(reading, point[None]), vain + 1
        log.ask(x)
        before, reading = reading, top_classes.read(log, planes)
        told = reading.left < before.left or reading.seen.sum() > count
        stuck = 0 if told or not before.left else stuck + 1
        if stuck == STUCK:
            return reading
        vain = vain if reading.seen.sum() == count else 0
    return reading


def _judged(
    log: Log,
    reading: Reading,
    before: np.ndarray,
    fewer: bool,
    failed: int,
    rng: np.random.Generator,
) -> Verdict:
    """The network held to fresh queries: a far pair, points of all classes, beside its planes.

    And once more to those of earlier certificates `before`, so many that failed, which showed that
    something was missing.  fewer: of units than were told.
    """
    network, dim = reading.network, log.dim
    far = DISTANCE * rng.standard_normal((PAIRS, dim))
    fresh = np.concatenate([before, log.ask(np.concatenate([far, -far]))])
    verdict = _held(log, network, fresh)
    if verdict.error > 1:
        return verdict
    sample = rng.standard_normal((SAMPLE, dim))
    top = network(sample).argmax(1)
    count = NEVER if fewer else NORMAL if network.width > FEW else NORMAL_IF_FEW
    count = count if network.width > FEW else repeated(count, failed)
    each = [int(np.argmax(top == k)) for k in np.unique(top)]
    chosen = each + [i for i in range(count) if i not in each] * (len(each) < count)
    out = certify.spread_out(rng, dim)[: SPREAD * (network.width <= FEW)]
    pairs = [pair for _, pair in beside(Planes(network.rows, network.bias), rng)]
    x = np.concatenate([sample[chosen], out, *pairs])
    number = log.ask(x)
    normal = count if len(each) < count else 0
    return _held(log, network, np.append(fresh, number))._replace(normal=normal)


def _deviations(
    log: Log, network: TwoLayer, which: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the replies [n] the gradients [n, d] and values [n] less the network's, of the label
    told, and by how much another of its logits is above [n]; not a number for unknown labels.
    """
    x, label, at = log.x[which], log.label[which], np.arange(len(which))
    logits = network(x)
    known = label < logits.shape[1]
    own = np.where(known, logits[at, np.where(known, label, 0)], np.nan)
    gradient = log.gradient[which] - network.gradient(x)[at, np.where(known, label, 0)]
    return gradient, log.value[which] - own, logits.max(1) - own


def _off(log: Log, network: TwoLayer, some: np.ndarray) -> float:
    """How far all replies of other classes than some [K] are off, in what rounding explains.

    Of gradients those that were not asked close beside a plane.
    """
    which = np.flatnonzero(~some[log.label])
    x = log.x[which]
    wrong, off = _errors(log, network, which)
    far = 1 + np.linalg.norm(x, axis=1, keepdims=True)
    beside = (np.abs(x @ network.rows.T + network.bias[None]) < BESIDE * far).any(1)
    return float(np.maximum(off, np.where(beside, 0.0, wrong)).max(initial=0.0))


def _held(log: Log, network: TwoLayer, which: np.ndarray) -> Verdict:
    """The replies [n] held to the network."""
    worst = np.maximum(*_errors(log, network, which))
    return Verdict(float(worst.max()), which, int(which[worst.argmax()]))


def _errors(log: Log, network: TwoLayer, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of gradients [n] and of values [n], in what rounding explains; not a number is infinite."""
    gradient, value, above = _deviations(log, network, which)
    size = np.abs(log.value[which]) + log.scale * (1 + np.linalg.norm(log.x[which], axis=1))
    wrong = np.linalg.norm(gradient, axis=1) / max(log.scale, 1e-300)
    off = np.maximum(np.abs(value), above) / np.maximum(size, 1e-300)
    wrong, off = (np.where(np.isnan(a), np.inf, a) / (BAR * log.eps) for a in (wrong, off))
    return wrong, off


def _left_over(log: Log, network: TwoLayer, which: np.ndarray, rng: np.random.Generator) -> Planes:
    """Planes that deviations at replies [n] show, if each is that of one unit missed."""
    gradient, value, _ = _deviations(log, network, which)
    size = np.linalg.norm(gradient, axis=1)
    far = np.isfinite(value) & (size > BAR * log.eps * log.scale)
    offset = value - np.sum(gradient * log.x[which], 1)
    rows, bias = gradient[far] / size[far, None], offset[far] / size[far]
    planes = Planes(rows, bias).distinct(log.eps)
    real = touched(log, planes, rng)
    return Planes(planes.rows[real], planes.bias[real])


def _between(log: Log, planes: Planes, rng: np.random.Generator) -> Line:
    """A line through two replies of one class, between which a unit switches that is missing; a
    random one where no two tell.  One of the nearest pairs of some fresh ones and those before.

    Gradients of a class differ by the rows of units that switch: not in the span of rows known.
    """
    from scipy.spatial.distance import cdist

    log.ask(rng.standard_normal((NORMAL_IF_FEW, log.dim)))
    known = np.linalg.qr(planes.rows.T)[0]
    rest = log.gradient - log.gradient @ known @ known.T
    differ = cdist(rest, rest) > MISSED * log.scale
    differ &= log.label[:, None] == log.label[None]
    if not differ.any():
        return Line(*rng.standard_normal((2, log.dim))[::-1])
    pair = np.argwhere(np.triu(differ))
    apart = cdist(log.x, log.x)[tuple(pair.T)]
    near = np.argsort(apart, kind="stable")[:NEAREST]
    i, j = pair[rng.choice(near)]
    v = log.x[j] - log.x[i]
    return Line(log.x[i], v * (log.dim**0.5 / np.linalg.norm(v)))


def _sentence(reading: Reading) -> str:
    text = f"Classes seen on top: {reading.seen.sum()} ({_listed(reading.seen)})."
    return text + f" Never: {_listed(~reading.seen)}." * bool((~reading.seen).any())


def _listed(some: np.ndarray) -> str:
    return ", ".join(map(str, np.flatnonzero(some)))
