"""Recovery from all values or probabilities and the gradient of the top logit alone.

Along a line the values find the kinks (`chords`); equal gradients of one class name cells that
hold none.  Across a kink the gradient of one class a jumps by W_a n^T: the unit's row.  The jumps
of the log-odds are centred W (n v), so with W_a all of W is known, though the logits are not.

What is always on, L = g_a - sum_{i on} W_ai n_i, is known for each class a seen on top.  Where
rows are independent L_a = - sum of W_ai n_i over some units, those that are off on the side taken
for on: these are turned round and nothing is left, for all classes.  Else L stays a linear part,
and what no class's gradient shows is solved for from d + 1 values at ordinary points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recon.exact import arrays, asking, chords, fresh
from recon.exact.chords import EMPTY, FULL, OPEN, Kinks, Line, Replies
from recon.exact.odds import FIRST, Log, Spent, begin
from recon.exact.recovery import Recovery, Status, promise
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, need

LINES = 6  # fresh lines before giving up
AFRESH = 3  # the line that forgets what earlier ones found
EQUAL = 1e-11  # of the largest gradient: differences of equal gradients
SIGN = 1e-5  # how far a coefficient of the always-on part may be from 0 or -W
SEEN = 1e-7  # of the strongest: weaker jumps are errors, of known units or of rounding
NEARER = (0.5, 0.25, 0.1, 0.03, 0.01, 1e-3, 1e-4)  # of a cell: where its class may be another's
KNOWN = 30.0  # times noise, where known units are subtracted


def recover(
    oracle: AnyOracle, dim: int, key: Any, width: int | None = None, budget: int | None = None
) -> Recovery:
    """Recover a two-layer ReLU network of `dim` inputs from values and top-logit gradients.

    The network of a service of probabilities is right up to a shift common to all logits, the
    same at every input; its offsets are centred.
    """
    need(
        oracle,
        outputs=("logits", "probabilities", "log_probabilities"),
        explanation="top",
        of="logits",
    )
    asking.check_sizes(dim, 1 if width is None else width)
    log = Log(oracle, dim, np.inf if budget is None else budget)
    network, error = None, np.inf
    units = _nothing(log)
    seed = asking.seed(key)
    try:
        for i in range(LINES):
            seed, line_seed, fresh_seed, point_seed = arrays.split(seed, 4)
            units = _search(log, units if i != AFRESH else _nothing(log), line_seed, i == 0)
            network = assembled(log, units, point_seed)
            number = log.ask(fresh.points(log, network, fresh_seed))
            network = fresh.polish(log, network)
            explained = fresh.top_gradient(network, log.x[number], log.label[number])
            error = fresh.judge(log, network, number, fresh_seed, explained).error
            if error <= promise(log.eps) / fresh.SAFETY:
                same = width in (None, network.width)
                status = Status.RECOVERED if same else Status.OTHER_WIDTH
                return Recovery(network, status, log.cost, error, _detail(log, network))
    except Spent:
        return Recovery(network, Status.BUDGET, log.cost, error)
    return Recovery(network, Status.UNCERTIFIED, log.cost, error, _detail(log, network))


def _nothing(log: Log) -> TwoLayer:
    """No units."""
    none = np.zeros((0, log.dim))
    return TwoLayer(none, none[:, 0], np.zeros((log.outputs, 0)), *_no_affine(log))


def _detail(log: Log, network: TwoLayer) -> str:
    shift = " Logits are known up to a common shift." if log.hidden else ""
    return f"Units found: {network.width}.{shift}"


def _search(log: Log, known: TwoLayer, seed: np.ndarray, hinted: bool) -> TwoLayer:
    """The units known and those met on a fresh line; slope and offset are none.

    hinted: whether gradients say which cells are one: not where weights may be zero.
    """
    line, start = begin(log, seed, FIRST)
    if not known.width:
        known = _nothing(log)
    blur = KNOWN if known.width else 1.0

    def without(r: Replies) -> Replies:
        f = r.f - known(log.x[r.number]) @ log.basis
        return r._replace(f=f, noise=blur * r.noise)

    def ask(t: np.ndarray) -> Replies:
        return without(log.replies(line, t))

    def hint(number: np.ndarray) -> np.ndarray:
        g = log.gradient[number] - fresh.top_gradient(known, log.x[number], log.label[number])
        scale = np.linalg.norm(log.gradient[number], axis=1).max()
        apart = np.linalg.norm(np.diff(g, axis=0), axis=1)
        same = np.diff(log.label[number]) == 0
        return np.where(same, np.where(apart <= blur * EQUAL * scale, EMPTY, FULL), OPEN)

    _, kinks = chords.search(ask, line, without(start), hint if hinted else chords.no_hint)
    if known.width:
        usual = np.abs(known.weights * (known.rows @ line.v)[None]).max()
        real = np.abs(kinks.jump).max(1) > SEEN * usual
        kinks = Kinks(kinks.t[real], kinks.jump[real], kinks.base)
    return _units(log, known, line, _met(log, start, line), kinks)


def _no_affine(log: Log) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((log.outputs, log.dim)), np.zeros(log.outputs)


def _met(log: Log, start: Replies, line: Line) -> np.ndarray:
    """Numbers of the replies on the line."""
    return np.arange(start.number.min(), len(log.x))


def _units(log: Log, known: TwoLayer, line: Line, on_line: np.ndarray, kinks: Kinks) -> TwoLayer:
    """The units known and those of the kinks, from gradients of one class on either side."""
    if not len(kinks.t):
        return known
    order = np.argsort(kinks.t)
    kinks = Kinks(kinks.t[order], kinks.jump[order], kinks.base)
    on_line = on_line[log.usable[on_line]]
    pairs = _pairs(log, line, on_line, kinks)
    missing = [j for j, pair in enumerate(pairs) if pair is None]
    if missing:
        t = np.concatenate([_beside(log, known, line, on_line, kinks, j) for j in missing])
        on_line = np.concatenate([on_line, log.ask(line.at(t))])
        pairs = _pairs(log, line, on_line, kinks)
    found = [j for j, pair in enumerate(pairs) if pair is not None]
    left, right = np.array([pairs[j] for j in found], int).reshape(-1, 2).T
    gradient = log.gradient - fresh.top_gradient(known, log.x, log.label)
    jump = gradient[right] - gradient[left]
    length = np.linalg.norm(jump, axis=1)
    steep = np.linalg.norm(log.gradient[on_line], axis=1).max()
    real = length > SEEN * steep  # else the class has no part in this unit
    jump, length, left = jump[real], length[real], left[real]
    found = np.array(found, int)[real]
    along = jump @ line.v  # W_a (n v): the jump of the top logit's slope
    rows = jump * (np.sign(along) / length)[:, None]  # n v > 0
    slopes = kinks.jump[found] @ log.basis.T
    if log.hidden:
        slopes = slopes + (along - slopes[np.arange(len(found)), log.label[left]])[:, None]
    weights = slopes / (rows @ line.v)[:, None]
    bias = -np.einsum("md,md->m", rows, line.at(kinks.t[found]))
    return TwoLayer(
        np.concatenate([known.rows, rows]),
        np.concatenate([known.bias, bias]),
        np.concatenate([known.weights, weights.T], 1),
        *_no_affine(log),
    )


def _pairs(
    log: Log, line: Line, on_line: np.ndarray, kinks: Kinks
) -> list[tuple[int, int] | None]:
    """For each kink replies of one class in the cells left and right of it, or None."""
    t = (log.x[on_line] - line.u[None]) @ line.v / (line.v @ line.v)
    cell = np.searchsorted(kinks.t, t)
    inside = [on_line[cell == j] for j in range(len(kinks.t) + 1)]
    out: list[tuple[int, int] | None] = []
    for left, right in zip(inside[:-1], inside[1:], strict=True):
        a, b = np.nonzero(log.label[left][:, None] == log.label[right][None])
        if not len(a):
            out.append(None)
            continue
        size = np.linalg.norm(log.gradient[left[a]] - log.gradient[right[b]], axis=1)
        best = int(size.argmax())
        out.append((int(left[a[best]]), int(right[b[best]])))
    return out


def _beside(
    log: Log, known: TwoLayer, line: Line, on_line: np.ndarray, kinks: Kinks, j: int
) -> np.ndarray:
    """Points t on either side of kink j where the class on top is the one on top there."""
    t = (log.x[on_line] - line.u[None]) @ line.v / (line.v @ line.v)
    edges = np.concatenate([[t.min()], kinks.t, [t.max()]])

    def top(at: np.ndarray) -> np.ndarray:
        f = kinks(at) + known(line.at(at)) @ log.basis
        return np.asarray((f @ log.basis.T).argmax(1))

    label, out = top(kinks.t[j : j + 1])[0], []
    for end in (edges[j], edges[j + 2]):
        at = kinks.t[j] + np.array(NEARER) * (end - kinks.t[j])
        good = np.flatnonzero(top(at) == label)
        out.append(at[good[0]] if len(good) else at[-1])
    return np.array(out)


def assembled(log: Log, units: TwoLayer, seed: np.ndarray) -> TwoLayer:
    """The network of these units: turned round so that no linear part is left, or with one."""
    left = log.gradient - fresh.top_gradient(units, log.x, log.label)
    nearest = np.argsort(np.linalg.norm(log.x, axis=1), kind="stable")
    seen = {int(a): left[nearest][log.label[nearest] == a][0] for a in np.unique(log.label)}
    turned = _turned(units, seen)
    if turned is not None:
        return _with_offset(log, turned)
    slope = np.zeros((log.outputs, log.dim))
    for a, row in seen.items():
        slope[a] = row
    missing = [a for a in range(log.outputs) if a not in seen]
    if missing:
        slope = _solved(log, units, slope, [*seen][0], missing, seed)
    return _with_offset(log, TwoLayer(units.rows, units.bias, units.weights, slope, units.offset))


def _turned(units: TwoLayer, seen: dict[int, np.ndarray]) -> TwoLayer | None:
    """The units with signs that leave nothing always on, None if there are none."""
    if units.width > units.rows.shape[1]:
        return None
    turn = np.zeros(units.width, bool)
    sure = np.zeros(units.width)
    for a, row in seen.items():
        part = np.linalg.lstsq(units.rows.T, row)[0]
        scale = np.abs(units.weights[a]).max(initial=1e-300)
        if np.linalg.norm(part @ units.rows - row) > SIGN * scale:
            return None
        weight = units.weights[a]
        to_turn = np.abs(part + weight) < np.abs(part)
        if (np.abs(part + weight * to_turn) > SIGN * np.maximum(np.abs(weight), 1e-4 * scale)).any():
            return None
        better = np.abs(weight) > sure
        turn, sure = np.where(better, to_turn, turn), np.maximum(sure, np.abs(weight))
    sign = np.where(turn, -1.0, 1.0)
    return TwoLayer(
        units.rows * sign[:, None], units.bias * sign, units.weights, units.slope, units.offset
    )


def _solved(
    log: Log, units: TwoLayer, slope: np.ndarray, a: int, missing: list[int], seed: np.ndarray
) -> np.ndarray:
    """Slopes [K, d] with those of classes never seen on top, from values at ordinary points."""
    x = np.random.default_rng(seed).standard_normal((log.dim + 2, log.dim))
    network = TwoLayer(units.rows, units.bias, units.weights, slope, units.offset)
    number = log.ask(fresh.inside(log, network, x))
    number = number[log.usable[number]]
    x = log.x[number]
    left = log.z[number] - units(x)
    left = left[:, missing] - left[:, a : a + 1] + (x @ slope[a])[:, None] * log.hidden
    if not log.hidden:
        left = log.z[number][:, missing] - units(x)[:, missing]
    solved = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), left)[0]
    slope = slope.copy()
    slope[missing] = solved[:-1].T
    return slope


def _with_offset(log: Log, network: TwoLayer) -> TwoLayer:
    """The network with offsets by the median of all replies that are not saturated."""
    number = np.flatnonzero(log.usable)
    left = log.f(number) - network(log.x[number]) @ log.basis
    offset = log.basis @ np.median(left, axis=0)
    return TwoLayer(network.rows, network.bias, network.weights, network.slope, offset)
