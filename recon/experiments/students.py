"""Students trained on a victim's replies and scored: what the figures and the sweep share."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from recon import data, distill
from recon.distill import Bank, Hyper, Student, ensemble
from recon.experiments import cells
from recon.experiments.cells import Note, SettingsError
from recon.experiments.common import Row
from recon.experiments.subjects import DISTRIBUTIONS, KINDS, Subject
from recon.victims import Classifier

CONVOLUTIONAL = ("conv", "conv_large", "vgg11", "resnet18")
MAPPERS = ("auto", "vmap", "loop")


@cache
def student(model: str, shape: tuple[int, ...], classes: int) -> Student:
    """A model as a student; the same object for the same arguments, so it compiles once."""
    from recon import models  # flax is heavy

    module = models.build(model, shape, classes)
    x = jnp.zeros(int(np.prod(shape)))
    forms = models.logits(module), distill.warp(shape), models.surrogate(module)
    return Student(lambda key: module.init(key, x), *forms)


def student_of(subject: Subject, model: str) -> Student:
    """The model as a student of this subject: with the victim's layers that it is told, if any."""
    if not subject.told:
        return student(model, subject.dataset.shape, subject.dataset.classes)
    if model != subject.victim.model:
        raise ValueError(f"a {model} cannot have layers of a {subject.victim.model}")
    if subject not in _TOLD:
        _TOLD[subject] = told(subject.victim, subject.dataset, subject.told)
    return _TOLD[subject]


_TOLD: WeakKeyDictionary[Subject, Student] = WeakKeyDictionary()


def told(victim: Classifier, dataset: data.Dataset, layers: str) -> Student:
    """A student of the victim's class that has the victim's layers of these names, fixed."""
    plain = student(victim.model, dataset.shape, dataset.classes)
    assert plain.surrogate is not None
    masked = plain.surrogate
    known = {k: v for k, v in victim.variables["params"].items() if k.startswith(layers)}
    if not known:
        raise ValueError(f"the victim {victim.model} has no layer {layers!r}")

    def init(key: Any) -> Any:
        every = plain.init(key)["params"]
        return {"params": {k: v for k, v in every.items() if k not in known}}

    def whole(variables: Any) -> Any:
        return {"params": {**known, **variables["params"]}}

    return Student(
        init,
        lambda variables, x: plain.apply(whole(variables), x),
        plain.warp,
        lambda variables, x, width: masked(whole(variables), x, width),
    )


def mapper_for(chosen: str = "auto") -> str:
    """How runs are mapped; "auto": at once (vmap), but in turn (loop) on a CPU.

    On two CPU cores 32 runs at once take 1.3 times as long as in turn (`bench_distill`).
    """
    if chosen != "auto":
        return chosen
    return "loop" if jax.default_backend() == "cpu" else "vmap"


def rows_from(bank: Bank, first: int, count: int) -> Bank:
    """`count` rows of the bank from row `first` on, around its end; a copy unless it is all.

    ValueError for more rows than the bank has.
    """
    if count > len(bank):
        raise ValueError(f"{count} rows are more than the bank's {len(bank)}")
    if first == 0 and count == len(bank):
        return bank
    rows = (first + np.arange(count)) % len(bank)
    return jax.tree.map(lambda part: part[rows], bank)


def rebuild(
    subject: Subject,
    model: str,
    kind: str,
    hypers: Sequence[Hyper],
    key: Any,
    first: int,
    mapper: str,
    together: bool,
    note: Note,
) -> Iterator[Row]:
    """A row for each of `hypers`: a student of class `model` trained on `kind` queries, scored.

    Every run starts from the same weights (`key`, not consumed; other members of an ensemble from
    their own) and asks the subject's queries from `first` on.  Runs whose batches have one size are
    trained at once where the mapper is vmap, all budgets of one batch size with `together`; in a
    loop each is a cell of its own.
    """
    mapper = mapper_for(mapper)
    for group in _groups(hypers, mapper, together):
        settings = {
            "subject": subject.digest,
            "victim": subject.victim.model,
            "student": model,
            "told": subject.told,
            "kind": kind,
            "hypers": [asdict(h) for h in group],
            "key": np.asarray(jax.random.key_data(key)).tolist(),
            "first": first,
            "mapper": mapper,
        }
        rows = cells.load(settings)
        if rows is None:
            rows = _train(subject, model, kind, group, key, first, mapper, note)
            cells.save(settings, rows)
        yield from rows


def _groups(hypers: Sequence[Hyper], mapper: str, together: bool) -> list[list[Hyper]]:
    """Runs that share what is compiled: the static settings and the rows of a step."""
    if mapper == "loop":
        return [[hyper] for hyper in hypers]
    groups: dict[Any, list[Hyper]] = {}
    for hyper in hypers:
        rows = hyper.batch if together else min(hyper.batch, hyper.budget)
        static = (hyper.steps, hyper.batch, hyper.points, hyper.outputs, hyper.unasked)
        groups.setdefault((static, hyper.surrogate is None, rows), []).append(hyper)
    return list(groups.values())


