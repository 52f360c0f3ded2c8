"""What is known of the dense layer with ReLU behind known convolutions, and of the output.

f = V max(U y + c, 0) + P y + e in the features y, which are known everywhere, as are the columns of
M = df/dy that are on.  Of readings that are explained it is known which units are on.  A further
one is explained by the jump from one of these, or from what is made of it so far (`jumps`): units
that differ, or a new one.  Where no jump tells, the middle between two points is asked.  All else
is linear: rows (`rows`), and biases with those of the convolutions, from f - J x.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from recon.exact.conv import jumps, orient, reading, rows
from recon.exact.conv.jumps import Change, Jump
from recon.exact.conv.known import Layer, Shape
from recon.exact.conv.reading import Reading
from recon.exact.deep.log import Log
from recon.exact.deep.search import Stuck

CLOSE = 1e-7  # relative: points that are not parted further
TOLD = 1e-5  # of what is open in a feature, that a point may ask for
AGREE = 1e-7  # of M, that equations may contradict each other by
SPLITS = 300  # middles asked, at most
SWEEPS, BEYOND = 100, 1.2  # over states that open weights contradict; how far they are moved


class Head:
    """all: readings; seen: numbers of those explained, and `states` [h] of them; names [h, K]."""

    def __init__(self, log: Log, layers: Sequence[Layer], shape: Shape, outputs: int) -> None:
        self.log, self.layers, self.shape = log, layers, shape
        self.all: list[Reading] = []
        self.seen: list[int] = []
        self.states: list[np.ndarray] = []
        self.names = np.zeros((0, outputs))
        self.basis = np.eye(outputs)  # of the linear part
        self.halved: set[tuple[int, int]] = set()  # pairs whose middle was asked
        self.jump = lru_cache(maxsize=None)(
            lambda left, right: jumps.between(self.all[left], self.all[right])
        )
        self.equations: rows.Equations | None = None
        self.used = 0  # readings that are in the equations
        self.rows: rows.Rows

    def take(self, x: np.ndarray) -> None:
        """Explain the replies at x [n, d], with further queries where need be."""
        waiting = self.read(x)
        if not self.seen and waiting:
            self.note(waiting.pop(0), np.zeros(0, bool))
        while waiting:
            done = [number for number in waiting if self.explain(number)]
            waiting = [number for number in waiting if number not in done]
            if not done and waiting and not self.named(waiting):
                middle = self.middle(waiting)
                if middle is None:
                    return
                waiting += self.read(middle[None])

    def read(self, x: np.ndarray) -> list[int]:
        """Numbers of the readings at x [n, d] that the convolutions explain."""
        found = [
            of
            for of in reading.read(self.layers, self.shape, x, self.log(x))
            if of.off < reading.LEFT and of.slope.any()
        ]
        self.all += found
        return [*range(len(self.all) - len(found), len(self.all))]

    def note(self, number: int, state: np.ndarray) -> None:
        self.seen.append(number)
        self.states.append(state)

    def grow(self, name: np.ndarray) -> None:
        """One more unit, which did not change so far: it may have been on everywhere."""
        self.names = np.concatenate([self.names, name[None]])
        self.states = [np.append(state, False) for state in self.states]
        self.basis = orient.spanned(np.hstack([self.basis, name[:, None]]))

    def explain(self, number: int) -> bool:
        """Whether a reading is explained by those that were."""
        of = self.all[number]
        scale = float(np.linalg.norm(of.slope))
        known = np.full((len(self.names), len(of.y)), np.nan)
        if self.equations is not None:
            known[: len(self.rows.rows)] = self.rows.rows
        found = [self.jump(left, number) for left in self.seen]
        order = sorted((j.span.shape[1], i) for i, j in enumerate(found) if j.span is not None)
        for _, i in order:
            change = jumps.explained(found[i], self.names, known, self.states[i], scale)
            if change is not None:
                self.apply(number, self.states[i], change)
                return True
        if not len(self.names):
            return False
        self.solve()
        state = self.predicted(of.y)
        jump = self.imagined(of, state)
        change = jumps.explained(jump, self.names, self.rows.rows, state, scale)
        if change is not None:
            self.apply(number, state, change)
        return change is not None

    def apply(self, number: int, state: np.ndarray, change: Change) -> None:
        state = state.copy()
        state[list(change.units)] ^= True
        if change.new is not None:
            self.grow(change.new)
            state = np.append(state, True)
        self.note(number, state)

    def imagined(self, of: Reading, state: np.ndarray) -> Jump:
        """From what is made of a point so far, where that is told."""
        (on,) = np.nonzero(of.y > 0)
        parts = rows.parts(self.basis, self.names, state[None])[0]
        on = on[np.linalg.norm(parts @ self.rows.open[on], axis=(1, 2)) < TOLD]
        made = self.rows.least_slope[:, on] + (self.names[state].T @ self.rows.least[state][:, on])
        return jumps.jump(on, of.slope[:, on] - made, float(np.linalg.norm(of.slope)))

    def named(self, waiting: Sequence[int]) -> bool:
        """Whether a new unit is told by two jumps."""
        pairs = {(min(a, b), max(a, b)) for a in waiting for b in [*self.seen, *waiting] if a != b}
        spans = [self.jump(*pair).span for pair in pairs]
        new = [s for s in spans if s is not None and len(jumps.inside(self.names, s)) < s.shape[1]]
        name = jumps.shared(new, self.names)
        if name is not None:
            self.grow(name)
        return name is not None

    def middle(self, waiting: Sequence[int]) -> np.ndarray | None:
        """Between a reading that is explained and one that is not, of those that differ by the
        fewest units that are not known; None where all are close.
        """
        best, pair = np.inf, None
        for right in waiting:
            for left in self.seen:
                a, b = self.all[left].x, self.all[right].x
                apart = float(np.linalg.norm(a - b) / (np.linalg.norm(a) + np.linalg.norm(b)))
                if apart < CLOSE or (left, right) in self.halved:
                    continue
                span = self.jump(left, right).span
                count = self.names.shape[1]
                if span is not None:
                    count = span.shape[1] - len(jumps.inside(self.names, span))
                if count + apart / 2 < best:
                    best, pair = count + apart / 2, (left, right)
        if pair is None:
            return None
        self.halved.add(pair)
        if len(self.halved) > SPLITS:
            raise Stuck("Units of the dense layer cannot be told apart.")
        return np.asarray(self.all[pair[0]].x + self.all[pair[1]].x) / 2

    def orient(self) -> None:
        """Flip units that are taken for on where they are off, where that is told."""
        self.solve()
        found = orient.sides(self.names, self.rows.slope, self.rows.rows)
        if found is not None and found.basis.shape[1] < self.basis.shape[1]:
            self.states = [state ^ found.flip for state in self.states]
            self.basis, self.used = found.basis, 0
            self.equations = None
            self.solve()

    def solve(self) -> None:
        """Rows and biases from the readings that are explained, if they are not yet."""
        size = self.basis.shape[1], len(self.names)
        of = self.equations
        if of is not None and self.used == len(self.seen) and of.size == size:
            return
        if of is None or of.size[0] != size[0]:
            of, self.used = rows.Equations(len(self.all[0].y), self.basis, size[1]), 0
        of.grow(size[1] - of.size[1])
        for number, state in [*zip(self.seen, self.states, strict=True)][self.used :]:
            of.add(self.names, state, self.all[number].y, self.all[number].slope)
        self.equations, self.used = of, len(self.seen)
        if of.left.max() > AGREE * max(np.linalg.norm(self.all[i].slope) for i in self.seen):
            raise Stuck("The dense layer's equations contradict each other.")
        self.rows = of.solved()
        self.biases()
        self.meet()

    def biases(self) -> None:
        """Those of the units and of the output, and what those of the convolutions lack."""
        outputs = self.names.shape[1]
        bias = np.concatenate([layer.bias for layer in self.layers])
        states = np.array(self.states)
        shift = np.concatenate([self.all[i].shift for i in self.seen])
        right = np.concatenate([self.all[i].rest for i in self.seen]) - shift @ bias
        own = np.concatenate(rows.parts(np.eye(outputs), self.names, states))
        u, size, vt = np.linalg.svd(own, full_matrices=False)
        told = size > 1e-10 * size[0]
        u, inverse = u[:, told], vt[told].T / size[told]
        alone = shift - u @ (u.T @ shift)  # what units' biases do not explain as well
        self.correction = np.linalg.lstsq(alone, right - u @ (u.T @ right), rcond=1e-8)[0]
        solution = inverse @ (u.T @ (right - shift @ self.correction))
        self.offset, self.bias = solution[:outputs], solution[outputs:]
        y = np.array([self.all[i].y for i in self.seen])
        z = y @ self.rows.least.T + self.bias
        self.sign = np.where(((z > 0) == states).mean(0) >= 0.5, 1.0, -1.0)

    def meet(self) -> None:
        """Choose weights that are open so that units are on where they were seen to be."""
        slope, least = self.rows.least_slope, self.rows.least  # changed in place
        y = np.array([self.all[i].y for i in self.seen])
        a, side = self.basis.shape[1], np.where(np.array(self.states), 1.0, -1.0)
        for _ in range(SWEEPS):
            z = self.sign * side * (y @ self.rows.least.T + self.bias)
            bad = np.argwhere(z <= 0)
            for i, j in bad:
                free = self.rows.open[:, :, a + j]
                use = (free[:, a + j] > TOLD) & (y[i] > 0)
                lacks = y[i] @ least[j] + self.bias[j]
                if not use.any() or lacks * self.sign[j] * side[i, j] > 0:
                    continue
                move = np.where(use, y[i], 0.0) * (-BEYOND * lacks / (y[i, use] @ y[i, use]))
                step = (move / np.where(use, free[:, a + j], 1.0))[:, None] * free
                slope += self.basis @ step[:, :a].T
                least += step[:, a:].T
            if not len(bad):
                return

    def predicted(self, y: np.ndarray) -> np.ndarray:
        """Which units are on, [..., h] for features y [..., f]."""
        return np.asarray(self.sign * (y @ self.rows.least.T + self.bias) > 0)
