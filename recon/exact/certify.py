"""The certificate: a recovered network held against the victim on fresh queries.

Apart from the attack: it sees the recovered network and the oracle, nothing of the search.
Fresh points, one round:

- beside every hyperplane of the network at once (`touch`), near the origin and far out: each
  unit that is really several gives itself away there, at y or at -y, and so does a unit that
  was missed, however far from the origin it sets in, up to the ends of the line;
- standard normal points, the distribution errors are reported on;
- points on a fresh line through the origin region, far and near;
- the user's own inputs, where there are any: rows, points between two rows and beyond them.

The values and the gradients are held to two bars.  One is what rounding makes of them: two
units taken for one, a missed unit and a victim of another kind exceed it, at any distance.
The other is what a person means by a right network: the error near the origin and on the
user's inputs, relative to the root mean square (rms) of f there.  What none of this can see is
a change confined to a region that no such point meets.

All in NumPy and float64: replies of any oracle arrive as such, and nothing is compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recon.exact import touch
from recon.networks import TwoLayer

NORMAL = 2  # fresh standard normal points
NORMAL_IF_OTHER_WIDTH = 16  # the same, where the width found is not the one told
NORMAL_IF_MISSING = 64  # the same, where fewer were found than told, or none
FEW = 8  # units up to which as many normal points are asked as where the width is another
ON_LINE = 1  # fresh points on the search's line
ROWS, BETWEEN, BEYOND = 32, 16, 16  # of the user's inputs
MARGIN = 128.0  # eps: how far beside its hyperplane a unit is touched, relative to the radius
GRADIENT, VALUE = 32.0, 256.0  # eps: what rounding may explain of a network of few units
SAMPLE = 1024  # points at which the network itself is evaluated for its rms
SAFETY = 4.0  # how far below what is promised the errors seen must stay
ERRORS = 4.0  # a gradient that is wrong by one makes errors of this at the worst normal point


class Line(NamedTuple):
    """u + t v, which the search used, how far it reached, and the largest gradient it saw."""

    u: np.ndarray  # [d]
    v: np.ndarray  # [d]
    reach: float  # in t
    scale: float


class Points(NamedTuple):
    """Fresh queries: x [n, d], and which of them [n] are near the origin, or among the data."""

    x: np.ndarray
    near: np.ndarray
    data: np.ndarray


class Verdict(NamedTuple):
    """error: the largest deviation near the origin and on the data, relative to rms f there.

    rounding: the largest deviation at any point in units of what rounding explains.
    """

    error: float
    rounding: float


def group_size(dim: int) -> int:
    """Most rows touched at once: half the dimensions keep the systems well conditioned."""
    return max(1, min(dim // 2, 128))


def points(
    seed: Any,
    network: TwoLayer,
    line: Line,
    eps: float,
    normal: int,
    data: np.ndarray | None = None,
) -> Points:
    """Fresh queries for a network of unit rows.  seed: of a NumPy generator, or one.

    `normal` standard normal points, one on the line, then for each group of rows a pair near
    the origin and a pair as far out as the line reaches; rows that depend on others of their
    group have a pair of their own.  data [n, d]: the user's inputs.
    """
    rng = np.random.default_rng(seed)
    dim = network.rows.shape[1]
    radius = line.reach * float(np.linalg.norm(line.v))
    t = np.tan(rng.uniform(-1.5, 1.5, (ON_LINE, 1)))
    near = [rng.standard_normal((normal, dim))]
    far = [line.u[None] + t * line.v[None]]
    size = group_size(dim)
    if dim > 1:  # else a hyperplane is a point: nothing to touch from afar
        for start in range(0, network.width, size):
            close, away, alone = _beside(rng, network, slice(start, start + size), line, eps)
            near += [close, alone]
            far += [away]
    else:
        near += [_alone(rng, network.rows, network.bias, _margins(rng, network, line, eps), 10.0)]
    if dim == 1 or network.width == 0:
        away = rng.standard_normal((1, dim))
        away = away * (radius / np.linalg.norm(away))
        far += [away, -away]
    sample = np.zeros((0, dim)) if data is None else _from_data(rng, data)
    x = np.concatenate([*near, *far, sample])
    index = np.arange(len(x))
    return Points(x, index < sum(map(len, near)), index >= len(x) - len(sample))


def _margins(rng: np.random.Generator, network: TwoLayer, line: Line, eps: float) -> np.ndarray:
    """Signed distances [h] beside the hyperplanes, relative to the radius: beyond their blur."""
    strength = np.linalg.norm(network.weights, axis=0)
    blur = line.scale / np.where(strength > 0, strength, 1.0)
    side = rng.choice([-1.0, 1.0], network.width)
    return side * np.minimum(MARGIN * eps * np.maximum(blur, 4.0), 1e-2)


def _beside(
    rng: np.random.Generator, network: TwoLayer, group: slice, line: Line, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs beside all rows of a group, near [2, d] and far [2, d], and beside single rows."""
    unit_rows, bias = network.rows[group], network.bias[group]
    rows, keep, inverse = touch.factor(unit_rows, np.ones(len(bias), bool))
    margin = _margins(rng, network, line, eps)[group]
    near = 10 * (rows.shape[1] ** 0.5 + float(np.linalg.norm(bias[keep])))
    far = line.reach * float(np.linalg.norm(line.v))
    pairs = [
        touch.touch(rng, rows, inverse, np.where(keep, side * radius - bias, 0.0), radius)
        for side, radius in ((margin, near), (-margin, far))
    ]
    return *pairs, _alone(rng, unit_rows[~keep], bias[~keep], margin[~keep], near)