def _train(
    subject: Subject,
    model: str,
    kind: str,
    hypers: list[Hyper],
    key: Any,
    first: int,
    mapper: str,
    note: Note,
) -> list[Row]:
    victim, loss, steps = subject.victim, KINDS[kind].loss, hypers[0].steps
    count = KINDS[kind].members
    every = [hyper for hyper in hypers for _ in range(count)]
    keys = jnp.stack([key, *(jax.random.fold_in(key, i) for i in range(1, count))] * len(hypers))
    trained = student_of(subject, model)
    largest = max(hyper.budget for hyper in hypers)
    bank = rows_from(subject.bank(kind), first, largest)
    if KINDS[kind].pool:
        bank = replace(bank, unasked=jnp.asarray(subject.dataset.pool.x, jnp.float32))
    budgets = ", ".join(f"{budget:,}" for budget in sorted({hyper.budget for hyper in hypers}))
    what = f"{victim.model} as {model}, {kind} x {budgets}"

    def progress(done: int, losses: dict[str, np.ndarray]) -> None:
        note(f"{what}: step {done:,} of {steps:,}, loss {np.mean(losses['loss'][-1]):.2g}")

    note(what)
    traced: dict[str, Any] = {
        name: jnp.asarray([getattr(hyper, name) for hyper in every])
        for name in (f.name for f in fields(Hyper) if f.metadata["traced"])
        if getattr(hypers[0], name) is not None
    }
    start = time.perf_counter()
    run = distill.train_many(
        keys,
        replace(hypers[0], loss=loss, **traced),
        bank,
        trained,
        mapper=mapper,
        progress=progress,
    )
    seconds = (time.perf_counter() - start) / len(hypers)
    rows = []
    for first_run, hyper in zip(range(0, len(every), count), hypers, strict=True):
        losses = run.curves["loss"][first_run : first_run + count]
        kept = first_run + ensemble.closest(losses, max(1, count // 2))
        variables = jax.tree.map(lambda v, kept=kept: v[kept], run.variables)
        accuracy, agreement = distill.evaluate(ensemble.mean(trained), variables, subject.probe)
        row = {
            "budget": hyper.budget,
            "accuracy": float(accuracy),
            "agreement": float(agreement),
            "victim_accuracy": victim.accuracy,
            "numbers": bank.cost(hyper.budget).numbers,
            "gradient_loss": None if loss == "membership" else _residual(run, "gradient", kept),
            "membership_loss": _residual(run, "membership", kept),
            "members": count,
            "steps": hyper.steps,
            "batch": hyper.batch,
            "learning_rate": hyper.learning_rate,
            "weight": None if loss == "membership" else hyper.weight,
            "weight_decay": hyper.weight_decay,
            "surrogate": hyper.surrogate,
            "narrow": None if hyper.surrogate is None else hyper.narrow,
            "outputs": hyper.outputs,
            "points": hyper.points,
            "unasked": hyper.unasked,
            "seconds": seconds,
            "failure": " ".join(run.failures[r] for r in kept).strip() or None,
        }
        rows.append(row)
    return rows


def _residual(run: distill.Run, name: str, kept: np.ndarray) -> float | None:
    """The mean of a loss of some runs over the last steps; None where it is not finite."""
    mean = float(np.mean(ensemble.residual(run.curves[name][kept])))
    return mean if np.isfinite(mean) else None


def across_seeds(
    subject: Subject,
    model: str,
    hypers: Mapping[str, Sequence[Hyper]],
    seeds: int,
    seed: int,
    mapper: str,
    together: bool,
    note: Note,
) -> Iterator[Row]:
    """A row for each kind of query, seed and one of the kind's settings."""
    for kind in sorted(hypers, key=[*KINDS].index):  # those that share replies are neighbours
        for s in range(seeds):
            key = jax.random.fold_in(jax.random.key(seed), s)
            first = s * len(subject.x) // seeds
            of = {"kind": kind, "seed": s}
            rows = rebuild(subject, model, kind, hypers[kind], key, first, mapper, together, note)
            yield from (of | row for row in rows)


def check(
    models_used: Iterable[str],
    kinds: Sequence[str],
    distribution: str,
    dataset: str,
    mapper: str,
    numbers: Mapping[str, Sequence[float]],
    seed: int,
) -> None:
    """SettingsError, in one sentence, for a name there is not or a number below 1."""
    from recon import models  # flax is heavy

    for what, given, known in (
        ("model", models_used, models.MODELS),
        ("kind of query", kinds, KINDS),
        ("distribution", (distribution,), DISTRIBUTIONS),
        ("data set", (dataset,), data.DATASETS),
        ("mapper", (mapper,), MAPPERS),
    ):
        if not given:
            raise SettingsError(f"no {what} is given")
        for name in given:
            if name not in known:
                raise SettingsError(f"there is no {what} {name!r}; there are {', '.join(known)}")
    if distribution != "pool" and any(KINDS[kind].pool for kind in kinds):
        raise SettingsError(f"kinds that use the pool make no sense with {distribution} queries")
    once("a kind of query", kinds)
    for what, values in numbers.items():
        in_range(what, values, 1)
    in_range("seed", (seed,), 0)
    if seed >= 2**31:
        raise SettingsError(f"seed must be below {2**31:,}, got {seed:,}")


def in_range(what: str, values: Sequence[float], bound: float, above: bool = False) -> None:
    """SettingsError unless there are values, all different, finite and from `bound` on."""
    words = f"{what} must be {'above' if above else 'at least'} {bound:g}, got"
    if not values:
        raise SettingsError(f"{words} none")
    for value in values:
        if not (math.isfinite(value) and (value > bound or (value == bound and not above))):
            raise SettingsError(f"{words} {value:g}")
    once(what, values)


def once(what: str, values: Sequence[Any]) -> None:
    """SettingsError where a value is given twice: its rows would count as other seeds."""
    if len({*values}) < len(values):
        raise SettingsError(f"{what} is given twice: {', '.join(map(str, values))}")
