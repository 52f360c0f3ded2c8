"""A run of steps in chunks, and many runs at once or in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from recon.distill import checkpoint, devices
from recon.distill.bank import Bank
from recon.distill.checks import check
from recon.distill.hyper import Hyper, settled
from recon.distill.probe import Probe, evaluate
from recon.distill.steps import State, start, step
from recon.distill.students import Student
from recon.oracles import Cost

Progress = Callable[[int, dict[str, np.ndarray]], None]


@dataclass(frozen=True, repr=False)
class Run:
    """What training gave; of `train_many` every array has a leading axis of R runs.

    variables: the student; curves: `loss` l_J, `gradient` l_G and `membership` l_M at every
    step [T] (nan after a failure), and `accuracy` and `agreement` with the victim (`evaluate`)
    at the steps `measured`; failures: for each run a sentence, empty where it went well.
    """

    variables: Any
    curves: dict[str, np.ndarray]
    measured: tuple[int, ...]
    failures: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not any(self.failures)

    def __repr__(self) -> str:
        runs, failed = len(self.failures), sum(map(bool, self.failures))
        last = (f"{n} {np.mean(c[..., -1]):.3g}" for n, c in self.curves.items() if c.size)
        count = "" if runs == 1 else f"{runs} runs, on average "
        return f"Run({f'{failed} failed, ' if failed else 'ok, '}{count}{', '.join(last)})"


@partial(jax.jit, static_argnames=("student", "many"))
def _start(key: Any, hyper: Any, bank: Bank, student: Student, many: bool) -> Any:
    one = partial(start, bank=bank, student=student)
    return (jax.vmap(one) if many else one)(key, hyper)


@partial(jax.jit, static_argnames=("student", "rows", "many"))
def _step(
    state: Any, hyper: Any, bank: Bank, student: Student, rows: int | None, many: bool
) -> Any:
    one = partial(step, bank=bank, student=student, rows=rows)
    return (jax.vmap(one) if many else one)(state, hyper)


@partial(jax.jit, static_argnames=("student", "rows", "many", "steps"))
def _scan(
    state: Any, hyper: Any, bank: Bank, student: Student, rows: int | None, many: bool, steps: int
) -> Any:
    def one(state: Any, _: Any) -> Any:
        return _step(state, hyper, bank, student, rows, many)

    return jax.lax.scan(one, state, None, length=steps)


def advance(
    state: State,
    hyper: Hyper,
    bank: Bank,
    student: Student,
    rows: int | None,
    many: bool,
    steps: int,
) -> tuple[State, dict[str, jax.Array]]:
    """`steps` steps, and their losses stacked [steps] (or [steps, R]).

    The one switch by backend: a scan, but on a CPU, where an XLA convolution inside a scan runs
    10-17 times slower, a loop over the jitted step for students that have one.
    """
    if jax.default_backend() != "cpu" or not _convolves(student, bank.x.shape[1], bank.x.dtype):
        return _scan(state, hyper, bank, student, rows, many, steps)
    losses = []
    for _ in range(steps):
        state, loss = _step(state, hyper, bank, student, rows, many)
        losses.append(loss)
    return state, jax.tree.map(lambda *each: jnp.stack(each), *losses)


@cache
def _convolves(student: Student, dim: int, dtype: Any) -> bool:
    variables = jax.eval_shape(student.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, dim), dtype)
    return "conv_general_dilated" in str(jax.make_jaxpr(student.apply)(variables, x))


def train(
    key: Any,
    hyper: Hyper,
    bank: Bank,
    student: Student,
    probe: Probe | None = None,
    *,
    chunk: int = 250,
    measure: int = 0,
    progress: Progress | None = None,
    save: str | Path | None = None,
) -> Run:
    """Train one student on the first `hyper.budget` rows of the bank, or on all of them.

    `probe` is measured after the last step, and after every `measure` chunks if not 0.
    `progress(done, losses)` is called after every chunk of steps with the chunk's curves.
    `save` names an .npz file that is written after every chunk; if it is there, the run goes
    on from it, to the same bits.  ValueError for settings that do not fit the bank, or do not
    fit the saved run; CheckpointError if the file cannot be written.
    """
    hyper = settled(hyper, len(bank))
    return _drive(key, hyper, bank, student, probe, False, chunk, measure, progress, save)


def train_many(
    keys: Any,
    hypers: Hyper,
    bank: Bank,
    student: Student,
    probe: Probe | None = None,
    *,
    mapper: str = "vmap",
    count: int | None = None,
    chunk: int = 250,
    measure: int = 0,
    progress: Progress | None = None,
    save: str | Path | None = None,
) -> Run:
    """R runs: keys [R], and every traced field of `hypers` a number for all or an array [R].

    mapper "vmap" runs them at once (right on accelerators); "loop" one after another, which is
    faster on a few CPU cores; "mesh" divides them over `count` devices, or all there are, and
    runs those of a device at once (`distill.devices`).  They agree to rounding.  Other options as
    for `train`; in a loop the files of `save` are numbered.  ValueError where the runs do not
    divide over the devices.
    """
    if jnp.ndim(keys) < 1 or not len(keys):
        raise ValueError("train_many needs one key a run, got none")
    hypers = settled(hypers, len(bank))
    hypers = jax.tree.map(lambda v: jnp.broadcast_to(jnp.asarray(v), (len(keys),)), hypers)
    if mapper in ("vmap", "mesh"):
        over = devices.mesh(len(keys), count) if mapper == "mesh" else None
        rest = chunk, measure, progress, save, over
        return _drive(keys, hypers, bank, student, probe, True, *rest)
    if mapper != "loop":
        raise ValueError(f"no mapper {mapper!r}; there are vmap, loop, mesh")
    runs, trouble = [], ""
    for r in range(len(keys)):
        path = None if save is None else checkpoint.numbered(save, r)
        hyper = jax.tree.map(lambda v, r=r: v[r], hypers)
        last = (chunk, measure, progress, path)
        try:
            runs.append(_drive(keys[r], hyper, bank, student, probe, False, *last))
        except checkpoint.CheckpointError as error:
            if error.run is None:
                raise
            runs.append(error.run)
            trouble = str(error)
    failures = (run.failures[0].replace("run 0", f"run {r}") for r, run in enumerate(runs))
    variables, curves = jax.tree.map(
        lambda *each: jnp.stack(each), *((run.variables, run.curves) for run in runs)
    )
    every = Run(variables, jax.device_get(curves), runs[0].measured, tuple(failures))
    if trouble:
        raise checkpoint.CheckpointError(trouble, every)
    return every


def _drive(
    key: Any,
    hyper: Hyper,
    bank: Bank,
    student: Student,
    probe: Probe | None,
    many: bool,
    chunk: int,
    measure: int,
    progress: Progress | None,
    save: str | Path | None,
    over: Mesh | None = None,
) -> Run:
    check(hyper, bank, student, probe, chunk, measure, many)
    view = bank.view if hyper.loss == "shown" else None
    # How it was asked is not compiled in.
    bank = replace(bank, chunk=None, told=None, view=view, before=Cost(), repeats=1)
    whole = np.min(hyper.budget) == len(bank) <= hyper.batch
    rows = None if whole else int(min(hyper.batch, np.max(hyper.budget)))
    given = hyper
    if over is not None:
        key, hyper = devices.spread((key, hyper), over)
        bank = devices.copied(bank, over)
    state = _start(key, hyper, bank, student, many)
    curves: dict[str, Any] = {name: [] for name in ("loss", "gradient", "membership")}
    curves |= {name: [] for name in (("accuracy", "agreement") if probe is not None else ())}
    every = measure * chunk or hyper.steps
    schedule = [*range(every, hyper.steps, every), hyper.steps]
    store = None
    if save is not None:
        named = checkpoint.settings(key, hyper, bank, state, probe, chunk, measure)
        named["student"] = checkpoint.program(student, state.variables, bank.x, many)
        store = checkpoint.Store(save, named)
        state, curves = store.load(state, curves)
        state = state if over is None else devices.spread(devices.fetch(state), over)
    done = int(np.max(devices.fetch(state.done)))
    while done < hyper.steps and (done == 0 or np.any(devices.fetch(state.finite))):
        steps = min(chunk, hyper.steps - done)
        state, losses = advance(state, hyper, bank, student, rows, many, steps)
        done += steps
        part = {name: np.asarray(value) for name, value in devices.fetch(losses).items()}
        for name, value in part.items():
            curves[name].append(value)
        if probe is not None and done in schedule:
            _measure(curves, student, devices.fetch(_given(state)), probe, many)
        if store is not None:
            store.save(devices.fetch(state), curves)
        if progress is not None:
            progress(done, part)
    state = devices.fetch(state)
    if done < hyper.steps:  # all runs have failed; what is not measured yet would not differ
        for at in schedule:
            if probe is not None and at > done:
                _measure(curves, student, _given(state), probe, many)
        for name in ("loss", "gradient", "membership"):
            shape = (hyper.steps - done, *curves[name][0].shape[1:])
            curves[name].append(np.full(shape, np.nan, curves[name][0].dtype))
    measured = tuple(schedule) if probe is not None else ()
    run = _finish(state, given, curves, measured, many)
    if store is not None and store.trouble:
        raise checkpoint.CheckpointError(store.trouble, run)
    return run


def _given(state: State) -> Any:
    return state.variables if state.average is None else state.average


def _measure(
    curves: dict[str, list], student: Student, variables: Any, probe: Probe, many: bool
) -> None:
    for name, score in zip(
        ("accuracy", "agreement"), evaluate(student, variables, probe, many), strict=True
    ):
        curves[name].append(score[None])


def _finish(
    state: State, hyper: Hyper, curves: dict[str, list], measured: tuple[int, ...], many: bool
) -> Run:
    stacked = {name: np.concatenate(parts) for name, parts in curves.items()}
    if many:  # [T, R] -> [R, T]
        stacked = {name: np.moveaxis(value, 0, 1) for name, value in stacked.items()}
    failures = []
    for r, loss in enumerate(np.atleast_2d(stacked["loss"])):
        bad = np.flatnonzero(~np.isfinite(loss))
        failures.append("")
        if len(bad):
            failures[r] = (
                f"run {r} stopped at step {bad[0] + 1} of {hyper.steps}: a reply, the loss, "
                f"its gradient or its step is not finite; the variables are those "
                f"after step {bad[0]}"
            )
    return Run(_given(state), stacked, measured, tuple(failures))
