"""Recovery from all probabilities and the gradient of the top class's probability.

With J the Jacobian of the logits and a the class on top, the gradient is

    g = p_a (J_a - sum_k p_k J_k),   so   g / p_a = sum_k c_k J_k,   c_k = [k = a] - p_k.

Along a line the probabilities find the kinks and the jumps dS_j of the log-odds (`chords`).  With
rows scaled to n_j v = 1 or -1, so that units are off at u, the Jacobian is J = L + sum_{j crossed}
dS_j n_j^T, from u on: every reply is a linear equation in the unknown L [q, d] and rows n_j [h, d],
with coefficients that are known:

    g / p_a = c L + sum_{j crossed} (c dS_j) n_j.

One least-squares solve gives all rows; no two gradients are subtracted.  Its covariance tells which
rows are known well; where some are not, more replies are asked at points where no class is sure
of itself, and all are solved for again.  Saturation limits what can be had: the coefficients are
of the size of 1 - p_a, the rounding of g / p_a is not, and the line ends where that is FLAT.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from recon.exact import arrays, asking
from recon.exact.less import always_on, chords, fresh
from recon.exact.less.chords import Replies
from recon.exact.less.odds import Log, begin
from recon.exact.recovery import Recovery
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, need

PROMISE = 1e-5  # error of an `ok` network, relative to the rms of its log-odds at normal points
LINES = 8  # fresh lines before giving up
ROUNDS = 4  # fresh rounds on one line, where only digits are missing
MISSING = 1e-3  # an error above which more than digits is missing
FLAT = 17.0  # -log(1 - p) of the top class at which a line ends
KNOWN = 30.0  # times noise, where known units are subtracted
SEEN = 1e-6  # of the strongest jump: weaker kinks of a later line are errors of known units
GOOD, POOR = 1e-8, 1e-6  # errors of rows below which they are good, above which they are not used
SURE = 3.0  # times the errors expected of rows
MORE = 0.15  # replies over the units, to know rows better
SPARE = 6  # equations of a line over the unknowns, at least
CHOICE = 30  # points drawn for each that is asked
CLOSE = 1e-7  # of a point's length: how near to a plane one may not tell the side


def recover(
    oracle: AnyOracle, dim: int, key: Any, width: int | None = None, budget: int | None = None
) -> Recovery:
    """Recover a two-layer ReLU network of `dim` inputs from the top probability's gradient.

    The network is right up to a shift common to all logits at every input, which nothing in the
    replies shows: its logits are centred.
    """
    need(
        oracle,
        outputs=("probabilities", "log_probabilities"),
        explanation="top",
        of="probabilities",
    )
    asking.check_arguments(dim, width, budget)
    log = Log(oracle, dim, np.inf if budget is None else budget, flat=FLAT)
    network, level, error = None, 0.0, np.inf
    seed = asking.seed(key)
    try:
        for _ in range(LINES):
            seed, line_seed, *seeds = arrays.split(seed, 2 + 2 * ROUNDS)
            error = np.inf
            network, level, whole = _search(log, network, level, line_seed)
            if not whole:
                continue
            for fresh_seed, more_seed in zip(seeds[::2], seeds[1::2], strict=True):
                final = fresh.polish(log, _tidied(log, network))
                number = log.ask(fresh.points(log, final, fresh_seed))
                error = fresh.judge(log, final, number, fresh_seed, None).error
                error = max(error, _off(log, final, number))
                outcome = fresh.ended(log, final, error, width, PROMISE)
                if outcome.ok:
                    return outcome
                if error > MISSING:
                    break
                log.ask(_unsure(log, network, more_seed))
                network, _ = _again(log, network)
    except fresh.STOPS as why:
        return fresh.stopped(log, network, error, why)
    return fresh.ended(log, network, error, width, PROMISE)


def coefficients(log: Log, number: np.ndarray) -> np.ndarray:
    """c [n, q] of the equations g / p_a = c J."""
    p, label = np.exp(log.z[number]), log.label[number]
    here = np.arange(len(number))
    rest = p.copy()
    rest[here, label] = 0.0
    c = -rest
    c[here, label] = rest.sum(1)  # 1 - p_a without rounding
    return np.asarray(c @ log.basis)


def _right(log: Log, number: np.ndarray) -> np.ndarray:
    """g / p_a [n, d]."""
    top = np.exp(log.z[number].max(1))
    return np.asarray(log.gradient[number] / top[:, None])


def _off(log: Log, network: TwoLayer, number: np.ndarray) -> float:
    """The largest error of the explanations of replies, relative to the largest g / p_a."""
    jacobian = np.einsum("kq,nkd->nqd", log.basis, network.gradient(log.x[number]))
    found = np.einsum("nq,nqd->nd", coefficients(log, number), jacobian)
    right = _right(log, number)
    good = log.strain(number) < 1
    size = max(float(np.linalg.norm(jacobian, axis=2).max()), 1e-300)
    return float(np.linalg.norm(found - right, axis=1)[good].max(initial=0.0)) / size


def _search(
    log: Log, known: TwoLayer | None, level: float, seed: np.ndarray
) -> tuple[TwoLayer, float, bool]:
    """The units known and those met on a fresh line whose rows can be told, the errors of values
    over |x|, and whether these are all units of the line.
    """
    line, start = begin(log, seed)
    if known is None:
        known = fresh.nothing(log)
    blur = KNOWN if known.width else 1.0

    def without(r: Replies) -> Replies:
        noise = blur * r.noise + level * np.linalg.norm(log.x[r.number], axis=1)
        return r._replace(f=r.f - known(log.x[r.number]) @ log.basis, noise=noise)

    def ask(t: np.ndarray) -> Replies:
        return without(log.replies(line, t))

    most = chords.FEW if known.width else chords.MANY
    r, kinks = chords.search(ask, line, without(start), most=most)
    if kinks.open > chords.WILD:
        return known, level, False
    kinks = kinks.only(np.argsort(kinks.t))
    if known.width:
        usual = np.abs(known.weights * (known.rows @ line.v)[None]).max()
        kinks = kinks.only(np.abs(kinks.jump).max(1) > SEEN * usual)
    lacking = SPARE + log.basis.shape[1] + len(kinks.t) - len(r.t)
    if lacking > 0:
        ends = np.arctan(r.t[[0, -1]] / line.tau)
        share = (np.arange(lacking) + 0.5) / lacking
        r = r.and_(ask(line.tau * np.tan(ends[0] + share * (ends[1] - ends[0]))))
    c = coefficients(log, r.number)
    side = np.where(kinks.t > 0, 1.0, -1.0)  # units are off where the line is nearest the origin
    crossed = side * r.t[:, None] > side * kinks.t[None]
    system = np.concatenate([c, crossed * (c @ kinks.jump.T)], 1)
    right = _right(log, r.number) - np.einsum(
        "nq,nqd->nd", c, np.einsum("kq,nkd->nqd", log.basis, known.gradient(log.x[r.number]))
    )
    solved, doubt = _solved(log, system, right)
    q = log.basis.shape[1]
    slope, along = solved[:q], solved[q:]
    size = np.linalg.norm(along, axis=1)
    good = doubt[q:] < POOR * size
    size, along = size[good], along[good]
    weights = kinks.jump[good] @ log.basis.T * size[:, None]
    bias = -np.einsum("md,md->m", along, line.at(kinks.t[good])) / size
    network = TwoLayer(
        np.concatenate([known.rows, along / size[:, None]]),
        np.concatenate([known.bias, bias]),
        np.concatenate([known.weights, weights.T], 1),
        known.slope + log.basis @ slope,
        known.offset,
    )
    strength = np.linalg.norm(network.weights[:, known.width :], axis=0)
    level += SURE * float(np.linalg.norm(strength * (doubt[q:][good] / size)))
    level += SURE * float(doubt[:q].max() + np.linalg.norm(kinks.doubt[good] * size))
    if not good.all():
        return network, level, False
    rough = doubt[q:].max(initial=0.0)
    key = arrays.split(seed, 1)[0]
    for _ in range(ROUNDS):
        network, left = _again(log, network) if rough > GOOD else (network, 0.0)
        if left > POOR or rough <= GOOD:
            break
        log.ask(_unsure(log, network, key))
        key = arrays.split(key, 1)[0]
        rough = left
    return network, level, True


def _solved(log: Log, system: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares, and how uncertain each unknown is [m]."""
    size = np.linalg.norm(system, axis=0)
    size = np.where(size > 0, size, 1.0)
    inverse = np.linalg.pinv(system / size, rcond=1e-13) / size[:, None]
    noise = 4 * log.eps * np.linalg.norm(right, axis=1).max(initial=0.0)
    steep = np.linalg.norm(inverse @ right, axis=1).max(initial=0.0)
    return inverse @ right, np.linalg.norm(inverse, axis=1) * max(noise, log.eps * steep)


