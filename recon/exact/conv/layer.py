"""One convolution behind those known: its kernels, signs and biases, from lines at a corner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from recon.exact.conv import channels, known, reading, states
from recon.exact.conv.channels import Kernel
from recon.exact.conv.corner import STARTS, Changed, Changes, Corner, Point
from recon.exact.conv.known import Layer, Shape
from recon.exact.conv.reading import Reading
from recon.exact.conv.states import State
from recon.exact.deep.search import Log, Stuck

LINES = 40  # lines searched in one place, at most
BACK = 20  # returns to a layer that was taken for complete
ANEW = 3  # lines through a window in which a missing channel is on
FEW = 4  # readings looked at for one
STRONG, ENOUGH = 1e-3, 4  # of the largest jump; directions of jumps that are as good as more
UNREAD = 0.5  # of the points, at which channels may not be told apart
DRAWS, SURROUNDINGS = 6, 10  # attempts, and surroundings drawn for each
SCALES = (1.0, 2.0, 5.0, 0.5)  # of the pixels of windows
WHOLE = 1e-6  # of what is not told, in a bias that is
WEAK = 1e-5  # of the largest singular value: biases below are not told
BRIGHT, LOOKS = 100.0, 6  # how much brighter parts are; windows with some that are asked
DIMMED = (1.0, 1.0, 0.1, 0.01)  # of windows in which a channel is on
CANDIDATES = 100  # windows tried for a line that is to show what is open
GUESSES = 8  # at what is open, for what a line is to show
STEPS, STEERED = 60, 20  # to a window in which channels are off, and attempts
DOUBT = 0.5  # how often the other sign is tried, of a channel that is open
RAISED = 12  # windows in which channels are likely to be on
TURNS = 5  # windows tried around one in which a channel changed
OFF = 2.0  # how far below zero it is to be, biases apart
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
    why = ""
    sides = (len(below[-1].kernel), len(below[-1].kernel) + 2) if below else SIDES
    for most in sides:
        window = known.span(below, most + 1)
        if window + 2 ** len(below) > min(shape[:2]):
            break
        for _ in range(DRAWS):
            try:
                corner, *line = _drawn(log, shape, below, window, rng)
                return _Layer(corner, most).found(line, more)
            except Changed:
                continue
            except Silent:
                why = why or "nothing changes on lines at the corner"
                break
            except Stuck as stuck:
                why = str(stuck)
    raise Stuck(f"Convolution {len(below) + 1}: {why or 'too much changes around the corner'}.")


def _drawn(
    log: Log, shape: Shape, below: Sequence[Layer], window: int, rng: np.random.Generator
) -> tuple[Corner, np.ndarray, np.ndarray]:
    """Surroundings in which channels jump in as many directions as may be, of a few drawn, and the
    window and direction of a line whose ends were asked.
    """
    best, chosen = -1, None
    for _ in range(SURROUNDINGS):
        corner = Corner(log, shape, below, window, rng)
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


class _Layer:
    def __init__(self, corner: Corner, most: int) -> None:
        self.corner, self.most, self.side = corner, most, 0
        self.kernels: list[Kernel] = []
        self.signs = np.zeros(0)  # nan where they are not told
        self.votes = np.zeros(0)
        self.looks = 0  # bright windows that were explained
        self.doubts: list[Point] = []
        self.key: tuple[int, tuple[float, ...]] = (0, ())
        self.read: dict[int, State] = {}
        self.cut = (corner.side, corner.side, corner.shape[2])

    def found(
        self, line: Sequence[np.ndarray], more: Callable[[Layer], Sequence[Reading]]
    ) -> Layer:
        corner = self.corner
        self.search(*line)
        found = channels.side(corner, self.most)
        if found is None:
            raise Stuck("no size of kernels explains the kinks")
        self.side, corner.settled = found, self.changes
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
            if not self.solved() or not number:
                self.search(*self.chosen(self.changing(), [*self.hints(), *self.likely()]))
            elif not self.complete() or not self.looked() or not self.told():
                self.search(self.doubted(), corner.direction())
            else:
                size = self.side, self.side, -1, len(self.kernels)
                return Layer(self.weights.reshape(size), self.biases())
        raise Stuck("some channels stay open, or are missing")

    def looked(self) -> bool:
        """Whether channels explain the Jacobian in bright windows too, asked one at a time: in many
        of these a channel is on, at one of the four positions, that is in hardly any other.
        """
        corner = self.corner
        for _ in range(self.looks, LOOKS):
            window = (corner.rng.standard_normal(self.cut) + self.bright()).reshape(-1)
            try:
                corner.line(window, corner.direction(), (0.0,))
            except Changed:
                continue
            if not self.complete():
                return False
            self.looks += 1
        return True

    def crop(self, image: np.ndarray, i: int, j: int) -> np.ndarray:
        """A window [w] that begins at pixel (i, j) of an image [h, w, c], random beyond it."""
        old = image[i:, j:][: self.corner.side, : self.corner.side]
        new = np.median(np.abs(old)) * self.corner.rng.standard_normal(self.cut)
        new[: old.shape[0], : old.shape[1]] = old
        return new.reshape(-1)

    def doubted(self) -> np.ndarray:
        """A window in which a missing channel may be on at position 0, the one that moves: one in
        which one is on, moved by the position that it has there.

        Only position 0 sees the first pixels of the window, only it and one other those beside.  It
        may be dimmed, so that the line outshines it.
        """
        corner = self.corner
        point = self.doubts[corner.rng.integers(len(self.doubts))]
        step = 2 ** len(corner.below)
        weights, strengths = self.weights, self.strengths
        alone = np.arange(len(corner.far)).reshape(corner.shape)
        for down, right in product((0, step), repeat=2):
            block = alone[down : down + step, right : right + step].reshape(-1)
            if states.left(point, block, self.side, weights, strengths) > states.REST:
                break
        window = self.crop(point.x[corner.window].reshape(self.cut), down, right)
        return window * corner.rng.choice(DIMMED)

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
                    self.search(self.crop(image, *place), corner.direction())
                    if len(corner.names) > count:
                        return True
        return False

    def hints(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Lines like those on which channels that are open were seen to change."""
        corner, names = self.corner, np.flatnonzero(self.open)
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
        names = np.flatnonzero(self.open | ~np.isfinite(self.signs))[:RAISED]
        return [
            (self.raised(int(name), bool(i % 2)), self.corner.direction())
            for i in range(2)
            for name in np.resize(names, RAISED // 2 if len(names) else 0)
        ]

    def search(self, window: np.ndarray, along: np.ndarray) -> None:
        try:
            self.corner.search(window, along)
        except Changed:
            if not self.corner.kinks:
                raise

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

    @property
    def open(self) -> np.ndarray:
        """Which channels are not wholly known yet."""
        return np.array([kernel.open.shape[1] > 0 for kernel in self.kernels])

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

    def seen(self, window: np.ndarray) -> np.ndarray:
        """Inputs [4, n] of the corner pixel at these contents of the window [w]."""
        y = known.outputs(self.corner.below, window.reshape(self.cut))
        return np.asarray(y.reshape(-1)[known.windows(y.shape, self.side)[0, 0]])

    def chosen(
        self,
        worth: Callable[[np.ndarray, np.ndarray], float],
        others: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Window and direction of the line, of many drawn, that is worth most.

        worth: of the inputs [points, 4, n] and the sums [points, 4, channels], without signs, that
        are expected at its first points; others: windows and directions to be tried besides.
        """
        weights = np.array([kernel.weights for kernel in self.kernels]).T
        drawn = [(self.window(), self.corner.direction()) for _ in range(CANDIDATES)]
        best, chosen = -np.inf, drawn[0]
        for window, along in [*drawn, *others]:
            inputs = np.array([self.seen(window + t * along) for t in STARTS])
            value = worth(inputs, inputs @ weights)
            if value > best:
                best, chosen = value, (window, along)
        return chosen

    def steered(self, names: np.ndarray) -> np.ndarray:
        """A window in which these channels are off in the corner pixel, as many as may be."""
        corner = self.corner
        window = 2 * corner.rng.standard_normal(len(corner.window))
        weights = self.weights[:, names]
        for _ in range(STEPS):
            image = known.image(corner.below, self.cut, window)
            at = known.windows(image.y.shape, self.side)[0, 0]
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
        corner, window, sign = self.corner, self.window(), self.signs[name]
        if (self.open[name] and corner.rng.random() < DOUBT) or np.isnan(sign):
            sign = corner.rng.choice((-1.0, 1.0))
        weights = sign * self.kernels[name].weights
        for _ in range(STEPS):
            image = known.image(corner.below, self.cut, window)
            at = known.windows(image.y.shape, self.side)[0, 0]
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

    def changing(self) -> Callable[[np.ndarray, np.ndarray], float]:
        """What a line is worth: how many channels that are open, or of unknown sign, are to change,
        each times the share of what is open in it that lies on inputs which are on where it moves.
        The mean over guesses at what is open, as large as what is known.
        """
        rng, wanted = self.corner.rng, []
        for kernel, sign in zip(self.kernels, self.signs, strict=True):
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

    @property
    def weights(self) -> np.ndarray:
        """Signed, [n, o]."""
        return np.array([kernel.weights for kernel in self.kernels]).T * self.signs

    @property
    def strengths(self) -> np.ndarray:
        """What each channel adds to the Jacobian, [o, K]."""
        return np.array([kernel.strength for kernel in self.kernels]) * self.signs[:, None]

    def complete(self) -> bool:
        """Whether the channels explain the Jacobian at the corner, at every point asked."""
        corner, weights, strengths = self.corner, self.weights, self.strengths
        key = len(self.kernels), tuple(self.signs)
        if key != self.key:
            self.key, self.read = key, {}
        for point in (point for line in corner.lines for point in line.points):
            if id(point) not in self.read:
                self.read[id(point)] = states.read(corner, point, self.side, weights, strengths)
        self.states = [[self.read[id(p)] for p in line.points] for line in corner.lines]
        self.doubts = [
            point
            for line in corner.lines
            for point in line.points
            if self.read[id(point)].off > states.REST
        ]
        unread = np.mean([np.isnan(s.on).any() for line in self.states for s in line])
        if unread > UNREAD:
            raise Stuck("channels cannot be told apart by their rows at the corner")
        return not self.doubts

    def told(self) -> bool:
        """Whether the biases are told, with more lines where need be; not where one of these shows
        that a channel is missing.
        """
        for _ in range(LINES):
            rows, _ = self.equations()
            _, size, vt = np.linalg.svd(rows, full_matrices=True)
            size = np.append(size, np.zeros(len(vt) - len(size)))
            if size[-1] > WEAK * size[0]:
                return True
            loose = np.abs(vt[size <= WEAK * size[0]]).max(0) > WHOLE
            if self.telling(rows, np.flatnonzero(loose)) and not self.complete():
                return False
        raise Stuck("some biases are not told")

    def biases(self) -> np.ndarray:
        """Of each channel."""
        return np.asarray(np.linalg.lstsq(*self.equations(), rcond=None)[0])

    def equations(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the biases, from all lines at the corner."""
        return states.equations(self.corner.lines, self.states, self.strengths)

    def telling(self, rows: np.ndarray, loose: np.ndarray) -> bool:
        """Ask a line, of many drawn, that is to tell the most of the biases that are loose."""
        rng = self.corner.rng
        some = [rng.permutation(loose)[: rng.integers(len(loose)) + 1] for _ in range(STEERED)]
        drawn = [self.steered(names) for names in some]
        drawn += [self.raised(name, True) for name in np.resize(loose, RAISED)]
        windows = [(window, self.corner.direction()) for window in drawn]
        square = rows.T @ rows
        square = square + 1e-6 * np.trace(square) / len(square) * np.eye(len(square))

        def worth(_: np.ndarray, sums: np.ndarray) -> float:
            on = ((self.signs * sums).max(1) > 0).astype(float)
            more = np.concatenate([self.strengths.T * change for change in np.diff(on, axis=0)])
            return float(np.linalg.slogdet(square + more.T @ more)[1])

        try:
            self.corner.line(*self.chosen(worth, windows))
        except Changed:
            return False
        return True
