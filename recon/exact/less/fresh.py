"""A recovered network held against the victim on fresh queries, by its log-odds or values.

Points of one round: antipodal pairs far out, where every unit that is there is on at one of the
two; ordinary ones, standard normal; and pairs beside all hyperplanes at once (`touch`), which the
gradients tell apart.  Where probabilities saturate, points are moved to where they do not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact import certify, regions, touch
from recon.exact.asking import Spent
from recon.exact.less.chords import Wild
from recon.exact.less.odds import Log, Unreadable
from recon.exact.recovery import Recovery, Status, repeated, single
from recon.networks import TwoLayer

FAR = np.array([8.0, 64.0])  # times standard normal: of the pairs far out
BEST, BLUR = 0.1, 8.0  # the share of fresh points that show no missing unit; and a margin
ORDINARY, MANY = 6, 32  # the fewer units were found, the less is seen of others
USUALLY = 8  # times as many normal points, among which those are taken that show
SMALL = 16  # units up to which MANY points are asked at any distance besides
STOPS = (Spent, Unreadable, Wild, np.linalg.LinAlgError)
SAMPLE = 256  # standard normal points, for the size of f
BEYOND = 100.0  # times what shows of f: as large as normal points that saturate may be
MARGIN = 1e-6  # of a point's length: how far beside the planes
NONE = np.zeros(0, int)
GROUP = 0.8  # of the dimensions: rows touched at once
NEARLY = 1e-3  # of the values: what is farther off is not for want of digits
SAFETY = 8.0  # the error promised over the largest one seen
UNSOLVED = "The replies make equations that have no solution in numbers, as those of noise do."


class Verdict(NamedTuple):
    """The largest error, of values and of explanations, relative to rms f of normal points."""

    error: float
    worst: int  # number of the reply


def ended(
    log: Log, network: TwoLayer | None, error: float, width: int | None, promise: float
) -> Recovery:
    """The outcome: certified where the error seen is below the promise by SAFETY."""
    if network is None:
        return Recovery(None, Status.UNCERTIFIED, log.cost)
    shift = " Logits are known up to a common shift." if log.hidden else ""
    status = Status.RECOVERED if width in (None, network.width) else Status.OTHER_WIDTH
    status = status if error <= promise / SAFETY else Status.UNCERTIFIED
    said = f"Units found: {network.width}.{shift}"
    return Recovery(network, status, log.cost, error, said, log.fresh)


def stopped(log: Log, network: TwoLayer | None, error: float, why: Exception) -> Recovery:
    """The outcome where a search ended early, by one of STOPS."""
    if isinstance(why, Spent):
        return Recovery(network, Status.BUDGET, log.cost, error)
    if isinstance(why, np.linalg.LinAlgError):
        return Recovery(network, Status.NOISY, log.cost, error, UNSOLVED)
    status = Status.NOISY if isinstance(why, Wild) else Status.UNCERTIFIED
    return Recovery(network, status, log.cost, detail=str(why))


def nothing(log: Log) -> TwoLayer:
    """The network of no units, once the number of outputs is known."""
    none, slope = np.zeros((0, log.dim)), np.zeros((log.outputs, log.dim))
    return TwoLayer(none, none[:, 0], np.zeros((log.outputs, 0)), slope, slope[:, 0])


def log_odds(network: TwoLayer, x: np.ndarray, hidden: bool) -> np.ndarray:
    """Log p [n, K] by the network, or its values."""
    z: np.ndarray = network(x)
    if not hidden:
        return z
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def inside(log: Log, network: TwoLayer, x: np.ndarray) -> np.ndarray:
    """x [n, d], those moved at which the network's log p is too deep: to the side, as far as that
    helps, then towards the origin.
    """
    if log.depth < np.inf:
        x = regions.slid(network, x, 0.9 * log.depth)
    for _ in range(60):
        shows = _shows(log, network, x)
        if shows.all():
            break
        x = np.where(shows[:, None], x, 0.8 * x)
    return x


def _shows(log: Log, network: TwoLayer, x: np.ndarray) -> np.ndarray:
    """Where [n] the network's log p is not too deep."""
    return ~(np.abs(log_odds(network, x, log.hidden)).max(1) > 0.9 * log.depth)


