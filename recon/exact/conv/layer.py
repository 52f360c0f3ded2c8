"""One convolution behind those known: its kernels, signs and biases, from lines at a corner."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from recon.exact.conv import channels, known, reading
from recon.exact.conv.corner import STARTS, Changed, Corner
from recon.exact.conv.kernels import Kernels
from recon.exact.conv.known import Layer, Shape
from recon.exact.conv.reading import Reading
from recon.exact.conv.windows import Windows
from recon.exact.deep.log import Log
from recon.exact.deep.search import Stuck

LINES = 40  # lines searched in one place, at most
BACK = 20  # returns to a layer that was taken for complete
ANEW = 3  # lines through a window in which a missing channel is on
FEW = 4  # readings looked at for one
STRONG, ENOUGH = 1e-3, 4  # of the largest jump; directions of jumps that are as good as more
DRAWS, SURROUNDINGS = 6, 10  # attempts, and surroundings drawn for each
WHOLE = 1e-6  # of what is not told, in a bias that is
WEAK = 1e-5  # of the largest singular value: biases below are not told
LOOKS = 6  # windows with bright parts that are asked
QUERIES = 1_000  # of a layer, at most, with those that test it
SIDES = (3, 5, 7, 11)  # the largest kernels looked for in the first layer, in turn


def find(
    log: Log,
    shape: Shape,
    below: Sequence[Layer],
    rng: np.random.Generator,
    more: Callable[[Layer], Sequence[Reading]] = lambda _: (),
) -> Layer:
    """The next layer, kernels of length one; Stuck where it is not found.

    more: readings whose Jacobian the layer does not explain; its last word is none.
    """
    why, last = "", log.count + QUERIES
    sides = (len(below[-1].kernel), len(below[-1].kernel) + 2) if below else SIDES
    for most in sides:
        window = known.span(below, most + 1)
        if window + 2 ** len(below) > min(shape[:2]):
            break
        for _ in range(DRAWS):
            try:
                corner, *line = _drawn(log, shape, below, window, rng, last)
                _searched(corner, *line)
                side = channels.side(corner, most)
                if side is None:
                    raise Stuck("no size of kernels explains the kinks")
                kernels = Kernels(corner, side)
                corner.settled = kernels.changes
                return _Search(corner, kernels).found(more)
            except Changed:
                continue
            except Silent:
                why = why or "nothing changes on lines at the corner"
                break
            except Stuck as stuck:
                why = str(stuck)
    raise Stuck(f"Convolution {len(below) + 1}: {why or 'too much changes around the corner'}.")


def _drawn(
    log: Log, shape: Shape, below: Sequence[Layer], window: int, rng: np.random.Generator, last: int
) -> tuple[Corner, np.ndarray, np.ndarray]:
    """Surroundings in which channels jump in as many directions as may be, of a few drawn, and the
    window and direction of a line whose ends were asked.
    """
    best, chosen = -1, None
    for _ in range(SURROUNDINGS):
        corner = Corner(log, shape, below, window, rng, last)
        try:
            start = rng.standard_normal(len(corner.window)), corner.direction()
            line = corner.line(*start, STARTS[::2])
        except Changed:
            continue
        jump = line.points[-1].gradient - line.points[0].gradient
        size = np.linalg.svd(jump, compute_uv=False)
        rank = int(np.sum(size > STRONG * size[0])) if size[0] else 0
        if rank > best:
            best, chosen, corner.lines = rank, (corner, *start), []
        if not 0 < best < min(len(jump), ENOUGH):
            break
    if chosen is None:
        raise Changed
    if best == 0:  # as where the window is smaller than kernels are
        raise Silent
    return chosen


class Silent(Exception):
    """Nothing changes on lines at the corner."""


class _Search:
    """For the channels of a layer at a corner, until what was seen there is explained."""

    def __init__(self, corner: Corner, kernels: Kernels) -> None:
        self.corner, self.kernels, self.windows = corner, kernels, Windows(kernels)
        self.looks = 0  # bright windows that were explained

    def found(self, more: Callable[[Layer], Sequence[Reading]]) -> Layer:
        """The layer, once `more` has no readings that it does not explain."""
        for _ in range(BACK):
            layer = self.settled()
            readings = more(layer)
            if not readings:
                return layer
            if not self.shown(layer, readings):
                break
        raise Stuck("a channel is missing, and does not show at the corner")

    def settled(self) -> Layer:
        """The layer, once its channels are known and explain all that was seen at the corner."""
        corner = self.corner
        for number in range(LINES):
            if not self.kernels.solved() or not number:
                _searched(corner, *self.windows.unsettled())
            elif not self.kernels.explained() or not self.looked() or not self.told():
                _searched(corner, self.windows.doubted(), corner.direction())
            else:
                return self.kernels.layer()
        raise Stuck("some channels stay open, or are missing")

    def looked(self) -> bool:
        """Whether channels explain the Jacobian in bright windows too, asked one at a time: in many
        of these a channel is on, at one of the four positions, that is in hardly any other.
        """
        corner = self.corner
        for _ in range(self.looks, LOOKS):
            window = corner.rng.standard_normal(self.windows.cut) + self.windows.bright()
            try:
                corner.line(window.reshape(-1), corner.direction(), (0.0,))
            except Changed:
                continue
            if not self.kernels.explained():
                return False
            self.looks += 1
        return True

    def told(self) -> bool:
        """Whether the biases are told, with more lines where need be; not where one of these shows
        that a channel is missing.
        """
        for _ in range(LINES):
            rows, _ = self.kernels.equations()
            _, size, vt = np.linalg.svd(rows, full_matrices=True)
            size = np.append(size, np.zeros(len(vt) - len(size)))
            if size[-1] > WEAK * size[0]:
                return True
            loose = np.abs(vt[size <= WEAK * size[0]]).max(0) > WHOLE
            try:
                self.corner.line(*self.windows.telling(rows, np.flatnonzero(loose)))
            except Changed:
                continue
            if not self.kernels.explained():
                return False
        raise Stuck("some biases are not told")

    def shown(self, layer: Layer, readings: Sequence[Reading]) -> bool:
        """Search lines through windows in which a missing channel is on at position 0, until one
        shows it.
        """
        corner, count = self.corner, len(self.corner.names)
        layers = (*corner.below, layer)
        for of in corner.rng.permutation(len(readings))[:FEW]:
            image = readings[of].x.reshape(corner.shape)
            for place in reading.places(readings[of], layers, corner.shape):
                for _ in range(ANEW):
                    _searched(corner, self.windows.crop(image, *place), corner.direction())
                    if len(corner.names) > count:
                        return True
        return False


def _searched(corner: Corner, window: np.ndarray, along: np.ndarray) -> None:
    """Search a line; raises Changed where that is the first."""
    try:
        corner.search(window, along)
    except Changed:
        if not corner.kinks:
            raise
