"""The certificate: a recovered network held against the victim on fresh queries.

Apart from the attack: it sees the recovered network and the oracle, nothing of the search.
Fresh points, one round:

- beside every hyperplane of the network at once (`touch`), near the origin and far out: each
  unit that is really several gives itself away there, at y or at -y, and so does a unit that
  was missed, however far from the origin it sets in, up to the ends of the line;
- points of every distribution errors are promised on: standard normal ones, ten times as far
  out, and the user's own inputs, with points between two of them and beyond;
- points on a fresh line through the origin region, far and near.

The values and the gradients are held to two bars.  One is what rounding makes of them: two
units taken for one, a missed unit and a victim of another kind exceed it, at any distance.
The other is what a person means by a right network: the error near the origin and on the
user's inputs, relative to the root mean square (rms) of f there.  What none of this can see is
a change confined to a region that no such point meets.

All in NumPy and float64: replies of any oracle arrive as such, and nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from recon.exact import arrays, touch
from recon.networks import TwoLayer
from recon.replies import Reply

NORMAL = 2  # fresh normal points at least, near and ten times as far out in turn
NORMAL_IF_OTHER_WIDTH = 60  # at least, where the width found is not the one told, or is small
NORMAL_IF_MISSING = 64  # where fewer were found than told
NORMAL_IF_NONE = 512  # where none was found, or digits hide units; and as many of any scale
ROUNDED = 1e-6  # eps of replies above which digits do, coarser than float32
DECADES, FARTHER = 4.0, 8.0  # of these scales, up and down; and of an input that seems not used, up
MANY = 160  # over the units found: the fewer units, the less is seen of others
FEW = 8  # units up to which a width is small
ON_LINE = 1  # fresh points on the search's line
FAR = 10.0  # times standard normal: touched pairs near the origin lie as far
ROWS, BETWEEN = 32, 32  # of the user's inputs
HARDLY = 1e-3  # of the usual weight of an input: what may be of one of another scale
PLAIN, UNSCALED = 32, 32  # standard normal points and such of no scale, where inputs are scaled
MARGIN = 128.0  # eps: how far beside its hyperplane a unit is touched, relative to the radius
CLOSE = 0.5  # of that: where rounding may explain that a unit is on and not off
GRADIENT, VALUE = 96.0, 256.0  # eps: what rounding may explain of a network of few units; the
# first just above the jump that a search can see, `lines.ROUNDING`
SAMPLE = 256  # points at which the network itself is evaluated for its rms
BLOCK = 2**23  # points times outputs times units, of which gradients are taken at once: 64 MB
SAFETY = 8.0  # how far below what is promised the errors seen must stay
ERRORS = 4.0  # standard deviations of the worst point, over which a wrong gradient adds up


class Line(NamedTuple):
    """u + t v, which the search used, how far it reached, and the largest gradient it saw."""

    u: np.ndarray  # [d]
    v: np.ndarray  # [d]
    reach: float  # in t
    scale: float


class Place(NamedTuple):
    """A distribution that errors are judged on: a sample [m, d], and how many to ask of it."""

    sample: np.ndarray
    asked: int
    between: int = 0  # points on lines through two of the sample, asked besides


class Points(NamedTuple):
    """Fresh queries x [n, d], and the place [n] each belongs to: -1 for points far out."""

    x: np.ndarray
    place: np.ndarray


class Verdict(NamedTuple):
    """error: the largest deviation at any place, relative to rms f there.

    rounding: the largest deviation at any point in units of what rounding explains.
    """

    error: float
    rounding: float


def group_size(dim: int) -> int:
    """Most rows touched at once: half the dimensions keep the systems well conditioned."""
    return max(1, min(dim // 2, 128))


def how_many(units: int, width: int | None, eps: float = 0.0) -> int:
    """Normal points to ask where `units` were found and `width` told, by replies off by eps.

    They are what tells a victim with a second layer, all on along the line, from one without.
    """
    if units == 0 or eps > ROUNDED:
        return NORMAL_IF_NONE
    if width is not None and units < width:
        return NORMAL_IF_MISSING
    if units <= FEW or width not in (None, units):
        return NORMAL_IF_OTHER_WIDTH
    return NORMAL if width == units else max(NORMAL, MANY // units)


def normal_places(seed: Any, dim: int, count: int, times: float = FAR) -> list[Place]:
    """Standard normal points, and as many ten times (`times`) as far out; where no unit was found,
    points of which every input has a scale of its own besides.
    """
    rng = np.random.default_rng(seed)
    size = max(SAMPLE, count)
    near, far = rng.standard_normal((2, size, dim))
    places = [Place(near, -(-count // 2)), Place(times * far, count // 2)]
    if count > NORMAL_IF_MISSING:
        scales = 10 ** rng.uniform(-DECADES, DECADES, (size, dim))
        places.append(Place(rng.standard_normal((size, dim)) * scales, count))
    return places


def spread_out(rng: np.random.Generator, dim: int, far: float = FAR) -> np.ndarray:
    """Points [SAMPLE, d] from standard normal ones to some `far` times as far out."""
    return np.asarray(rng.standard_normal((SAMPLE, dim)) * far ** rng.uniform(0, 1, (SAMPLE, 1)))


def of_the_user(
    rng: np.random.Generator, dim: int, seen: Callable[[np.ndarray], np.ndarray]
) -> list[Place]:
    """Where an input's own scale is not what it was taken for: standard normal points, and such
    near and far, as they are `seen` in the scales that the attack uses.
    """
    plain, spread = rng.standard_normal((SAMPLE, dim)), spread_out(rng, dim)
    return [Place(seen(plain), PLAIN), Place(seen(spread), UNSCALED)]


def idle(rng: np.random.Generator, network: TwoLayer) -> list[Place]:
    """Where an input that the network hardly uses may be of another scale: there it is larger."""
    strength = np.linalg.norm(network.weights, axis=0)
    size = np.linalg.norm(network.rows * strength[:, None], axis=0)
    size = size + np.linalg.norm(network.slope, axis=0)
    used = size > HARDLY * np.median(size[size > 0]) if size.any() else size > 0
    if used.all():
        return []
    scales = 10 ** rng.uniform(0, FARTHER, (SAMPLE, len(used)))
    x = rng.standard_normal(scales.shape) * np.where(used, 1, scales)
    return [Place(x, UNSCALED)]


def points(seed: Any, network: TwoLayer, line: Line, eps: float, places: list[Place]) -> Points:
    """Fresh queries for a network of unit rows.  seed: of a NumPy generator.

    Those of each place, one on the line, then for each group of rows a pair as near as the
    second place and a pair as far out as the line reaches; rows that depend on others of their
    group have a pair of their own.
    """
    rng = np.random.default_rng(seed)
    dim = network.rows.shape[1]
    t = np.tan(rng.uniform(-1.5, 1.5, (ON_LINE, 1)))
    t = np.clip(t, -line.reach, line.reach)
    parts = [(-1, line.u[None] + t * line.v[None])]
    parts += [(i, drawn(rng, place)) for i, place in enumerate(places)]
    size = group_size(dim)
    margin = rng.choice([-1.0, 1.0], network.width) * blur(network, line.scale, eps)
    if dim > 1:  # else a hyperplane is a point: nothing to touch from afar
        groups = [slice(start, start + size) for start in range(0, network.width, size)]
        beside = arrays.each(
            lambda a: _beside(a[0], network.rows[a[1]], network.bias[a[1]], margin[a[1]], line),
            zip(rng.spawn(len(groups)), groups, strict=True),
            network.rows.size >= arrays.LARGE,
        )
        for near, far, alone in beside:
            parts += [(1, near), (1, alone), (-1, far)]
    else:
        parts += [(1, _alone(rng, network.rows, network.bias, margin, FAR))]
    if dim == 1 or network.width == 0:
        away = rng.standard_normal((1, dim))
        away = away * (line.reach * float(np.linalg.norm(line.v) / np.linalg.norm(away)))
        parts += [(-1, away), (-1, -away)]
    x = np.concatenate([part for _, part in parts])
    return Points(x, np.repeat([i for i, _ in parts], [len(part) for _, part in parts]))


def more(
    points: Points, reply: Reply, fresh: tuple[np.ndarray, Reply] | None
) -> tuple[Points, Reply]:
    """Points and replies with more of the first place, if there are any."""
    if fresh is None:
        return points, reply
    return joined(points, reply, Points(fresh[0], np.zeros(len(fresh[0]), int)), fresh[1])


def joined(points: Points, reply: Reply, other: Points, others: Reply) -> tuple[Points, Reply]:
    """Both, points and replies."""
    both = Points(*(np.concatenate(pair) for pair in zip(points, other, strict=True)))
    return both, Reply(*(np.concatenate(pair) for pair in zip(reply, others, strict=True)))


def drawn(rng: np.random.Generator, place: Place) -> np.ndarray:
    """Points of a place; of those between two of its sample, one half lies beyond the second."""
    sample, asked, some = place
    a, b = sample[rng.integers(len(sample), size=(2, some))]
    t = rng.uniform(0, 2, (some, 1))
    return np.concatenate([sample[rng.permutation(len(sample))[:asked]], a + t * (b - a)])


def blur(network: TwoLayer, scale: float, eps: float) -> np.ndarray:
    """Distances [h] from hyperplanes, relative to the radius, within which they may truly lie."""
    dim, strength = network.rows.shape[1], np.linalg.norm(network.weights, axis=0)
    size = scale + np.abs(network(np.zeros((1, dim)))).max() / dim**0.5
    least = size / np.where(strength > 0, strength, 1.0)
    return np.asarray(np.minimum(MARGIN * eps * np.maximum(least, 4.0), 1e-2))


def _beside(
    rng: np.random.Generator, units: np.ndarray, bias: np.ndarray, margin: np.ndarray, line: Line
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs beside all rows of a group, near [2, d] and far [2, d], and beside single rows.

    margin [h]: signed distances beside the hyperplanes, relative to the radius: beyond their blur.
    """
    rows, keep, inverse = touch.factor(units, np.ones(len(bias), bool))
    far = line.reach * float(np.linalg.norm(line.v))
    near = min(FAR * (rows.shape[1] ** 0.5 + float(np.linalg.norm(bias[keep]))), far)
    along, radius = rng.standard_normal((2, rows.shape[1])), np.array([near, far])
    level = np.stack([margin * near, -margin * far]) - bias[None]
    pairs = touch.pairs(along, rows, inverse, np.where(keep[None], level, 0.0), radius)
    return *pairs, _alone(rng, units[~keep], bias[~keep], margin[~keep], near)


