"""Which line to ask next at a corner: what its window holds, drawn, steered, or of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from recon.exact.conv import known, states
from recon.exact.conv.corner import STARTS
from recon.exact.conv.kernels import Kernels

SCALES = (1.0, 2.0, 5.0, 0.5)  # of the pixels of windows
BRIGHT = 100.0  # how much brighter parts are
DIMMED = (1.0, 1.0, 0.1, 0.01)  # of windows in which a channel is on
CANDIDATES = 100  # windows tried for a line that is to show what is open
GUESSES = 8  # at what is open, for what a line is to show
STEPS, STEERED = 60, 20  # to a window in which channels are off, and attempts
DOUBT = 0.5  # how often the other sign is tried, of a channel that is open
RAISED = 12  # windows in which channels are likely to be on
TURNS = 5  # windows tried around one in which a channel changed
OFF = 2.0  # how far below zero it is to be, biases apart


class Windows:
    """Of a corner, for what is known of the layer's kernels there."""

    def __init__(self, of: Kernels) -> None:
        self.of, self.corner = of, of.corner
        self.cut = (self.corner.side, self.corner.side, self.corner.shape[2])

    def unsettled(self) -> tuple[np.ndarray, np.ndarray]:
        """A line that is to show the most of the kernels that are open, and of unknown signs."""
        return self.chosen(self.changing(), [*self.hints(), *self.likely()])

    def telling(self, rows: np.ndarray, loose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One that is to tell the most of the biases that are loose (numbers), beside equations
        rows [m, o].
        """
        rng = self.corner.rng
        some = [rng.permutation(loose)[: rng.integers(len(loose)) + 1] for _ in range(STEERED)]
        drawn = [self.steered(names) for names in some]
        drawn += [self.raised(name, True) for name in np.resize(loose, RAISED)]
        windows = [(window, self.corner.direction()) for window in drawn]
        square = rows.T @ rows
        square = square + 1e-6 * np.trace(square) / len(square) * np.eye(len(square))

        def worth(_: np.ndarray, sums: np.ndarray) -> float:
            on = ((self.of.signs * sums).max(1) > 0).astype(float)
            more = np.concatenate([self.of.strengths.T * change for change in np.diff(on, axis=0)])
            return float(np.linalg.slogdet(square + more.T @ more)[1])

        return self.chosen(worth, windows)

    def seen(self, window: np.ndarray) -> np.ndarray:
        """Inputs [4, n] of the corner pixel at these contents of the window [w]."""
        y = known.outputs(self.corner.below, window.reshape(self.cut))
        return np.asarray(y.reshape(-1)[known.windows(y.shape, self.of.side)[0, 0]])

    def chosen(
        self,
        worth: Callable[[np.ndarray, np.ndarray], float],
        others: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Window and direction of the line, of many drawn, that is worth most.

        worth: of the inputs [points, 4, n] and the sums [points, 4, channels], without signs, that
        are expected at its first points; others: windows and directions to be tried besides.
        """
        weights = np.array([kernel.weights for kernel in self.of.kernels]).T
        drawn = [(self.window(), self.corner.direction()) for _ in range(CANDIDATES)]
        best, chosen = -np.inf, drawn[0]
        for window, along in [*drawn, *others]:
            inputs = np.array([self.seen(window + t * along) for t in STARTS])
            value = worth(inputs, inputs @ weights)
            if value > best:
                best, chosen = value, (window, along)
        return chosen

    def window(self) -> np.ndarray:
        """Random contents: noise on a slope, so that means differ between windows and in them; in
        every other a part is bright, so that signs of sums are those of few weights.
        """
        rng, (side, _, channels) = self.corner.rng, self.cut
        steps = np.linspace(-1, 1, side)
        base, down, right = rng.standard_normal((3, channels)) * rng.choice((0.0, 1.0, 2.0))
        plane = base + down * steps[:, None, None] + right * steps[None, :, None]
        noise = rng.standard_normal(self.cut)
        window = rng.choice(SCALES) * (plane + noise)
        if rng.integers(2):
            window = window + self.bright()
        return np.asarray(window).reshape(-1)

    def bright(self) -> np.ndarray:
        """Noise in a part of a window [h, w, c] that is far larger than elsewhere."""
        rng, side = self.corner.rng, self.corner.side
        part = rng.integers(1, side // 2)
        i, j = rng.integers(side - part + 1, size=2)
        found = np.zeros(self.cut)
        found[i : i + part, j : j + part] = BRIGHT * rng.standard_normal((part, part, 1))
        return found

    def crop(self, image: np.ndarray, i: int, j: int) -> np.ndarray:
        """A window [w] that begins at pixel (i, j) of an image [h, w, c], random beyond it."""
        old = image[i:, j:][: self.corner.side, : self.corner.side]
        new = np.median(np.abs(old)) * self.corner.rng.standard_normal(self.cut)
        new[: old.shape[0], : old.shape[1]] = old
        return new.reshape(-1)

    def hints(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Lines like those on which channels that are open were seen to change."""
        corner, names = self.corner, np.flatnonzero(self.of.open)
        seen = [kink for kink in corner.kinks if kink.name in names]
        found = []
        for kink in seen[:: max(1, len(seen) // CANDIDATES)] * TURNS:
            left, right = kink.left, kink.right
            v = (right.x - left.x) / (right.t - left.t)
            window, along = (left.x - left.t * v)[corner.window], v[corner.window]
            by = corner.rng.choice((0.1, 0.3, 1.0)) * np.median(np.abs(window))
            found.append((window + by * corner.rng.standard_normal(len(window)), along))
        return found

    def likely(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Lines on which channels that are open are likely to change."""
        names = np.flatnonzero(self.of.open | ~np.isfinite(self.of.signs))[:RAISED]
        return [
            (self.raised(int(name), bool(i % 2)), self.corner.direction())
            for i in range(2)
            for name in np.resize(names, RAISED // 2 if len(names) else 0)
        ]

    def changing(self) -> Callable[[np.ndarray, np.ndarray], float]:
        """What a line is worth: how many channels that are open, or of unknown sign, are to change,
        each times the share of what is open in it that lies on inputs which are on where it moves.
        The mean over guesses at what is open, as large as what is known.
        """
        rng, wanted = self.corner.rng, []
        for kernel, sign in zip(self.of.kernels, self.of.signs, strict=True):
            size, count = kernel.open.shape
            if count or np.isnan(sign):
                open_ = kernel.open @ rng.standard_normal((count, GUESSES))
                guesses = kernel.weights[:, None] + open_ / max(size - count, 1) ** 0.5
                both = np.hstack([guesses, -guesses])
                weight = (kernel.open**2).sum(1) / count if count else np.full(size, 1 / size)
                wanted.append((both, weight))

        def worth(inputs: np.ndarray, _: np.ndarray) -> float:
            on = (inputs[:, 0] > 0).all(0).astype(float)
            changes = 0.0
            for guesses, weight in wanted:
                top = inputs @ guesses
                state = np.where(top.max(1) > 0, top.argmax(1), 4)
                moved = (state[1:] != state[:-1]) & ((state[1:] == 0) | (state[:-1] == 0))
                changes += float(on @ weight) * float(moved.any(0).mean())
            return changes

        return worth

    def steered(self, names: np.ndarray) -> np.ndarray:
        """A window in which these channels are off in the corner pixel, as many as may be."""
        corner = self.corner
        window = 2 * corner.rng.standard_normal(len(corner.window))
        weights = self.of.weights[:, names]
        for _ in range(STEPS):
            image = known.image(corner.below, self.cut, window)
            at = known.windows(image.y.shape, self.of.side)[0, 0]
            sums = image.y.reshape(-1)[at] @ weights
            (bad,) = np.nonzero(sums.max(0) > -OFF)
            if not len(bad):
                break
            step = np.zeros(len(window))
            for name in bad:
                slope = image.rows[at[sums[:, name].argmax()]].T @ weights[:, name]
                lacks = sums[:, name].max() + 2 * OFF
                step -= slope * lacks / max(float(slope @ slope), 1e-9) / len(bad)
            window = window + step
        return window

    def raised(self, name: int, alone: bool) -> np.ndarray:
        """A window in which position 0 of a channel is on, and the largest, or the only one that is
        on, as far as is known.
        """
        corner, window, sign = self.corner, self.window(), self.of.signs[name]
        if (self.of.open[name] and corner.rng.random() < DOUBT) or np.isnan(sign):
            sign = corner.rng.choice((-1.0, 1.0))
        weights = sign * self.of.kernels[name].weights
        for _ in range(STEPS):
            image = known.image(corner.below, self.cut, window)
            at = known.windows(image.y.shape, self.of.side)[0, 0]
            sums = image.y.reshape(-1)[at] @ weights
            rival = 1 + int(sums[1:].argmax())
            most = -OFF if alone else sums[0] - OFF
            if sums[0] > OFF and sums[rival] < most:
                break
            slope, lacks = image.rows[at[0]].T @ weights, OFF - sums[0]
            if lacks < 0:
                slope, lacks = -(image.rows[at[rival]].T @ weights), sums[rival] - most
            window = window + slope * (lacks + OFF) / max(float(slope @ slope), 1e-9)
        return window

    def doubted(self) -> np.ndarray:
        """A window in which a missing channel may be on at position 0, the one that moves: one in
        which one is on, moved by the position that it has there.

        Only position 0 sees the first pixels of the window, only it and one other those beside.  It
        may be dimmed, so that the line outshines it.
        """
        corner = self.corner
        point = self.of.doubts[corner.rng.integers(len(self.of.doubts))]
        step = 2 ** len(corner.below)
        weights, strengths = self.of.weights, self.of.strengths
        alone = np.arange(len(corner.far)).reshape(corner.shape)
        for down, right in product((0, step), repeat=2):
            block = alone[down : down + step, right : right + step].reshape(-1)
            if states.left(point, block, self.of.side, weights, strengths) > states.REST:
                break
        window = self.crop(point.x[corner.window].reshape(self.cut), down, right)
        return window * corner.rng.choice(DIMMED)
