"""The dense layers behind known convolutions, found, tested on fresh points, and mended.

Inputs to ask are chosen of many, plain noise, smooth noise and the user's: those that tell the most
of what normal inputs and the user's ask for and is open (`choose`).  Once nothing is, fresh points
decide; those not met are explained, and a further test has more points (`repeated`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from recon.exact.conv import choose, known, rows
from recon.exact.conv.head import Head
from recon.exact.conv.known import Layer, Shape
from recon.exact.deep.search import Log, Stuck
from recon.exact.recovery import promise, repeated
from recon.networks import Convolutional, Deep

DRAWN = 200  # inputs of each kind that are chosen from
AT_ONCE = 8  # asked before the next are chosen
ROUNDS, TESTS = 60, 60
PROBES = 8  # of normal points, and of the user's inputs, that are to be met before a test
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
    failed, sure = 0, False
    for _ in range(TESTS):
        _filled(head, rng, data)
        network = made(head)
        if not sure:  # a few first: a test that is not passed makes the next one longer
            x = _drawn(rng, PROBES, data, PROBES, shape)
            missed = _deviations(network, x, log)[0]
            sure = not missed.any()
        if sure:
            x = _drawn(rng, repeated(fresh, failed), data, ROWS, shape)
            for end in (*range(PROBES, len(x), PROBES), len(x)):
                missed, off = _deviations(network, x[:end], log)
                if missed.any():
                    x, sure, failed = x[:end], False, failed + 1
                    break
            else:
                return network, off
        head.take(x)
    raise Stuck("The dense layer lacks units or weights.")


def _drawn(
    rng: np.random.Generator, count: int, data: np.ndarray, rows: int, shape: Shape
) -> np.ndarray:
    """Standard normal points, and some of the user's inputs, in any order."""
    x = rng.standard_normal((count, math.prod(shape)))
    return rng.permutation(np.concatenate([x, data[rng.permutation(len(data))[:rows]]]))


def _deviations(network: Convolutional, x: np.ndarray, log: Log) -> tuple[np.ndarray, float]:
    """Which of x [n, d] the network does not answer as the victim, and the largest deviation beside
    the rms.
    """
    value, gradient = log(x)
    rms = max(float(np.sqrt(np.mean(value**2))), 1e-300)
    off = np.abs(network(x) - value).max(1) / rms
    slopes = np.linalg.norm(network.gradient(x) - gradient, axis=(1, 2))
    largest = np.linalg.norm(gradient, axis=(1, 2)).max()
    return (off > promise(log.eps)) | (slopes > SLOPE * largest), float(off.max())


def _filled(head: Head, rng: np.random.Generator, data: np.ndarray) -> None:
    """Ask what tells the weights that inputs of the kinds drawn ask for."""
    head.orient()
    x = rng.standard_normal((DRAWN, math.prod(head.shape)))
    data = data[rng.permutation(len(data))[:DRAWN]]
    x = np.concatenate([x, data, 3 * x[: DRAWN // 2], _smooth(rng, head.shape)])
    target = np.arange(len(x)) < DRAWN + len(data)
    y = np.array([known.outputs(head.layers, row.reshape(head.shape)).reshape(-1) for row in x])
    left = np.ones(len(x), bool)
    for _ in range(ROUNDS):
        parts = rows.parts(head.basis, head.names, head.predicted(y))
        on = y > 0
        wanted = choose.wanted(parts[target], on[target])
        best = choose.chosen(parts[left], on[left], head.rows.open, wanted, AT_ONCE)
        if not best:
            return
        numbers = np.flatnonzero(left)[best]
        left[numbers] = False
        head.take(x[numbers])
        head.orient()


def _smooth(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Smooth noise [n, d]: of two sizes, and cut off at 0 and 1 as images are."""
    from scipy.ndimage import gaussian_filter

    x = []
    for i in range(DRAWN):
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
