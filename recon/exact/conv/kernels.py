"""What the lines at a corner tell of a layer: its kernels, their signs, and equations of biases."""

from __future__ import annotations

import numpy as np

from recon.exact.conv import channels, known, states
from recon.exact.conv.channels import Kernel
from recon.exact.conv.corner import Changes, Corner, Point
from recon.exact.conv.known import Layer
from recon.exact.conv.states import State
from recon.exact.deep.search import Stuck

UNREAD = 0.5  # of the points, at which channels may not be told apart


class Kernels:
    """Of the channels met at a corner, in the order of its names.

    side: of the kernels; votes [o]: what kinks say of their signs (`channels.sign`); signs [o], nan
    where they do not.  `explained` fills in states, of each point on each line, and doubts, the
    points that the channels do not explain.
    """

    def __init__(self, corner: Corner, side: int) -> None:
        self.corner, self.side = corner, side
        self.kernels: list[Kernel] = []
        self.votes = self.signs = np.zeros(0)
        self.states: list[list[State]] = []
        self.doubts: list[Point] = []
        self._key: tuple[int, tuple[float, ...]] = (0, ())
        self._read: dict[int, State] = {}

    @property
    def open(self) -> np.ndarray:
        """Which channels are not wholly known yet."""
        return np.array([kernel.open.shape[1] > 0 for kernel in self.kernels])

    @property
    def weights(self) -> np.ndarray:
        """Signed, [n, o]."""
        return np.array([kernel.weights for kernel in self.kernels]).T * self.signs

    @property
    def strengths(self) -> np.ndarray:
        """What each channel adds to the Jacobian, [o, K]."""
        return np.array([kernel.strength for kernel in self.kernels]) * self.signs[:, None]

    def solved(self) -> bool:
        """Whether the kinks tell all kernels of the channels met, and their signs."""
        corner, votes = self.corner, []
        for name in range(len(corner.names)):
            if self.known(name):
                votes.append(self.votes[name])
                continue
            kinks = [kink for kink in corner.kinks if kink.name == name]
            earlier = self.kernels[name] if name < len(self.kernels) else None
            if earlier is None or earlier.open.shape[1]:
                kernel = channels.solved(kinks, corner, self.side)
                if kernel is None:
                    raise Stuck("kinks of one channel contradict each other")
                self.kernels[name : name + 1] = [kernel]
            weights = self.kernels[name].weights
            votes.append(channels.sign(weights, kinks, corner, self.side))
        self.votes = np.array(votes)
        self.signs = np.where(self.votes == 0, np.nan, np.sign(self.votes))
        return bool(np.isfinite(self.signs).all() and not self.open.any())

    def known(self, name: int) -> bool:
        """Whether a channel is, wholly, its sign for sure."""
        if name >= min(len(self.votes), len(self.kernels)):
            return False
        return bool(abs(self.votes[name]) >= 1 and not self.kernels[name].open.shape[1])

    def changes(self, left: Point, right: Point) -> Changes:
        """What known channels may change by between points of a line: row of position 0, where it
        is the largest at one of them, and of its rival at the other.
        """
        names = [name for name in range(len(self.kernels)) if self.known(name)]
        kernels, signs = [self.kernels[name] for name in names], self.signs[names]
        at = known.windows(left.image.y.shape, self.side)[0, 0]
        weights = np.array([kernel.weights for kernel in kernels]).reshape(-1, at.shape[-1]).T
        one, other = (
            (signs * (point.image.y.reshape(-1)[at] @ weights)).argmax(0) for point in (left, right)
        )
        found = []
        for i, kernel in enumerate(kernels):
            point, rival = (left, other[i]) if one[i] == 0 else (right, one[i])
            if one[i] == 0 or other[i] == 0:
                for position in {0, int(rival)}:
                    row = point.image.rows[at[position]].T @ kernel.weights
                    found.append((kernel.strength, row[self.corner.window]))
        return found

    def explained(self) -> bool:
        """Whether the channels explain the Jacobian at the corner, at every point asked."""
        corner, weights, strengths = self.corner, self.weights, self.strengths
        key = len(self.kernels), tuple(self.signs)
        if key != self._key:
            self._key, self._read = key, {}
        for point in (point for line in corner.lines for point in line.points):
            if id(point) not in self._read:
                self._read[id(point)] = states.read(corner, point, self.side, weights, strengths)
        self.states = [[self._read[id(p)] for p in line.points] for line in corner.lines]
        self.doubts = [
            point
            for line in corner.lines
            for point in line.points
            if self._read[id(point)].off > states.REST
        ]
        unread = np.mean([np.isnan(s.on).any() for line in self.states for s in line])
        if unread > UNREAD:
            raise Stuck("channels cannot be told apart by their rows at the corner")
        return not self.doubts

    def equations(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the biases, from all lines at the corner."""
        return states.equations(self.corner.lines, self.states, self.strengths)

    def layer(self) -> Layer:
        """Kernels, and biases as far as they are told."""
        size = self.side, self.side, -1, len(self.kernels)
        bias = np.linalg.lstsq(*self.equations(), rcond=None)[0]
        return Layer(self.weights.reshape(size), np.asarray(bias))
