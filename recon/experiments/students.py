"""One student measured: a `Cell` says which, `measure` trains and scores it and gives a row."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recon import cells, data, distill, oracles, victims
from recon.distill import Bank, Hyper, Probe, Student, ensemble
from recon.experiments.common import SettingsError
from recon.experiments.services import CENTRES, QUERIES, RECIPES, REPLIES, order
from recon.oracles import View
from recon.victims import Classifier, Training
from recon.workers import quiet

Row = dict[str, Any]
Note = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """Which student of which victim, as plain data: all that its row depends on.

    dataset, held_out: as `load` takes them; victim, student: names of `models.MODELS`;
    queries, reply, recipe: rows of `services`; seed: draws the queries and the first weights,
    and nothing else depends on it, nor it on anything else; hyper: with budget and loss; tuned:
    whether they were chosen for this data set; training: the victim's.
    """

    dataset: str
    victim: str
    student: str
    queries: str
    reply: str
    recipe: str
    seed: int
    hyper: Hyper
    training: Training
    tuned: bool = False
    held_out: int = 0

    def __str__(self) -> str:
        who = self.victim + (f" as {self.student}" if self.student != self.victim else "")
        what = f"{self.reply} x {self.hyper.budget:,}, {self.recipe}"
        return f"{who}, {self.queries}: {what}, seed {self.seed}"


@lru_cache(maxsize=2)
def load(name: str, held_out: int = 0) -> data.Dataset:
    """The data set; with held_out, that many training images in place of the test part."""
    dataset = data.load(name)
    return data.validation(dataset, held_out) if held_out else dataset


def place(cell: Cell) -> tuple[str, int]:
    """Where a cell's images come from: the arguments of `load`."""
    return cell.dataset, cell.held_out


def identity(cell: Cell) -> Row:
    """The columns by which a cell's row is found."""
    names = ("dataset", "victim", "student", "queries", "reply", "recipe", "seed")
    return {name: getattr(cell, name) for name in names} | {"budget": int(cell.hyper.budget)}


def victim_of(cell: Cell, note: Note = quiet) -> Classifier:
    """The victim a cell is about: pinned, kept, or trained now."""
    trained = (*place(cell), cell.victim, cell.training)
    if trained not in _VICTIMS:

        def tell(step: int, of: int, loss: float) -> None:
            note(f"training the victim {cell.victim}: step {step:,} of {of:,}, loss {loss:.2g}")

        dataset = load(*place(cell))
        _VICTIMS[trained] = victims.classifier(dataset, cell.victim, 0, cell.training, tell)
    return _VICTIMS[trained]


_VICTIMS: dict[Any, Classifier] = {}


def probe(cell: Cell) -> Probe:
    """The test images with their labels and the victim's classes."""
    return _probe(*place(cell), cell.victim, cell.training)


@lru_cache(maxsize=8)
def _probe(dataset: str, held_out: int, victim: str, training: Training) -> Probe:
    test, trained = load(dataset, held_out).test, _VICTIMS[dataset, held_out, victim, training]
    classes = jax.jit(lambda x: jnp.argmax(trained.f(trained.variables, x), axis=-1))
    x = np.asarray(test.x, np.float32)
    parts = [classes(x[i : i + 1_000]) for i in range(0, len(x), 1_000)]
    return Probe(x, test.y, np.concatenate(parts))


def replies_to(cell: Cell, victim: Classifier) -> Bank:
    """What the victim's service replies to the cell's queries; the service's noise has key 0."""
    view = REPLIES[cell.reply].view
    dataset, budget = load(*place(cell)), int(cell.hyper.budget)
    size = len(dataset.pool.x)
    if cell.queries == "pool" and 2 * budget > size:  # most of it: bought once for all seeds
        asked = (*place(cell), cell.victim, cell.training, cell.reply)
        if _POOL.get("asked") != asked:
            _POOL.clear()
            x = np.asarray(dataset.pool.x, np.float32)
            _POOL.update(asked=asked, bank=_buy(victim, view, x))
        bank: Bank = jax.tree.map(lambda v: v[order(size, cell.seed)[:budget]], _POOL["bank"])
        return bank
    return _buy(victim, view, QUERIES[cell.queries](dataset, budget, cell.seed))