def _alone(
    rng: np.random.Generator, rows: np.ndarray, bias: np.ndarray, margin: np.ndarray, near: float
) -> np.ndarray:
    """A pair of points on either side of each row's hyperplane, [2 s, d]."""
    around = rng.standard_normal(rows.shape) * (near / rows.shape[1] ** 0.5)
    return on_either_side(rows, bias, around, margin * near)


def on_either_side(
    rows: np.ndarray, bias: np.ndarray, around: np.ndarray, step: np.ndarray
) -> np.ndarray:
    """Points [2 s, d] a step [s] beside each unit row's hyperplane, nearest to a point [s, d]."""
    level = step[:, None] * np.array([[1.0, -1.0]])
    level = level - (np.sum(around * rows, 1) + bias)[:, None]
    return (around[:, None] + level[:, :, None] * rows[:, None]).reshape(-1, rows.shape[1])


def size(value: np.ndarray, x: np.ndarray, scale: float) -> np.ndarray:
    """What values [n, K] at x [n, d] are sums of, [n]: |f| + scale |x|, where x is taken to be no
    nearer to the origin than usual points, as biases are not.
    """
    far = np.maximum(np.linalg.norm(x, axis=1), x.shape[1] ** 0.5)
    return np.asarray(np.abs(value).max(1) + scale * far)