def _alone(
    rng: np.random.Generator, rows: np.ndarray, bias: np.ndarray, margin: np.ndarray, near: float
) -> np.ndarray:
    """A pair of points on either side of each row's hyperplane, [2 s, d]."""
    around = rng.standard_normal(rows.shape) * (near / rows.shape[1] ** 0.5)
    level = margin[:, None] * near * np.array([[1.0, -1.0]])
    level = level - (np.sum(around * rows, 1) + bias)[:, None]
    return (around[:, None] + level[:, :, None] * rows[:, None]).reshape(-1, rows.shape[1])


def _from_data(rng: np.random.Generator, data: np.ndarray) -> np.ndarray:
    """Rows, points between two rows, and points beyond one as far again as the other lies."""
    rows = data[rng.permutation(len(data))[:ROWS]]
    a, b = data[rng.integers(len(data), size=(2, BETWEEN + BEYOND))]
    inside, outside = rng.uniform(0, 1, (BETWEEN, 1)), rng.uniform(1, 2, (BEYOND, 1))
    return np.concatenate([rows, a + np.concatenate([inside, outside]) * (b - a)])


def judge(
    seed: Any,
    network: TwoLayer,
    asked: Points,
    value: np.ndarray,
    gradient: np.ndarray,
    scale: float,
    eps: float,
    data: np.ndarray | None = None,
) -> Verdict:
    """The network held to values [n, K] and gradients [n, K, d] at the points asked.

    Rounding errors of gradients are judged by `scale`, the largest gradient of the victim, those
    of values by what such a gradient makes of the point, |f| + scale |x|; both grow with the
    square root of the number of units.  Not a number counts as infinite.
    """
    x, (_, dim) = asked.x, asked.x.shape
    wrong = np.linalg.norm(network.gradient(x) - gradient, axis=2).max(1)
    off = np.abs(network(x) - value).max(1)
    distance = np.linalg.norm(x, axis=1)
    most = eps * (1 + network.width / 64) ** 0.5
    size = np.abs(value).max(1) + scale * distance
    rounding = np.maximum(_ratio(wrong, GRADIENT * most * scale), _ratio(off, VALUE * most * size))
    fresh = np.random.default_rng(seed).standard_normal((SAMPLE, dim))
    rms = _rms(network(fresh))
    farther = np.maximum(1.0, distance / dim**0.5)  # f of a point farther out is as much larger
    error = np.maximum(_ratio(off, rms * farther), _ratio(ERRORS * wrong, rms))[asked.near]
    if data is not None:
        some = data[np.linspace(0, len(data) - 1, min(SAMPLE, len(data))).astype(int)]
        error = np.concatenate([error, _ratio(off[asked.data], _rms(network(some)))])
    return Verdict(_largest(error), _largest(rounding))


def _ratio(a: np.ndarray, b: Any) -> np.ndarray:
    """a / b, where nothing of nothing is nothing."""
    b = np.broadcast_to(b, a.shape)
    return np.where(a > 0, a / np.where(b > 0, b, 1e-300), 0.0 * a)


def _rms(f: np.ndarray) -> float:
    """Root mean square over points and outputs; neither overflows nor vanishes."""
    peak = float(np.abs(f).max(initial=0))
    return peak * float(np.sqrt(np.mean((f / peak) ** 2))) if peak > 0 else 0.0


def _largest(a: np.ndarray) -> float:
    return float(np.max(np.where(np.isnan(a), np.inf, a), initial=0.0))