_POOL: dict[str, Any] = {}


def _buy(victim: Classifier, view: View, x: np.ndarray) -> Bank:
    oracle = oracles.from_jax(victim.f, victim.variables, view, key=0)
    many = view.explanation in ("smoothgrad", "integrated_gradients")  # points for each query
    return distill.buy(oracle, jnp.asarray(x), chunk=10 if many else 100)


def centre(cell: Cell) -> float:
    """What is subtracted from a student's inputs; noise has its mean at zero."""
    away = cell.queries == "gaussian"
    return 0.0 if away else CENTRES.get((cell.dataset, cell.student), 0.0)


def student_of(cell: Cell, victim: Classifier) -> Student:
    """The student's model; with the victim's layers that its recipe lets it know, if any."""
    dataset, layers = load(*place(cell)), RECIPES[cell.recipe].known
    plain = distill.student(cell.student, dataset.shape, dataset.classes, centre(cell))
    if not layers:
        return plain
    held = id(victim.variables), layers
    if held not in _KNOWN:
        _KNOWN[held] = distill.knowing(plain, victim.variables, layers)
    return _KNOWN[held]


_KNOWN: dict[Any, Student] = {}


class Trained(NamedTuple):
    """A cell's students, and what they were trained and are scored with."""

    run: distill.Run
    student: Student
    bank: Bank
    victim: Classifier
    seconds: float


def train(group: Sequence[Cell], note: Note = quiet, devices: int | None = None) -> Trained:
    """The students of cells that share what is compiled and differ in traced settings alone.

    The members of an ensemble are runs side by side.  Runs are in turn on a CPU, where many at
    once take 1.3 times as long (`bench-distill`), and at once elsewhere; divided over `devices`
    where that is a number.  SettingsError where memory runs out.
    """
    first = group[0]
    victim = victim_of(first, note)
    student = student_of(first, victim)
    largest = max(group, key=lambda cell: int(cell.hyper.budget))
    bank, recipe = replies_to(largest, victim), RECIPES[first.recipe]
    if recipe.fixed.get("unlabelled"):
        pool = load(*place(first)).pool.x
        bank = replace(bank, unlabelled=jnp.asarray(pool, jnp.float32))
    every = [cell.hyper for cell in group for _ in range(recipe.members)]
    key = jax.random.fold_in(jax.random.key(0), first.seed)
    members = [key, *(jax.random.fold_in(key, i) for i in range(1, recipe.members))]
    traced: dict[str, Any] = {
        f.name: jnp.asarray([getattr(hyper, f.name) for hyper in every])
        for f in fields(Hyper)
        if f.metadata["traced"] and getattr(first.hyper, f.name) is not None
    }

    def progress(done: int, losses: dict[str, np.ndarray]) -> None:
        loss = np.mean(losses["loss"][-1])
        note(f"{first}: step {done:,} of {first.hyper.steps:,}, loss {loss:.2g}")

    if first.hyper.loss != REPLIES[first.reply].loss:  # by its recipe, which knows what it does
        bank = replace(bank, view=None)
    note(str(first))
    start = time.perf_counter()
    alone = "loop" if jax.default_backend() == "cpu" else "vmap"
    with enough_memory(first), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "none of .* of the gradients is below 0")
        run = distill.train_many(
            jnp.stack(members * len(group)),
            replace(first.hyper, **traced),
            bank,
            student,
            mapper=alone if devices is None else "mesh",
            count=devices,
            progress=progress,
        )
    seconds = (time.perf_counter() - start) / len(group)
    return Trained(run, student, bank, victim, seconds)