def judge(
    network: TwoLayer,
    asked: Points,
    value: np.ndarray,
    gradient: np.ndarray,
    scale: float,
    eps: float,
    places: list[Place],
    noise: Any = 0.0,
) -> Verdict:
    """The network held to values [n, K] and gradients [n, K, d] at the points asked.

    Rounding errors of gradients are judged by `scale`, the largest gradient of the victim, those
    of values by their `size`; both grow with the square root of the number of units.  Not a number
    counts as infinite.  noise [n]: what else the values may be off by, and the gradients relative
    to their size; where it is never small, the error is not.
    """
    jobs = [partial(network, place.sample) for place in places]
    pieces = parts(network, asked.x)
    jobs += [partial(f, x) for f in (network, network.gradient) for x in pieces]
    large = network.rows.size >= arrays.LARGE
    done = arrays.each(lambda job: job(), jobs, large)
    samples, rest = done[: len(places)], done[len(places) :]
    found = np.concatenate(rest[: len(pieces)])
    difference = np.concatenate(rest[len(pieces) :]) - gradient
    most = eps * (1 + network.width / 64) ** 0.5
    off = np.maximum(np.abs(found - value).max(1) - noise, 0.0)
    rounded = VALUE * most * size(value, asked.x, scale)
    wrong = np.linalg.norm(difference, axis=2).max(1)
    # only where the value is right, a wrong gradient may be one of the other side of a plane
    for n in np.flatnonzero((wrong > GRADIENT * most * scale) & (off <= rounded)):
        (units,) = sides(network, asked.x[n : n + 1], scale, eps)
        difference[n] = _across(network, asked.x[n], difference[n], units)
        wrong[n] = np.linalg.norm(difference[n], axis=1).max()
    blurred = np.linalg.norm(gradient, axis=2).max(1) * noise
    wrong = np.maximum(wrong - blurred, 0.0)
    worst = [_ratio(wrong, GRADIENT * most * scale), _ratio(off, rounded)]
    least = float(np.min(noise)) / SAFETY  # which `noise` keeps already
    error = 0.0
    for i, (place, sample) in enumerate(zip(places, samples, strict=True)):
        usually, here = rms(sample), asked.place == i
        usual = float(np.linalg.norm(place.sample, axis=1).max())
        farther = np.maximum(1.0, np.linalg.norm(asked.x[here], axis=1) / max(usual, 1e-300))
        # a wrong gradient is a wrong value wherever else at this place it holds
        deviation = place.sample.std(0)
        spread = np.linalg.norm(difference[here] * deviation[None, None], axis=2).max(1)
        spread = np.maximum(spread - np.broadcast_to(blurred, off.shape)[here] * deviation.max(), 0)
        error = max(error, _largest(_ratio(off[here], usually * farther)))
        error = max(error, least / max(usually, 1e-300))
        error = max(error, _largest(_ratio(ERRORS * spread, usually)))
    return Verdict(error, max(map(_largest, worst)))


