"""Recovery from values, probabilities or log-probabilities alone: a membership attack.

Along a line u + t v the values find the kinks k_j and the jumps dS_j of the slope in q coordinates
(`chords`).  Scaled so that n_j v = 1, unit j has weights dS_j and bias -n_j x(k_j).  What is left
is n_j e for the d - 1 directions e at right angles to v.  In the cell c of the line the slope along
e is

    g_c e = L e + sum_{j < c} dS_j (n_j e),

one value beside the line, as the line itself is known.  Two cells with up to q kinks between them
are q equations for as many unknown n_j e, so that every q-th cell will do:

    (d - 1) (h / q + 1) values for all rows, beside parameters / outputs = h (d + K) / K.

The step must stay in the cell: at random it crosses a plane with probability in proportion to
its length, which is STEP / d of the distance to the next kink.  One value more a cell, askew to all
directions, shows whether any did; then the cell is asked again with shorter steps.  A step of
length s leaves rounding / s in a row: 1e-9 or so.  All of this is our own; the paper's membership
form of Algorithm 1 (`membership`) needs h <= d and no biases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from recon.exact import arrays, asking
from recon.exact.less import chords, fresh
from recon.exact.less.chords import Kinks, Line, Replies
from recon.exact.less.odds import Log, begin
from recon.exact.recovery import Recovery
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, View, need

PROMISE = 1e-6  # error of an `ok` network, relative to the rms of its values at normal points
LINES = 8  # fresh lines before giving up
AFRESH = 2  # the line that forgets what earlier ones found, and has no two kinks seen as one
ROUNDS = 3  # fresh rounds on one line, where only digits are missing
MISSING = 1e-3  # an error above which more than digits is missing
ORDINARY = 24  # standard normal points of the certificate, twice as many with every line
STEP = 0.03  # of the distance to the next kink, over the dimensions
SHORTER, TRIES = 16.0, 4
KNOWN = 30.0  # times noise, where known units are subtracted
SEEN = 1e-7  # of the strongest jump: weaker kinks of a later line are errors of known units
MOST, PART = 24, 0.03  # units made sharper: at most, and of the largest doubt
SPARE = 2.5  # values for that, over the unknowns
GOOD = 1e-9  # error of a row that is not worth another cell


def recover(
    oracle: AnyOracle,
    dim: int,
    key: Any,
    width: int | None = None,
    budget: int | None = None,
    promise: float = PROMISE,
) -> Recovery:
    """Recover a two-layer ReLU network of `dim` inputs from values alone.

    The service shows logits, values, probabilities (of all classes, or one: a sigmoid) or
    log-probabilities; explanations are not asked for.  The network of a service of several
    probabilities is right up to a shift common to all logits at every input: its logits are
    centred.  Errors are some 1e-9 of the values, and what is promised at most where `ok`.
    """
    need(oracle, outputs=("logits", "values", "probabilities", "log_probabilities"))
    asking.check_arguments(dim, width, budget)
    alone = replace(oracle, view=View(oracle.view.outputs, "none"))
    log = Log(alone, dim, np.inf if budget is None else budget)
    network, found, error = None, None, np.inf
    seed = asking.seed(key)
    try:
        for i in range(LINES):
            seed, line_seed, *seeds = arrays.split(seed, 2 + 2 * ROUNDS)
            joint = chords.WINDOW if i < AFRESH and dim > 1 else 1
            found = _search(log, None if i == AFRESH else found, line_seed, joint)
            network = fresh.polish(log, found.network)
            for fresh_seed, more_seed in zip(seeds[::2], seeds[1::2], strict=True):
                number = log.ask(fresh.points(log, network, fresh_seed, ORDINARY << i))
                error = fresh.judge(log, network, number, fresh_seed, None).error
                outcome = fresh.ended(log, network, error, width, promise)
                if outcome.ok:
                    return outcome
                if error > MISSING:
                    network = found.network
                    break
                network = _sharpened(log, network, found.doubtful, more_seed)
            level = min(fresh.level(log, network, number), found.expected)
            found = found._replace(network=network, level=level)
    except fresh.STOPS as why:
        return fresh.stopped(log, network, error, why)
    return fresh.ended(log, network, error, width, promise)


class Found(NamedTuple):
    """A network, and how uncertain its rows [h] are."""

    network: TwoLayer
    doubt: np.ndarray
    level: float = 0.0  # errors of values over |x|, but for missing units

    @property
    def expected(self) -> float:
        """The level by what is known of the errors of rows."""
        strength = np.linalg.norm(self.network.weights, axis=0)
        return float(np.linalg.norm(self.doubt * strength))

    @property
    def doubtful(self) -> np.ndarray:
        """The units [m] with nearly all of the doubt, at most MOST."""
        strength = self.doubt * np.linalg.norm(self.network.weights, axis=0)
        worst = np.argsort(-strength, kind="stable")[:MOST]
        return np.asarray(worst[strength[worst] > PART * strength.max(initial=0.0)])


def _sharpened(log: Log, network: TwoLayer, units: np.ndarray, seed: np.ndarray) -> TwoLayer:
    """The network with the rows of these units from values at ordinary points, where they are on
    as often as off and steps are long.
    """
    columns = len(units) * (log.dim + 1 + log.outputs)
    count = int(SPARE * (columns / log.basis.shape[1] + log.dim)) + 8
    x = np.random.default_rng(seed).standard_normal((count, log.dim))
    log.ask(fresh.inside(log, network, x))
    return fresh.polish(log, network, units, doubtful_rows=units)


def _search(log: Log, found: Found | None, seed: np.ndarray, joint: int) -> Found:
    """The network with the units met on a fresh line, and with what is always on there.

    joint: nodes of a relation at most, of `chords`.
    """
    line_seed, row_seed = arrays.split(seed, 2)
    line, start = begin(log, line_seed)
    if found is None or not found.network.width:
        found = Found(fresh.nothing(log), np.zeros(0))
    known = found.network
    blur = KNOWN if known.width else 1.0

    def without(r: Replies) -> Replies:
        noise = blur * r.noise + found.level * np.linalg.norm(log.x[r.number], axis=1)
        return r._replace(f=r.f - known(log.x[r.number]) @ log.basis, noise=noise)

    def ask(t: np.ndarray) -> Replies:
        return without(log.replies(line, t))

    most = chords.FEW if known.width else chords.MANY
    r, kinks = chords.search(ask, line, without(start), most=most, joint=joint)
    if kinks.open > chords.WILD:
        return found  # lost in errors of what is known, or not piecewise linear
    kinks = kinks.only(np.argsort(kinks.t))
    if known.width:
        usual = np.abs(known.weights * (known.rows @ line.v)[None]).max()
        kinks = kinks.only(np.abs(kinks.jump).max(1) > SEEN * usual)
        kinks = _fitted(r, kinks)
    along, slope, doubt = _rows(log, known, line, r, kinks, row_seed)
    size = np.linalg.norm(along, axis=1)
    weights = kinks.jump @ log.basis.T * size[:, None]
    bias = -np.einsum("md,md->m", along, line.at(kinks.t)) / size
    offset = kinks.base[0] - slope @ line.u
    network = TwoLayer(
        np.concatenate([known.rows, along / size[:, None]]),
        np.concatenate([known.bias, bias]),
        np.concatenate([known.weights, weights.T], 1),
        known.slope + log.basis @ slope,
        known.offset + log.basis @ offset,
    )
    return Found(network, np.concatenate([found.doubt, doubt / size]), found.level)


def _fitted(r: Replies, kinks: Kinks) -> Kinks:
    """The kinks with base and jumps for them alone."""
    system = chords.basis(r.t, kinks.t) / r.noise[:, None]
    solved = np.linalg.lstsq(system, r.f / r.noise[:, None])[0]
    return kinks._replace(base=solved[:2], jump=solved[2:])


class _Cells(NamedTuple):
    """Cells [c] of the line in which slopes are measured, at a reply that each holds, and how far
    from the nearest kink that is.
    """

    number: np.ndarray
    place: np.ndarray
    half: np.ndarray


def _cells(log: Log, line: Line, r: Replies, kinks: Kinks) -> _Cells:
    """As few cells as have at most q kinks between neighbours, and tell these kinks well apart.

    A cell costs 1, and as much again for every digit that rows have less than GOOD: where cells
    are slim, or the jumps of the kinks between two of them nearly dependent.
    """
    q = log.basis.shape[1]
    if not len(kinks.t):
        middle = np.abs(r.t).argmin()[None]
        return _Cells(np.zeros(1, int), middle, np.full(1, line.tau))
    low = np.concatenate([[-np.inf], kinks.t])
    high = np.concatenate([kinks.t, [np.inf]])
    cell = np.searchsorted(kinks.t, r.t)
    # a reply in each cell, the one farthest from its edges but not far out, where rounding is more
    room = np.minimum(r.t - low[cell], high[cell] - r.t)
    worth = room / (line.tau + np.abs(r.t)) ** 2
    place = np.array(
        [np.flatnonzero(cell == c)[worth[cell == c].argmax()] for c in range(len(low))]
    )
    t, half = r.t[place], room[place]
    noise = r.noise[place]
    length = np.linalg.norm(line.v)
    blur = noise / (STEP / log.dim * half * length) * length

    def price(a: int, c: int) -> float:
        size = np.linalg.svd(kinks.jump[a:c], compute_uv=False)
        if c - a > 1 and size[-1] <= chords.LEVEL * kinks.doubt[a:c].max():
            return np.inf  # dependent, as where an output reads no unit
        inverse = np.linalg.norm(np.linalg.pinv(kinks.jump[a:c].T), axis=1).max()
        return 1 + max(0.0, float(np.log10(inverse * (blur[a] + blur[c]) / GOOD)))

    best, before = np.zeros(len(t)), np.zeros(len(t), int)
    for c in range(1, len(t)):
        options = range(max(0, c - q), c)
        costs = [best[a] + price(a, c) for a in options]
        before[c], best[c] = options[int(np.argmin(costs))], min(costs)
    chosen = [len(t) - 1]
    while chosen[-1] > 0:
        chosen.append(int(before[chosen[-1]]))
    number = np.array(chosen[::-1])
    return _Cells(number, place[number], half[number])


def _rows(
    log: Log, known: TwoLayer, line: Line, r: Replies, kinks: Kinks, seed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows [m, d] with n v = 1, what is always on [q, d] before the first kink, and doubt [m]."""
    cells = _cells(log, line, r, kinks)
    rng = np.random.default_rng(seed)
    away = _across(rng, line.v)
    slopes, blur = _slopes(log, known, line, r, cells, away, rng)
    square = line.v @ line.v
    rows, doubt = np.zeros((len(kinks.t), len(away))), np.zeros(len(kinks.t))
    for i in range(len(cells.number) - 1):
        between = slice(cells.number[i], cells.number[i + 1])
        inverse = np.linalg.pinv(kinks.jump[between].T)
        rows[between] = inverse @ (slopes[i + 1] - slopes[i]).T
        doubt[between] = np.linalg.norm(inverse, axis=1) * (blur[i] + blur[i + 1]) * log.dim**0.5
    first = slopes[0].T - kinks.jump[: cells.number[0]].T @ rows[: cells.number[0]]
    slope = first @ away + np.outer(kinks.base[1], line.v) / square
    return rows @ away + line.v[None] / square, slope, doubt


