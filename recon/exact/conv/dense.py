"""The dense layers behind known convolutions, found, tested on fresh points, and mended.

Inputs to ask are chosen of many, plain noise, smooth noise and the user's, some with features
raised (`steer`): those that tell the most of what normal inputs and the user's ask for and is open
(`choose`).  It is known beforehand which of a thousand these are, so that few are missed once there
are none.  Then fresh points decide; those not met are explained, and a further test has more points
(`repeated`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from recon.exact.conv import choose, known, rows, steer
from recon.exact.conv.head import Head
from recon.exact.conv.known import Layer, Shape
from recon.exact.deep.log import Log
from recon.exact.deep.search import Stuck
from recon.exact.recovery import promise, repeated
from recon.networks import Convolutional, Deep

DRAWN = 1_000  # normal inputs, and of the user's, that are to be told
OTHERS = 100  # inputs of each other kind that are chosen from
RAISED, MOST = 32, 40  # of them drawn at a time with features raised; how many of these
AT_ONCE = 8  # asked before the next are chosen
ROUNDS, TESTS = 60, 16
ROWS = 32  # of the user's inputs, that convolutions and dense layers are held to in a test
SLOPE = 1e-6  # of the largest gradient at fresh points: what gradients there may be off by
SMOOTH = (0.5, 2.5)  # pixels over which noise is smoothed
NONE = 1e-9  # of M: a linear part that is none


def found(
    log: Log,
    layers: Sequence[Layer],
    shape: Shape,
    rng: np.random.Generator,
    fresh: int,
    start: np.ndarray,
    data: np.ndarray,
) -> tuple[Convolutional, float]:
    """The network, and its largest deviation at fresh points relative to rms f; raises Stuck.

    start [n, d]: points that were asked; data [m, d]: inputs like the user's.
    """
    head = Head(log, layers, shape, log.value[0].shape[1])
    head.take(start)
    if not head.seen:
        raise Stuck("No reply shows gradients in the features.")
    for failed in range(TESTS):
        _filled(head, rng, data)
        network = made(head)
        x = rng.standard_normal((repeated(fresh, failed), math.prod(shape)))
        x = rng.permutation(np.concatenate([x, data[rng.permutation(len(data))[:ROWS]]]))
        for end in (*range(AT_ONCE, len(x), AT_ONCE), len(x)):
            missed, off = _deviations(network, x[:end], log)
            if missed:
                break
        else:
            return network, off
        head.take(x[:end])
    raise Stuck("The dense layer lacks units or weights.")


def _deviations(network: Convolutional, x: np.ndarray, log: Log) -> tuple[bool, float]:
    """Whether the network answers some of x [n, d] otherwise than the victim, and the largest
    deviation beside the rms.
    """
    value, gradient = log(x)
    rms = max(float(np.sqrt(np.mean(value**2))), 1e-300)
    off = np.abs(network(x) - value).max() / rms
    slopes = np.linalg.norm(network.gradient(x) - gradient, axis=(1, 2))
    largest = np.linalg.norm(gradient, axis=(1, 2)).max()
    return bool(off > promise(log.eps) or slopes.max() > SLOPE * largest), float(off)


def _filled(head: Head, rng: np.random.Generator, data: np.ndarray) -> None:
    """Ask what tells the weights that inputs of the kinds drawn ask for."""
    head.orient()
    x = rng.standard_normal((DRAWN, math.prod(head.shape)))
    x = np.concatenate([x, data[rng.permutation(len(data))[:DRAWN]]])
    features = partial(_features, head.layers, head.shape)
    target, more = features(x), np.concatenate([3 * x[:OTHERS], _smooth(rng, head.shape)])
    others = features(more)
    for _ in range(ROUNDS):
        asked = rows.parts(head.basis, head.names, head.predicted(target))
        wanted = choose.wanted(asked, target > 0)
        open_ = head.rows.open
        (asking,) = np.nonzero(choose.told(asked, target > 0, open_ @ wanted @ open_) > choose.NEW)
        if not len(asking):
            return
        loose = np.flatnonzero(np.einsum("fij,fji->f", open_, wanted) > choose.NEW)
        raised = [
            steer.on(
                head.layers, head.shape, x[i], rng.permutation(loose)[: 1 + rng.integers(MOST)]
            )
            for i in rng.choice(asking, RAISED)
        ]
        y = np.concatenate([features(np.array(raised)), target[asking], others])
        pool = np.concatenate([raised, x[asking], more])
        parts = rows.parts(head.basis, head.names, head.predicted(y))
        best = choose.chosen(parts, y > 0, open_, wanted, AT_ONCE)
        if not best:
            return
        head.take(pool[best])
        head.orient()


def _features(layers: Sequence[Layer], shape: Shape, x: np.ndarray) -> np.ndarray:
    """Of inputs [n, d], [n, f]."""
    return np.array([known.outputs(layers, row.reshape(shape)).reshape(-1) for row in x])


def _smooth(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Smooth noise [n, d]: of two sizes, and cut off at 0 and 1 as images are."""
    from scipy.ndimage import gaussian_filter

    x = []
    for i in range(OTHERS):
        wide = rng.uniform(*SMOOTH)
        image = gaussian_filter(rng.standard_normal(shape), (wide, wide, 0))
        image = image / image.std()
        if i % 2:
            image = np.clip(image * rng.uniform(0.5, 2) - rng.uniform(0, 1.5), 0, 1)
        x.append((image * (1.0, 1.0, 3.0, 1.0)[i % 4]).reshape(-1))
    return np.array(x)


def made(head: Head) -> Convolutional:
    """The network: a linear part P y, where one is left, passes through units that are on wherever
    y >= 0, as w y + m sum(y) is with m = max(-w), and one that is sum(y).
    """
    ends = np.cumsum([len(layer.bias) for layer in head.layers])[:-1]
    shifts = zip(head.layers, np.split(head.correction, ends), strict=True)
    use = head.rows.least.any(1)
    sign = head.sign[use]
    first, bias = sign[:, None] * head.rows.least[use], sign * head.bias[use]
    last = (head.names[use] * sign[:, None]).T
    slope = head.basis.T @ head.rows.least_slope
    if np.abs(slope).max(initial=0.0) > NONE * np.abs(head.all[0].slope).max():
        less = np.maximum(-slope, 0).max(1)
        first = np.concatenate([first, slope + less[:, None], np.ones((1, slope.shape[1]))])
        bias = np.append(bias, np.zeros(len(slope) + 1))
        last = np.hstack([last, head.basis, -(head.basis @ less)[:, None]])
    return Convolutional(
        tuple(layer.kernel for layer in head.layers),
        tuple(layer.bias + more for layer, more in shifts),
        Deep((first, last), (bias, head.offset)),
        head.shape,
    )