def sides(network: TwoLayer, x: np.ndarray, scale: float, eps: float) -> np.ndarray:
    """Which units [n, h] may be on at x [n, d] or off: their hyperplanes are not known so well."""
    radius = np.maximum(np.linalg.norm(x, axis=1), x.shape[1] ** 0.5)
    value = np.abs(x @ network.rows.T + network.bias[None])
    return np.asarray(value < CLOSE * radius[:, None] * blur(network, scale, eps))


def _across(
    network: TwoLayer, x: np.ndarray, difference: np.ndarray, units: np.ndarray
) -> np.ndarray:
    """The difference [K, d] of gradients at x [d], less the jumps of `units` [h] (`sides`) that
    may be on there and are not, or the other way round.
    """
    value = network.rows @ x + network.bias
    for j in np.flatnonzero(units):
        jump = np.outer(network.weights[:, j], network.rows[j]) * (1.0 if value[j] > 0 else -1.0)
        less = difference - jump
        if np.linalg.norm(less, axis=1).max() < np.linalg.norm(difference, axis=1).max():
            difference = less
    return difference


def parts(network: TwoLayer, x: np.ndarray) -> list[np.ndarray]:
    """Points [n, d] in parts at which gradients of the network take little memory."""
    few = BLOCK // max(1, network.weights.size) + 1
    return [x[i : i + few] for i in range(0, max(1, len(x)), few)]


def _ratio(a: np.ndarray, b: Any) -> np.ndarray:
    """a / b, where nothing of nothing is nothing."""
    b = np.broadcast_to(b, a.shape)
    with np.errstate(over="ignore"):
        return np.where(a > 0, a / np.where(b > 0, b, 1e-300), 0.0 * a)


def rms(f: np.ndarray) -> float:
    """Root mean square over points and outputs; neither overflows nor vanishes."""
    peak = float(np.abs(f).max(initial=0))
    return peak * float(np.sqrt(np.mean((f / peak) ** 2))) if peak > 0 else 0.0


def _largest(a: np.ndarray) -> float:
    return float(np.max(np.where(np.isnan(a), np.inf, a), initial=0.0))
