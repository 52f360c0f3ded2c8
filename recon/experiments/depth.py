"""Deep networks recovered exactly: the paper's open question, by shape and depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from recon import cells, data, exact, oracles, victims, workers
from recon.experiments import convolutional
from recon.experiments.common import Measured, Row, columns, timed
from recon.experiments.convolutional import PAPER, WRONG, Cell, Sizes, answer
from recon.networks import Deep
from recon.victims import Training, random_deep

# Queries of an attack from predictions alone, Carlini, Jagielski and Mironov (2020): of their code,
# measured on two cores, and of their paper, where it says 2^18.5 and 2^21.5.
PREDICTIONS = {
    "10-10-10-1": 42_595,
    "10-15-15-1": 90_696,
    "10-20-20-1": 200_566,
    "80-40-20-1": round(2**18.5),
    "784-128-1": round(2**21.5),
}
CODE = (*convolutional.CODE, "experiments/depth.py")


class Shape(NamedTuple):
    """Sizes (d, h_1, ..., K) of victims, how many, what they are trained on, if anything, or their
    kind (`victims.UNUSUAL`); more: other sizes, in turn with these; dtype: of their answers.
    """

    sizes: tuple[int, ...]
    runs: int = 20
    images: str = ""
    kind: str = ""
    more: tuple[tuple[int, ...], ...] = ()
    dtype: str = "float64"

    @property
    def label(self) -> str:
        """What victims are, in a word or two."""
        single = " float32" if self.dtype == "float32" else ""
        return (self.images or self.kind or "random") + single

    def of(self, run: int) -> tuple[int, ...]:
        """The sizes of a victim."""
        return (self.sizes, *self.more)[run % (1 + len(self.more))]


def law(depth: int, width: int) -> Shape:
    """Hidden layers of `width` units, each half as wide as the one before; twice as many inputs."""
    hidden = [max(width >> level, 4) for level in range(depth)]
    return Shape((2 * width, *hidden, 10), 5)


SHAPES = (
    Shape((80, 40, 20, 2), 100),
    Shape((784, 64, 32, 10)),
    Shape((100, 64, 64, 10)),
    Shape((40, 20, 10, 10, 3)),
    Shape((60, 40, 20, 10, 2)),
    Shape((100, 60, 30, 15, 4)),
    Shape((80, 40, 20, 10, 5, 3)),
    Shape((128, 96, 64, 48, 32, 10)),
    Shape((10, 20, 20, 3)),
    Shape((20, 40, 20, 3)),
    Shape((10, 40, 20, 3)),
    Shape((10, 10, 10, 1)),
    Shape((10, 15, 15, 1)),
    Shape((10, 20, 20, 1)),
    Shape((80, 40, 20, 1)),
    Shape((40, 20, 10, 10, 1)),
    Shape((784, 64, 32, 1)),
    Shape((784, 128, 1), 5),
    Shape((64, 64, 32, 10), 10, "digits"),
    Shape((64, 48, 32, 16, 10), 3, "digits"),
    Shape((64, 64, 32, 10), 10, "digits", dtype="float32"),
    Shape((784, 128, 64, 10), 5, "mnist"),
    Shape((784, 128, 64, 10), 5, "mnist", dtype="float32"),
    Shape((784, 256, 128, 64, 10), 1, "mnist"),
)
CONVOLUTIONAL = ((PAPER, "", 20), (PAPER, "mnist", 20))
MIXED = (
    (40, 20, 10, 10, 3),
    (60, 40, 20, 10, 2),
    (10, 20, 20, 3),
    (20, 40, 20, 3),
    (10, 40, 20, 3),
    (10, 10, 10, 1),
    (80, 40, 20, 1),
    (40, 20, 10, 10, 1),
    (64, 32, 16, 10),
)
EACH = 400  # victims of each kind
UNUSUAL = tuple(Shape((80, 40, 20, 2), EACH, "", kind, MIXED) for kind in victims.UNUSUAL)
LAW = tuple(law(depth, width) for depth in (1, 2, 3) for width in (16, 32, 64, 128))


def _answer(victim: Deep, dtype: str, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """What a victim shows at x [n, d]."""
    return tuple(part.astype(dtype) for part in answer(victim, x))


@dataclass(frozen=True)
class Depth(Measured):
    """Deep networks, exactly: queries a hidden unit for two hidden layers and more.

    Claim:   "does our theoretical result extend to depth-3 networks? ... a k-layer ReLU network
             with h units at each layer from only O~(kh) queries?" (section 1.1, open).
    Time:    130 minutes on 1 CPU core, 60 of them for convolutional networks.
    Expect:  two hidden layers in 2 to 3 queries a unit from two outputs on, three in 3 to 6,
             four in 5 to 9, where wide ones are not always found; 4 to 7 where the first layer is
             two or four times as wide as the input; of one output in 4 to 11; errors of 1e-12; none
             with `ok` wrong on more inputs than its certificate says.  Convolutional networks: both
             convolutions in some 200 queries, and a whole network in 260 to 760 that is wrong on a
             few inputs in a hundred or fewer.

    The victim answers on the host, in float64 but where it says float32; depth and widths are not
    told.  exact: `ok`, and within 1e-6 of the victim on all of 10,000 N(0, I) inputs (relative to
    the rms; the error of these is worst_error) and the test images of trained ones; beyond: `ok`,
    and wrong on more of the inputs than `Recovery.share` says.  Queries and seconds are means;
    predictions: what an attack that sees no gradients asks in all (PREDICTIONS).

    Kinds of `victims.UNUSUAL` are of mixed sizes (MIXED).  The last rows are of convolutional
    networks with two max-pools, the trained ones with 1,000 images of the attacker's; a channel
    counts as a unit.  convolutions: victims of which both came out (kernel_error: the most that an
    entry of their kernels is off by), in conv_queries on average; agreement: of labels of the test
    images, the least over trained victims that are `ok`.
    """

    shown: ClassVar[tuple[str, ...]] = columns(
        "victim sizes hidden runs ok exact beyond queries_per_unit queries_per_unit_max "
        "median_error worst_error predictions seconds convolutions kernel_error conv_queries "
        "conv_queries_max agreement"
    )
    shapes: tuple[Shape, ...] = (*SHAPES, *UNUSUAL, *LAW)
    convolutional: tuple[tuple[Sizes, str, int], ...] = CONVOLUTIONAL  # images, victims
    steps: int = 4_000
    conv_steps: int = 1_000
    inputs: int = 1_000
    points: int = 10_000
    seed: int = 0

    def small(self) -> Depth:
        """Two narrow shapes, and one trained on digits."""
        few = [Shape((12, 8, 6, 3), 2), Shape((8, 6, 4, 1), 1), Shape((64, 8, 6, 10), 1, "digits")]
        pooled = ((Sizes((18, 18, 1), ((3, 3), (3, 6)), (12, 5)), "", 1),)
        few.append(Shape((12, 8, 6, 3), 2, "", "rare", ((8, 6, 4, 1),)))
        return replace(self, shapes=tuple(few), convolutional=pooled, steps=300, points=1_000)

    def rows(self) -> Iterator[Row]:
        """One a shape; of convolutional networks every victim is a cell."""
        measure = lambda shape, _: [self._cell(shape)]  # noqa: E731
        for (row,) in workers.map_cells(measure, self.shapes, self._named):
            yield row | {name: row.get(name) for name in self.shown}
        for sizes, images, runs in self.convolutional:
            rest = self.conv_steps, self.points, self.inputs
            todo = [Cell(sizes, images, self.seed, run, *rest) for run in range(runs)]
            each = workers.map_cells(convolutional.measure, todo, convolutional.settings)
            row = convolutional.summary(sizes, images, [row for rows in each for row in rows])
            yield row | {name: row.get(name) for name in self.shown}

    def _named(self, shape: Shape) -> Any:
        """Plain data that names a cell, and the code that it is measured by."""
        return ["depth", *shape, self.steps, self.points, self.seed, cells.measured_by(CODE)]

    def _cell(self, shape: Shape) -> Row:
        images = data.load(shape.images) if shape.images else None
        queries, errors, shares, seconds, beyond = [], list[float](), list[float](), [], 0
        hidden, agreement = [], list[float]()
        for run, key in enumerate(jax.random.split(jax.random.key(self.seed), shape.runs)):
            victim_key, attack_key, point_key = jax.random.split(key, 3)
            victim = self.victim(victim_key, shape, run, images)
            oracle = oracles.from_host(partial(_answer, victim, shape.dtype))
            took, got = timed(partial(exact.recover, oracle, dim=victim.dim, key=attack_key))
            hidden.append(sum(victim.widths))
            queries.append(got.cost.queries / hidden[-1])
            seconds.append(took)
            if not got.ok:
                continue
            x = np.asarray(jax.random.normal(point_key, (self.points, victim.dim)))
            x = x if images is None else np.concatenate([x, images.test.x])
            truth, found = victim(x), got.network(x)
            off = np.abs(found - truth).max(1) / np.sqrt(np.mean(truth**2))
            errors.append(float(off.max()))
            shares.append(float(np.mean(off > WRONG)))
            beyond += shares[-1] > got.share
            if images is not None:
                same = found[self.points :].argmax(1) == truth[self.points :].argmax(1)
                agreement.append(float(np.mean(same)))
        return {
            "victim": shape.label,
            "sizes": "mixed" if shape.more else "-".join(map(str, shape.sizes)),
            "depth": None if shape.more else len(shape.sizes) - 2,
            "hidden": round(np.mean(hidden)),
            "outputs": None if shape.more else shape.sizes[-1],
            "runs": shape.runs,
            "ok": len(errors),
            "exact": sum(error <= WRONG for error in errors),
            "beyond": int(beyond),
            "wrong_share": max(shares, default=None),
            "queries_per_unit": float(np.mean(queries)),
            "queries_per_unit_max": max(queries),
            "median_error": float(np.median(errors)) if errors else None,
            "worst_error": max((e for e in errors if e <= WRONG), default=None),
            "predictions": PREDICTIONS.get("-".join(map(str, shape.sizes))),
            "seconds": float(np.mean(seconds)),
            "agreement": min(agreement, default=None),
        }

    def victim(self, key: Any, shape: Shape, run: int, images: data.Dataset | None) -> Deep:
        """A random network, or one trained on images, as NumPy arrays in float64."""
        if images is not None:
            training = Training(steps=self.steps)
            return victims.deep_classifier(key, images, shape.sizes[1:-1], training)[0]
        drawn = partial(victims.random_unusual, kind=shape.kind) if shape.kind else random_deep
        return jax.tree.map(lambda a: np.asarray(a, np.float64), drawn(key, sizes=shape.of(run)))