def _again(log: Log, network: TwoLayer) -> tuple[TwoLayer, float]:
    """All rows, and what is always on, from all replies; and the largest doubt of a row."""
    number = np.flatnonzero(log.usable)
    x = log.x[number]
    pre = x @ network.rows.T + network.bias[None]
    clear = np.abs(pre).min(1, initial=np.inf) > CLOSE * np.linalg.norm(x, axis=1)
    number, on = number[clear], pre[clear] > 0
    c = coefficients(log, number)
    system = np.concatenate([c, on * (c @ (log.basis.T @ network.weights))], 1)
    right = _right(log, number)
    solved, doubt = _solved(log, system, right)
    q = log.basis.shape[1]
    left = np.linalg.norm(system @ solved - right, axis=1).max()
    if left > POOR * np.linalg.norm(right, axis=1).max():
        return network, np.inf  # a unit is missing, which would spoil all rows
    size = np.linalg.norm(solved[q:], axis=1)
    moved = replace(network, rows=solved[q:], slope=log.basis @ solved[:q])
    return moved, float((doubt[q:] / np.where(size > 0, size, 1.0)).max(initial=0.0))


def _unsure(log: Log, network: TwoLayer, seed: np.ndarray) -> np.ndarray:
    """Points [n, d] at which no class is sure of itself, by the network."""
    rng = np.random.default_rng(seed)
    count = max(6, int(MORE * network.width))
    x = rng.standard_normal((CHOICE * count, log.dim)) * rng.uniform(0.1, 1, (CHOICE * count, 1))
    offset = _offset(log, network)
    top = fresh.log_odds(replace(network, offset=offset), x, True).max(1)
    return np.asarray(x[np.argsort(top)[:count]])


def _offset(log: Log, network: TwoLayer) -> np.ndarray:
    """Offsets by the median of all replies."""
    number = np.flatnonzero(log.usable)
    bare = replace(network, offset=np.zeros(log.outputs))
    left = log.f(number) - bare(log.x[number]) @ log.basis
    return np.asarray(log.basis @ np.median(left, axis=0))


def _tidied(log: Log, network: TwoLayer) -> TwoLayer:
    """Rows of length one, no linear part where turning units round leaves none, and offsets."""
    size = np.linalg.norm(network.rows, axis=1)
    network = replace(
        network,
        rows=network.rows / size[:, None],
        bias=network.bias / size,
        weights=network.weights * size[None],
    )
    none = replace(network, slope=np.zeros_like(network.slope))
    network = always_on.turned(none, dict(enumerate(network.slope))) or network
    return replace(network, offset=_offset(log, network))