@contextmanager
def enough_memory(cell: Cell) -> Iterator[None]:
    """SettingsError, which says what to lower, where a device runs out of memory."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        text = str(error)
        if not (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text):
            raise
        raise SettingsError(
            f"out of memory for {cell}: lower its batch of {cell.hyper.batch} (in hyper.csv), "
            "ask for some of the cells (--only), or take fewer --workers or more --devices"
        ) from error


def measure(group: Sequence[Cell], note: Note = quiet, devices: int | None = None) -> list[Row]:
    """A row for each cell of a group."""
    with jax.enable_x64(False):
        trained = train(group, note, devices)
        return [_row(cell, i, trained) for i, cell in enumerate(group)]


def _row(cell: Cell, i: int, trained: Trained) -> Row:
    run, hyper, members = trained.run, cell.hyper, RECIPES[cell.recipe].members
    losses = run.curves["loss"][i * members : (i + 1) * members]
    kept = i * members + ensemble.closest(losses, max(1, members // 2))
    variables = jax.tree.map(lambda v: v[kept], run.variables)
    answers = ensemble.mean(trained.student)
    accuracy, agreement = distill.evaluate(answers, variables, probe(cell))
    given = jax.tree.leaves(trained.victim.variables)
    row = identity(cell) | {
        "accuracy": float(accuracy),
        "agreement": float(agreement),
        "victim_accuracy": trained.victim.accuracy,
        "victim_id": "v" + cells.digest(given)[:12],
        "numbers": trained.bank.cost(int(hyper.budget)).numbers,
        "gradient_loss": None if hyper.loss == "membership" else _residual(run, "gradient", kept),
        "membership_loss": _residual(run, "membership", kept),
    }
    used = asdict(hyper)
    if hyper.temperature is None:
        used["cooling"] = None
    if hyper.loss == "membership":
        used["weight"] = None
    failure = " ".join(run.failures[r] for r in kept).strip() or None
    used |= {"held_out": cell.held_out, "centre": centre(cell)}
    return row | used | {"tuned": cell.tuned, "seconds": trained.seconds, "failure": failure}


def _residual(run: distill.Run, name: str, kept: np.ndarray) -> float | None:
    """The mean of a loss of some runs over the last steps; None where it is not finite."""
    mean = float(np.mean(ensemble.residual(run.curves[name][kept])))
    return mean if np.isfinite(mean) else None


def groups(todo: Sequence[Cell], devices: int | None = None) -> list[tuple[Cell, ...]]:
    """Cells that are trained at once: on a CPU each alone, elsewhere all that share a program.

    Those too where `devices` share the runs; SettingsError where these do not divide.
    """
    if devices is None and jax.default_backend() == "cpu":
        return [(cell,) for cell in todo]
    static = [f.name for f in fields(Hyper) if not f.metadata["traced"]]
    found: dict[Any, list[Cell]] = {}
    for cell in todo:
        hyper = cell.hyper
        shared = replace(cell, hyper=Hyper(), tuned=False)
        names = tuple(getattr(hyper, name) for name in static)
        rows = min(hyper.batch, int(hyper.budget))
        found.setdefault((shared, names, hyper.temperature is None, rows), []).append(cell)
    for group in found.values() if devices is not None else ():
        runs = len(group) * RECIPES[group[0].recipe].members
        try:
            distill.devices.mesh(runs, devices)
        except ValueError as error:
            raise SettingsError(f"{group[0]} and those like it: {error}") from error
    return [tuple(group) for group in found.values()]


def settings(group: Sequence[Cell]) -> Any:
    """What names the rows of a group among finished cells."""
    recipe, service = RECIPES[group[0].recipe], REPLIES[group[0].reply]
    given = cells.digest(jax.tree.leaves(victim_of(group[0]).variables))
    view = asdict(service.view)
    for name, plain in (("shown", "plain"), ("path", None)):  # as views were before they had these
        if view[name] == plain:
            del view[name]
    parts = [sorted(recipe.fixed.items()), *recipe[1:4], view, service.loss]
    return [given, parts, *map(asdict, group)]
