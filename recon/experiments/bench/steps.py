"""Seconds of a training step beside PyTorch's, and of many runs at once beside in turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, ClassVar

import jax
import numpy as np

from recon import distill, oracles
from recon.distill import Bank, Hyper
from recon.experiments.bench import torch_steps
from recon.experiments.common import Measured, Row, columns

LOSSES, DEEP_LOSSES = ("membership", "top", "jacobian", "projection"), ("membership", "projection")
SHAPE, DEEP_SHAPE, CLASSES = (28, 28, 1), (32, 32, 3), 10


@dataclass(frozen=True)
class Steps(Measured):
    """A training step of ours and of PyTorch's, and R runs at once and one after another.

    Claim:   none of the paper's.
    Time:    10 minutes on 2 CPU cores.
    Expect:  on 2 CPU cores ours is 3 and 9 times faster with the projection, 1.3 to 2 times with
             labels, the top class or the whole Jacobian; VGG11 and ResNet-18 take 1.1 to 1.8
             times PyTorch 2.14's time; many runs at once gain or lose a fifth.

    Both sides have the same weights, batch, loss and Adam, in float32, on all cores; they make
    `each` steps in turn, ours as the trainer does, and the median is taken, compilation apart.
    The whole Jacobian in PyTorch is timed in both of its forms, one backward pass after another
    and batched, and the faster one counts.  "projection" is our unbiased estimate of the
    Jacobian's loss from one backward pass.  "other_loss" says what PyTorch computes beside it: for
    `models` the whole Jacobian, which is what it stands for; for `deep`, on images of 32 x 32 in
    colour, the same projection.  "ratio" is the other's seconds divided by ours; "other" says who
    that is.  No PyTorch: no ratio.  "gflop" and "gbyte" are what XLA counts in one of our steps,
    "gbyte" as if nothing stayed in a cache; "share" is the step's GFLOP/s over those of the row
    "peak", a product of two float32 matrices of `peak` rows in the same run.
    """

    shown: ClassVar[tuple[str, ...]] = columns(
        "what model loss runs milliseconds other other_loss other_milliseconds ratio "
        "gflop gbyte share device"
    )
    x64: ClassVar[bool] = False
    models: tuple[str, ...] = ("mlp", "conv")
    """Students for 28 x 28 grey images."""
    batch: int = 64
    """Queries a step."""
    deep: tuple[str, ...] = ("vgg11", "resnet18")
    """Students for 32 x 32 images in colour."""
    deep_batch: int = 32
    """Queries a step of theirs; a reading is one step."""
    deep_repeats: int = 5
    """Readings of them, which take seconds."""
    repeats: int = 15
    """Readings of each; the median is taken."""
    each: int = 20
    """Training steps a reading."""
    runs: tuple[int, ...] = (1, 8, 32)
    """How many runs are trained at once."""
    steps: int = 100
    """Training steps of those runs."""
    peak: int = 4_096
    """Rows of the matrices whose product is the fastest there is."""
    seed: int = 0
    """Seed of weights and replies."""

    def small(self) -> Steps:
        """The two-layer student, two readings."""
        small = replace(self, models=("mlp",), deep=("vgg11-quarter",), batch=8, deep_batch=2)
        return replace(small, repeats=2, deep_repeats=2, each=2, runs=(1, 2), steps=5, peak=256)

    def rows(self) -> Iterator[Row]:
        """The peak, then one for each model and loss, and for each number of runs."""
        matrix = jax.random.normal(jax.random.key(self.seed), (self.peak, self.peak))
        product_of = jax.jit(lambda a: a @ a)
        seconds = in_turn({"peak": partial(product_of, matrix)}, self.repeats)["peak"]
        gflop = 2e-9 * self.peak**3
        fastest = gflop / seconds
        yield _row("peak", None, None, 1, seconds) | {"gflop": gflop, "share": 1.0}
        for model, loss in product(self.models, LOSSES):
            peer = "jacobian" if loss == "projection" else loss
            of = (model, SHAPE, self.batch, loss, peer, self.each, self.repeats)
            yield self._step(*of, fastest)
        for model, loss in product(self.deep, DEEP_LOSSES):
            of = (model, DEEP_SHAPE, self.deep_batch, loss, loss, 1, self.deep_repeats)
            yield self._step(*of, fastest)
        for count in self.runs:
            yield self._runs(count)

    def _step(
        self, model: str, shape: tuple[int, ...], batch: int,
        loss: str, peer: str, each: int, repeats: int, fastest: float,
    ) -> Row:  # fmt: skip
        trained = distill.student(model, shape, CLASSES)
        bank, hyper = replies(batch, loss, self.seed, shape), Hyper(budget=batch, loss=loss)
        state = distill.start(jax.random.key(self.seed), hyper, bank, trained)
        calls: dict[str, Callable[[], Any]] = {"ours": Ours(state, hyper, bank, trained, each)}
        version = torch_steps.available()
        if version is not None:
            variables = trained.init(jax.random.split(jax.random.key(self.seed))[0])
            numbers = (float(hyper.weight), float(hyper.learning_rate))
            for form in torch_steps.FORMS if peer == "jacobian" else ("",):
                one = torch_steps.step(variables["params"], bank, peer, form, *numbers)
                calls[form] = partial(lambda one: [one() for _ in range(each)][-1], one)
        seconds = {name: s / each for name, s in in_turn(calls, repeats).items()}
        ours = seconds.pop("ours")
        gflop, gbyte = counted(state, hyper, bank, trained)
        counts = {"gflop": gflop, "gbyte": gbyte, "share": gflop / ours / fastest}
        form, other = min(seconds.items(), key=lambda item: item[1], default=("", None))
        if version is None:
            return _row("step", model, loss, 1, ours) | counts
        name = f"PyTorch {version}" + (f", {form}" if form else "")
        return _row("step", model, loss, 1, ours, name, peer, other) | counts

    def _runs(self, count: int) -> Row:
        trained = distill.student("mlp", SHAPE, CLASSES)
        bank = replies(4 * self.batch, "projection", 0)
        hyper = Hyper(budget=len(bank), batch=self.batch, steps=self.steps)
        keys = jax.random.split(jax.random.key(self.seed), count)
        go = partial(distill.train_many, keys, hyper, bank, trained)
        mappers = {name: partial(go, mapper=name) for name in ("vmap", "loop")}
        seconds = in_turn(mappers, min(3, self.repeats))
        both = (seconds["vmap"], "in turn", "projection", seconds["loop"])
        return _row("runs", "mlp", "projection", count, *both)


class Ours:
    """Steps that go on from where the last ones ended."""

    def __init__(self, state: Any, hyper: Hyper, bank: Bank, trained: distill.Student, each: int):
        self.state, self.rest = state, (hyper, bank, trained, None, False, each)

    def __call__(self) -> Any:
        """`each` steps; returns the loss before the last, which is waited for by who needs it."""
        self.state, losses = distill.advance(self.state, *self.rest)
        return losses["loss"][-1]


def counted(state: Any, hyper: Hyper, bank: Bank, trained: distill.Student) -> tuple[float, float]:
    """The GFLOP of one step on the whole bank, and the GB it reads and writes, as XLA counts."""
    step = jax.jit(distill.step, static_argnames=("student", "rows"))
    compiled = step.lower(state, hyper, bank, student=trained, rows=None).compile()
    count: Any = compiled.cost_analysis()
    return 1e-9 * count["flops"], 1e-9 * count["bytes accessed"]


def replies(n: int, loss: str, seed: int, shape: tuple[int, ...] = SHAPE) -> Bank:
    """What a random victim of the two-layer class replies to n random inputs."""
    keys = jax.random.split(jax.random.key(seed + 1), 2)
    victim = distill.student("mlp", shape, CLASSES)
    variables = victim.init(keys[0])
    x = jax.random.uniform(keys[1], (n, int(np.prod(shape))))
    view = oracles.View(explanation="none" if loss == "membership" else "jacobian")
    bank = distill.buy(oracles.from_jax(victim.apply, variables, view), x)
    return bank.top() if loss == "top" else bank


def in_turn(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median seconds of each call; they take turns, after one call that is not counted."""
    for call in calls.values():
        jax.block_until_ready(_value(call()))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(_value(call()))
            taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def _value(result: Any) -> Any:
    return result.curves["loss"] if isinstance(result, distill.Run) else result


def _row(
    what: str, model: str | None, loss: str | None, runs: int, ours: float, *other: Any
) -> Row:
    """other: who it is, its loss and its seconds, where there is one."""
    name, peer, seconds = other or (None, None, None)
    row = {"what": what, "model": model, "loss": loss, "runs": runs, "milliseconds": 1e3 * ours}
    row |= {"other": name, "other_loss": peer, "other_milliseconds": seconds and 1e3 * seconds}
    row |= {"ratio": seconds and seconds / ours, "cores": os.cpu_count()}
    return row | {"gflop": None, "gbyte": None, "share": None, "device": _device()}


def _device() -> str:
    return str(jax.devices()[0].device_kind)
