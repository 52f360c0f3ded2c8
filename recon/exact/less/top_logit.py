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

from typing import Any, NamedTuple

import numpy as np

from recon.exact import arrays, asking
from recon.exact.less import always_on, chords, fresh
from recon.exact.less.chords import EMPTY, FULL, OPEN, Kinks, Line, Replies
from recon.exact.less.odds import Log, begin
from recon.exact.recovery import Recovery
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, need

PROMISE = 1e-6  # error of an `ok` network, relative to the rms of its values at normal points
LINES = 6  # fresh lines before giving up
AFRESH = 3  # the line that forgets what earlier ones found
EQUAL = 1e-11  # of the largest gradient: differences of equal gradients
REFINED = 4  # fresh rounds of a line, where only digits are missing
MISSING = 1e-3  # an error above which more than digits is missing
DOUBT, MOST = 1e-12, 40  # of the largest weight; units whose weights are solved for again
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
    asking.check_arguments(dim, width, budget)
    log = Log(oracle, dim, np.inf if budget is None else budget)
    network, error = None, np.inf
    units = _nothing(log)
    seed = asking.seed(key)
    try:
        for i in range(LINES):
            seed, line_seed, point_seed, *seeds = arrays.split(seed, 3 + REFINED)
            error = np.inf
            units = _search(log, units if i != AFRESH else _nothing(log), line_seed, i == 0)
            network, lacking = always_on.assembled(log, units.network)
            number = log.ask(fresh.points(log, network, seeds[0], last=not lacking))
            if not always_on.steady(log, units.network):
                continue
            network, unseen = always_on.assembled(log, units.network)
            if unseen:
                network = always_on.solved(log, network, unseen, point_seed)
            if lacking:  # the replies just asked have told of other classes: they certify nothing
                number = log.ask(fresh.points(log, network, seeds[1]))
            network = fresh.polish(log, network, apart=number)
            for fresh_seed in seeds[2:]:
                explained = fresh.top_gradient(network, log.x[number], log.label[number])
                error = fresh.judge(log, network, number, fresh_seed, explained).error
                outcome = fresh.ended(log, network, error, width, PROMISE)
                if outcome.ok:
                    return outcome
                if error > MISSING:
                    break
                network = fresh.polish(log, network, units.doubtful, units.label)
                number = log.ask(fresh.points(log, network, fresh_seed))
    except fresh.STOPS as why:
        return fresh.stopped(log, network, error, why)
    return fresh.ended(log, network, error, width, PROMISE)


class Units(NamedTuple):
    """n_j x + b_j with weights, so far without what is always on.

    rows [h, d], bias [h], weights [h, K]; doubt [h]: how uncertain the weights are, and label [h]:
    the class whose weight is known from a gradient.
    """

    rows: np.ndarray
    bias: np.ndarray
    weights: np.ndarray
    doubt: np.ndarray
    label: np.ndarray

    @property
    def network(self) -> TwoLayer:
        """As they stand, with nothing else."""
        outputs, dim = self.weights.shape[1], self.rows.shape[1]
        none = np.zeros((outputs, dim))
        return TwoLayer(self.rows, self.bias, self.weights.T, none, none[:, 0])

    @property
    def doubtful(self) -> np.ndarray:
        """Units [m] whose weights are not known to the last digits."""
        doubted = self.doubt > DOUBT * np.abs(self.weights).max(initial=0.0)
        return np.argsort(-self.doubt, kind="stable")[: min(int(doubted.sum()), MOST)]


def _nothing(log: Log) -> Units:
    none = np.zeros((0, log.dim))
    return Units(none, none[:, 0], np.zeros((0, log.outputs)), none[:, 0], np.zeros(0, int))


def _search(log: Log, units: Units, seed: np.ndarray, hinted: bool) -> Units:
    """The units known and those met on a fresh line.

    hinted: whether gradients say which cells are one: not where weights may be zero.
    """
    line, start = begin(log, seed)
    units = units if len(units.bias) else _nothing(log)
    known = units.network
    blur = KNOWN if known.width else 1.0

    def without(r: Replies) -> Replies:
        f = r.f - known(log.x[r.number]) @ log.basis
        far = np.linalg.norm(log.x[r.number], axis=1)
        return r._replace(f=f, noise=blur * r.noise + float(np.linalg.norm(units.doubt)) * far)

    def ask(t: np.ndarray) -> Replies:
        return without(log.replies(line, t))

    def hint(number: np.ndarray) -> np.ndarray:
        g = log.gradient[number] - fresh.top_gradient(known, log.x[number], log.label[number])
        scale = np.linalg.norm(log.gradient[number], axis=1).max()
        apart = np.linalg.norm(np.diff(g, axis=0), axis=1)
        same = np.diff(log.label[number]) == 0
        return np.where(same, np.where(apart <= blur * EQUAL * scale, EMPTY, FULL), OPEN)

    _, kinks = chords.search(
        ask,
        line,
        without(start),
        hint if hinted else chords.no_hint,
        chords.FEW if known.width else chords.MANY,
    )
    if kinks.open > chords.WILD:
        return units
    if known.width:
        usual = np.abs(known.weights * (known.rows @ line.v)[None]).max()
        kinks = kinks.only(np.abs(kinks.jump).max(1) > SEEN * usual)
    return _with(log, units, line, np.arange(start.number.min(), len(log.x)), kinks)


