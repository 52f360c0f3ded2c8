"""One convolution behind those known: its kernels, signs and biases, from lines at a corner."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from recon.exact.conv import channels, known, states
from recon.exact.conv.channels import Kernel
from recon.exact.conv.corner import STARTS, Changed, Corner
from recon.exact.conv.known import Layer, Shape
from recon.exact.conv.reading import Reading
from recon.exact.conv.states import State
from recon.exact.deep.search import Log, Stuck

SILENT = 2  # lines in turn that show no new channel, before a layer is taken for complete
LINES = 60  # lines searched in one place, at most
BACK = 4  # returns to a layer that was taken for complete
STRONG, ENOUGH = 1e-3, 6  # of the largest jump; directions of jumps that are as good as more
UNREAD = 0.5  # of the points, at which channels may not be told apart
DRAWS = 6  # of surroundings
SCALES = (1.0, 2.0, 5.0, 0.5)  # of the pixels of windows
WHOLE = 1e-6  # of what is not told, in a bias that is
WEAK = 1e-5  # of the largest singular value: biases below are not told
CANDIDATES = 100  # windows tried for a line that is to show what is open
STEPS, TURNS = 60, 5  # to a window in which a channel is off, and attempts
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
                return _Layer(_drawn(log, shape, below, window, rng), most).found(more)
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
) -> Corner:
    """Surroundings in which channels jump in as many directions as may be, of a few drawn."""
    best, chosen = -1, None
    for _ in range(DRAWS):
        corner = Corner(log, shape, below, window, rng)
        try:
            line = corner.line(rng.standard_normal(len(corner.window)), corner.direction())
        except Changed:
            continue
        jump = line.points[-1].gradient - line.points[0].gradient
        size = np.linalg.svd(jump, compute_uv=False)
        rank = int(np.sum(size > STRONG * size[0])) if size[0] else 0
        if rank > best:
            best, chosen = rank, corner
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
        self.signs = np.zeros(0)
        self.doubt = np.zeros(0)
        self.key: tuple[int, tuple[float, ...]] = (0, ())
        self.read: dict[int, State] = {}
        self.cut = (corner.side, corner.side, corner.shape[2])

    def found(self, more: Callable[[Layer], Sequence[Reading]]) -> Layer:
        corner = self.corner
        self.search(corner.rng.standard_normal(len(corner.window)), corner.direction())
        found = channels.side(corner, self.most)
        if found is None:
            raise Stuck("no size of kernels explains the kinks")
        self.side = found
        for _ in range(BACK):
            layer = self.settled()
            readings = more(layer)
            if not readings:
                return layer
            count = len(corner.names)
            for of in readings:
                self.shown(of)
                if len(corner.names) > count:
                    break
            else:
                break
        raise Stuck("a channel is missing, and does not show at the corner")

    def settled(self) -> Layer:
        """The layer, once its channels are known and explain all that was seen at the corner."""
        corner, since = self.corner, 0
        for number in range(LINES):
            before = len(corner.names)
            if not self.solved() or since < SILENT:
                self.search(*self.chosen(self.open_changes, self.hints() if number % 2 else ()))
            elif not self.complete() or not self.told():
                self.search(self.shifted(self.doubt), corner.direction())
            else:
                size = self.side, self.side, -1, len(self.kernels)
                return Layer(self.weights.reshape(size), self.biases())
            since = since + 1 if len(corner.names) == before else 0
        raise Stuck("some channels stay open, or are missing")

    def shifted(self, window: np.ndarray) -> np.ndarray:
        """The window [w] as another of the four positions sees it, random where nothing is known:
        a channel that was on there may be on at position 0, which is the one that moves.
        """
        rng, step = self.corner.rng, 2 ** len(self.corner.below)
        down, right = step * rng.integers(2, size=2)
        new = np.median(np.abs(window)) * rng.standard_normal(self.cut)
        old = window.reshape(self.cut)[down:, right:]
        new[: old.shape[0], : old.shape[1]] = old
        return new.reshape(-1)

    def shown(self, of: Reading) -> None:
        """Search lines through what pixels of the layer see, until one shows a channel that is
        missing, first where the most of the Jacobian is left unexplained.
        """
        corner, count = self.corner, len(self.corner.names)
        step = 2 ** (len(corner.below) + 1)
        image, left = of.x.reshape(corner.shape), of.left.reshape(corner.shape) ** 2
        places = [
            (slice(i, i + corner.side), slice(j, j + corner.side))
            for i in range(0, image.shape[0] - corner.side + 1, step)
            for j in range(0, image.shape[1] - corner.side + 1, step)
        ]
        for place in sorted(places, key=lambda at: -float(left[at].sum())):
            self.search(image[place].reshape(-1), corner.direction())
            if len(corner.names) > count:
                return

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

    def search(self, window: np.ndarray, along: np.ndarray) -> None:
        try:
            self.corner.search(window, along)
        except Changed:
            if not self.corner.kinks:
                raise

    def solved(self) -> bool:
        """Whether the kinks tell all kernels of the channels met, and their signs."""
        corner, signs = self.corner, []
        for name in range(len(corner.names)):
            kinks = [kink for kink in corner.kinks if kink.name == name]
            earlier = self.kernels[name] if name < len(self.kernels) else None
            if earlier is None or earlier.open.shape[1]:
                kernel = channels.solved(kinks, corner, self.side)
                if kernel is None:
                    raise Stuck("kinks of one channel contradict each other")
                self.kernels[name : name + 1] = [kernel]
            weights = self.kernels[name].weights
            signs.append(channels.sign(weights, kinks, corner, self.side))
        self.signs = np.array([np.nan if sign is None else sign for sign in signs])
        return bool(np.isfinite(self.signs).all() and not self.open.any())

    @property
    def open(self) -> np.ndarray:
        """Which channels are not wholly known yet."""
        return np.array([kernel.open.shape[1] > 0 for kernel in self.kernels])

    def window(self) -> np.ndarray:
        """Random contents: noise on a slope, so that means differ between windows and in them."""
        rng, (side, _, channels) = self.corner.rng, self.cut
        steps = np.linspace(-1, 1, side)
        base, down, right = rng.standard_normal((3, channels)) * rng.choice((0.0, 1.0, 2.0))
        plane = base + down * steps[:, None, None] + right * steps[None, :, None]
        noise = rng.standard_normal(self.cut)
        return np.asarray(rng.choice(SCALES) * (plane + noise)).reshape(-1)

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

    def steered(self, channel: int) -> np.ndarray | None:
        """A window in which the channel is off in the corner pixel; None where none is found."""
        corner, sign = self.corner, self.signs[channel]
        window = 2 * corner.rng.standard_normal(len(corner.window))
        weights = sign * self.kernels[channel].weights
        for _ in range(STEPS):
            image = known.image(corner.below, self.cut, window)
            at = known.windows(image.y.shape, self.side)[0, 0]
            sums = image.y.reshape(-1)[at] @ weights
            if sums.max() < -OFF:
                return window
            slope = image.rows[at[sums.argmax()]].T @ weights
            square = float(slope @ slope)
            if square == 0:
                return None
            window = window - slope * (sums.max() + 2 * OFF) / square
        return None

    def open_changes(self, inputs: np.ndarray, sums: np.ndarray) -> float:
        """How many channels that are open, or of unknown sign, are to change, each times the share
        of what is open in it that lies on inputs which are on where it moves.
        """
        (wanted,) = np.nonzero(self.open | ~np.isfinite(self.signs))
        if not len(wanted):
            return 0.0
        on = (inputs[:, 0] > 0).all(0).astype(float)
        share = [
            on @ (k.open**2).sum(1) / k.open.shape[1] if k.open.size else 1.0 for k in self.kernels
        ]
        changes = 0.0
        for sign in (1, -1):
            top = sign * sums[:, :, wanted]
            state = np.where(top.max(1) > 0, top.argmax(1), 4)
            moved = (state[1:] != state[:-1]) & ((state[1:] == 0) | (state[:-1] == 0))
            changes += float(moved.any(0) @ np.array(share)[wanted])
        return changes

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
        doubts = [
            point.x[corner.window]
            for line in corner.lines
            for point in line.points
            if self.read[id(point)].off > states.REST
        ]
        unread = np.mean([np.isnan(s.on).any() for line in self.states for s in line])
        if unread > UNREAD:
            raise Stuck("channels cannot be told apart by their rows at the corner")
        if doubts:
            self.doubt = doubts[corner.rng.integers(len(doubts))]
        return not doubts

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
        steered = [self.steered(channel) for channel in loose for _ in range(TURNS)]
        windows = [(a, self.corner.direction()) for a in steered if a is not None]
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