def points(
    log: Log, network: TwoLayer, key: np.ndarray, ordinary: int = ORDINARY, last: bool = True
) -> np.ndarray:
    """Fresh points [n, d]; last: whether a network that meets them is certified."""
    rng = np.random.default_rng(key)
    many = certify.how_many(network.width, None)  # hundreds where no unit was found
    if network.width or not last:
        many = repeated(MANY, log.tests) if network.width <= SMALL else min(many, MANY)
    count = max(ordinary, many)
    some = rng.standard_normal((USUALLY * count, log.dim))
    near = np.concatenate([some[shown := _shows(log, network, some)], some[~shown]])[:count]
    log.fresh, log.tests = single(min(count, int(shown.sum())), log.tests), log.tests + 1
    far = FAR[:, None] * rng.standard_normal((len(FAR), log.dim))
    far = inside(log, network, far)
    far = np.concatenate([far, -far])
    far[len(FAR) :] = inside(log, network, far[len(FAR) :])
    out = [inside(log, network, near), far]
    if network.width <= SMALL:
        out.append(inside(log, network, certify.spread_out(rng, log.dim)[:MANY]))
    if len(log.gradient) and network.width:
        count = -(-network.width // max(1, int(GROUP * log.dim)))
        for i in range(count):
            out.append(_beside(log, network, slice(i, None, count), rng))
    return np.concatenate(out)


def _beside(log: Log, network: TwoLayer, group: slice, rng: np.random.Generator) -> np.ndarray:
    """Two points [2, d] on either side of every plane of the group that can be met at once."""
    rows, bias = network.rows[group], network.bias[group]
    rows, keep, inverse = touch.factor(rows, np.ones(len(bias), bool))
    target = np.where(keep, -bias, 0.0)
    foot = rng.standard_normal(log.dim)
    for _ in range(3):
        foot = foot + ((target - rows @ foot) @ inverse) @ rows
    step = (rng.choice([-1.0, 1.0], len(bias)) * keep) @ inverse @ rows
    step *= MARGIN * (1 + np.linalg.norm(foot))
    pair = np.stack([foot + step, foot - step])
    deep = np.abs(log_odds(network, pair, log.hidden)).max() > 0.9 * log.depth
    return pair[:0] if deep else pair


def level(log: Log, network: TwoLayer, number: np.ndarray) -> float:
    """The errors of values over |x|, but for those of a few missing units.

    One missing unit shows at about half of fresh points `number`: the best of them tell the rest.
    """
    x = log.x[number]
    off = np.abs(network(x) @ log.basis - log.f(number)).max(1) / np.linalg.norm(x, axis=1)
    return float(BLUR * np.quantile(off[log.usable[number]], BEST))


def top_gradient(network: TwoLayer, x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The gradient [n, d] of the logit `label` [n] at x [n, d]."""
    on = x @ network.rows.T + network.bias[None] > 0
    return np.asarray((on * network.weights[label]) @ network.rows + network.slope[label])


def rms(log: Log, network: TwoLayer, key: np.ndarray) -> float:
    """Root mean square of the coordinates of f at standard normal points.

    At most BEYOND times that of what shows of f, as no reply holds the rest of it.
    """
    x = np.random.default_rng(key).standard_normal((SAMPLE, log.dim))
    all_, shown = (certify.rms(network(at) @ log.basis) for at in (x, inside(log, network, x)))
    return min(all_, BEYOND * shown)


def judge(
    log: Log, network: TwoLayer, number: np.ndarray, key: np.ndarray, explained: np.ndarray | None
) -> Verdict:
    """The network held to replies `number`.

    explained [n, d]: what the explanation should be, if there is one.  An error far out counts
    by how much farther that is; one of a gradient by what it makes of a normal point.
    """
    x, size = log.x[number], max(rms(log, network, key), 1e-300)
    farther = np.maximum(np.linalg.norm(x, axis=1) / (3 * log.dim**0.5), 1.0)
    off = np.abs(network(x) @ log.basis - log.f(number)).max(1) / farther / size
    off = np.where(log.readable(number), off, np.inf)  # the network says that they can be read
    if explained is not None:
        wrong = np.linalg.norm(explained - log.gradient[number], axis=1) / size
        off = np.maximum(off, wrong)
    off = np.where(np.isnan(off), np.inf, off)
    return Verdict(float(off.max()), int(number[off.argmax()]))


def polish(
    log: Log,
    network: TwoLayer,
    doubtful: np.ndarray = NONE,
    known: np.ndarray | None = None,
    doubtful_rows: np.ndarray = NONE,
    apart: np.ndarray = NONE,
    steps: int = 2,
) -> TwoLayer:
    """Biases, offset and what else is in doubt by Gauss-Newton on all replies met nearly.

    doubtful: units [m] whose weights are not known well; known: the output [h] whose weight is
    known of each, by a gradient; doubtful_rows: units [m] whose rows are not known well, and
    then what is always on is not either; apart: numbers of replies to leave out, which are to
    certify the outcome.
    """
    number = np.setdiff1d(np.flatnonzero(log.usable), apart)
    f = log.f(number)
    off = np.abs(network(log.x[number]) @ log.basis - f).max(1)
    number = number[off < NEARLY * (np.median(np.abs(f)) + np.abs(f).max(1))]
    basis = log.basis
    columns = network.width + basis.shape[1] + len(doubtful) * log.outputs
    columns += (len(doubtful_rows) + basis.shape[1] * bool(len(doubtful_rows))) * log.dim
    if len(number) * basis.shape[1] < columns:
        return network
    x, f, scale = log.x[number], log.f(number), 1 / log.noise(number)
    rows, bias, weights = network.rows, network.bias, network.weights
    slope, offset = network.slope, network.offset
    free = [(j, k) for j in doubtful for k in range(log.outputs) if known is None or k != known[j]]
    unit, output = np.array(free, int).reshape(-1, 2).T
    for _ in range(steps):
        pre = x @ rows.T + bias[None]
        y = np.maximum(pre, 0)
        left = f - (y @ weights.T + x @ slope.T + offset[None]) @ basis
        by_bias = (pre > 0)[:, None, :] * (basis.T @ weights)[None]
        by_offset = np.broadcast_to(np.eye(basis.shape[1])[None], (len(x), *basis.shape[1:] * 2))
        by_weight = y[:, None, unit] * basis[output].T[None]
        on, part = (pre > 0)[:, doubtful_rows], (basis.T @ weights)[:, doubtful_rows]
        by_row = np.einsum("nj,qj,nd->nqjd", on, part, x)
        by_row = by_row.reshape(len(x), basis.shape[1], -1)
        parts = [by_bias, by_offset, by_weight, by_row]
        if len(doubtful_rows):
            by_slope = np.eye(basis.shape[1])[None, :, :, None] * x[:, None, None]
            parts.append(by_slope.reshape(len(x), basis.shape[1], -1))
        system = np.concatenate(parts, 2) * scale[:, None, None]
        system, left = system.reshape(-1, system.shape[2]), (left * scale[:, None]).reshape(-1)
        size = np.linalg.norm(system, axis=0)
        size = np.where(size > 0, size, 1.0)
        step = np.linalg.lstsq(system / size, left, rcond=1e-14)[0] / size
        by = np.split(step, np.cumsum([part.shape[2] for part in parts])[:-1])
        bias, offset, weights = bias + by[0], offset + basis @ by[1], weights.copy()
        np.add.at(weights, (output, unit), by[2])
        rows = rows.copy()
        rows[doubtful_rows] += by[3].reshape(-1, log.dim)
        if len(doubtful_rows):
            slope = slope + basis @ by[4].reshape(-1, log.dim)
    return TwoLayer(rows, bias, weights, slope, offset)