def _with(log: Log, units: Units, line: Line, on_line: np.ndarray, kinks: Kinks) -> Units:
    """The units and those of the kinks, from gradients of one class on either side."""
    if not len(kinks.t):
        return units
    known = units.network
    kinks = kinks.only(np.argsort(kinks.t))
    on_line = on_line[log.usable[on_line]]
    crossed = -(known.rows @ line.u + known.bias) / (known.rows @ line.v)
    edges = np.sort(np.concatenate([kinks.t, crossed]))
    pairs = _pairs(log, line, on_line, kinks, edges)
    missing = [j for j, pair in enumerate(pairs) if pair is None]
    if missing:
        t = [_beside(log, known, line, on_line, kinks, edges, j) for j in missing]
        on_line = np.concatenate([on_line, log.ask(line.at(np.concatenate(t)))])
        pairs = _pairs(log, line, on_line, kinks, edges)
    found = [j for j, pair in enumerate(pairs) if pair is not None]
    left, right = np.array([pairs[j] for j in found], int).reshape(-1, 2).T
    gradient = log.gradient - fresh.top_gradient(known, log.x, log.label)
    jump = gradient[right] - gradient[left]
    length = np.linalg.norm(jump, axis=1)
    steep = np.linalg.norm(log.gradient[on_line], axis=1).max()
    real = length > SEEN * steep  # else the class has no part in this unit
    jump, length, label = jump[real], length[real], log.label[left[real]]
    kinks = kinks.only(np.array(found, int)[real])
    along = jump @ line.v  # W_a (n v): the jump of the top logit's slope
    rows = jump * (np.sign(along) / length)[:, None]  # n v > 0
    slopes = kinks.jump @ log.basis.T
    if log.hidden:
        slopes = slopes + (along - slopes[np.arange(len(label)), label])[:, None]
    weights = slopes / (rows @ line.v)[:, None]
    bias = -np.einsum("md,md->m", rows, line.at(kinks.t))
    new = Units(rows, bias, weights, kinks.doubt / (rows @ line.v), label)
    return Units(*(np.concatenate(pair) for pair in zip(units, new, strict=True)))


def _along(log: Log, line: Line, number: np.ndarray) -> np.ndarray:
    """The t [n] of replies on the line."""
    return np.asarray((log.x[number] - line.u[None]) @ line.v / (line.v @ line.v))


def _pairs(
    log: Log, line: Line, on_line: np.ndarray, kinks: Kinks, edges: np.ndarray
) -> list[tuple[int, int] | None]:
    """For each kink replies of one class in the cells left and right of it, or None.

    edges: of the cells, in order: the kinks, and planes known before.
    """
    cell = np.searchsorted(edges, _along(log, line, on_line))
    out: list[tuple[int, int] | None] = []
    for j in np.searchsorted(edges, kinks.t):
        left, right = on_line[cell == j], on_line[cell == j + 1]
        a, b = np.nonzero(log.label[left][:, None] == log.label[right][None])
        if not len(a):
            out.append(None)
            continue
        size = np.linalg.norm(log.gradient[left[a]] - log.gradient[right[b]], axis=1)
        best = int(size.argmax())
        out.append((int(left[a[best]]), int(right[b[best]])))
    return out


def _beside(
    log: Log,
    known: TwoLayer,
    line: Line,
    on_line: np.ndarray,
    kinks: Kinks,
    edges: np.ndarray,
    j: int,
) -> np.ndarray:
    """Points t on either side of kink j where the class on top is the one on top there."""
    t = _along(log, line, on_line)
    ends = np.concatenate([edges, [t.min(), t.max()]])
    at = kinks.t[j]

    def top(t: np.ndarray) -> np.ndarray:
        f = kinks(t) + known(line.at(t)) @ log.basis
        return np.asarray((f @ log.basis.T).argmax(1))

    label, out = top(at[None])[0], []
    for end in (ends[ends < at].max(), ends[ends > at].min()):
        near = at + np.array(NEARER) * (end - at)
        good = np.flatnonzero(top(near) == label)
        out.append(near[good[0]] if len(good) else near[-1])
    return np.array(out)