def _across(rng: np.random.Generator, v: np.ndarray) -> np.ndarray:
    """A random orthonormal basis [d - 1, d] of what is at right angles to v [d]."""
    other = rng.standard_normal((len(v), len(v) - 1))
    return np.linalg.qr(np.column_stack([v, other]))[0][:, 1:].T


def _slopes(
    log: Log,
    known: TwoLayer,
    line: Line,
    r: Replies,
    cells: _Cells,
    away: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes [c, d - 1, q] of f in the cells along each direction, and their errors [c]."""
    count, dim, at = len(cells.place), log.dim, r.t[cells.place]
    out = np.zeros((count, dim - 1, log.basis.shape[1]))
    if dim == 1:
        return out, np.zeros(count)
    blur = np.zeros(count)
    todo, step = np.arange(count), STEP / dim * cells.half * np.linalg.norm(line.v)
    askew = rng.choice([-1.0, 1.0], dim - 1) / (dim - 1) ** 0.5
    moves = np.concatenate([away, (askew @ away)[None]])
    for _ in range(TRIES):
        x = line.at(at[todo])[:, None] + step[todo, None, None] * moves[None]
        x = x.reshape(-1, dim)
        number = log.ask(x)
        f = log.f(number) - known(x) @ log.basis
        noise = log.noise(number).reshape(len(todo), dim).max(1)
        base = r.f[cells.place[todo]]
        slope = (f.reshape(len(todo), dim, -1) - base[:, None]) / step[todo, None, None]
        out[todo], blur[todo] = slope[:, :-1], noise / step[todo]
        off = np.abs(slope[:, -1] - np.einsum("e,ceq->cq", askew, slope[:, :-1])).max(1)
        todo = todo[off > 4 * chords.LEVEL * noise / step[todo]]
        if not len(todo):
            break
        step[todo] /= SHORTER
    return out, blur
