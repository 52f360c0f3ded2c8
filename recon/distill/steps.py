"""A training step and the state between two of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from recon.distill.bank import Bank
from recon.distill.hyper import Hyper
from recon.distill.losses import LOSSES, Batch, Scales, log_odds
from recon.distill.objective import joint
from recon.distill.students import Student
from recon.distill.unlabelled import averaged, inconsistency
from recon.optimizers import OPTIMIZERS

ALONE = 0.4  # of the steps, the first ones, in which unlabelled inputs are not used yet


class State(NamedTuple):
    """A run between two steps: all that the next step depends on, beside settings and bank.

    `finite` turns False at the first step whose loss, gradient or outcome is not finite; from
    then on the variables stay what they were before that step.  `average`, of past variables, is
    None unless inputs that were not asked about are used; it is then what the run gives.
    """

    variables: Any
    average: Any
    optimizer: Any
    key: Any
    done: jax.Array
    scales: Scales
    finite: jax.Array


def start(key: Any, hyper: Hyper, bank: Bank, student: Student) -> State:
    """The state before the first step; the key is consumed."""
    init_key, step_key = jax.random.split(key)
    variables = student.init(init_key)
    used = jnp.arange(len(bank)) < hyper.budget
    count = jnp.sum(used).astype(bank.x.dtype)

    def mean_square(rows: jax.Array) -> jax.Array:
        squares = jnp.sum(rows**2, axis=tuple(range(1, rows.ndim)))
        return jnp.sum(jnp.where(used, squares, 0)) / count

    def spread(values: jax.Array) -> jax.Array:
        mean = jnp.sum(jnp.where(used[:, None], values, 0), axis=0) / count
        return values - mean[None]

    matching = LOSSES[hyper.loss][0] is not None
    squares = Scales(
        mean_square(bank.gradient) if matching else jnp.ones_like(count),
        mean_square(log_odds(bank.probabilities) if bank.values is None else spread(bank.values)),
    )
    scales = jax.tree.map(lambda s: jnp.where(s == 0, 1, s), squares)  # of a constant victim
    done = jnp.zeros((), jnp.int32)
    # All rows of the budget are in the scales, whichever a step draws.
    finite = jnp.isfinite(scales.gradient) & jnp.isfinite(scales.outputs)
    average = variables if hyper.unlabelled else None
    return State(
        variables,
        average,
        OPTIMIZERS[hyper.optimizer].init(variables),
        step_key,
        done,
        scales,
        finite,
    )


def step(
    state: State, hyper: Hyper, bank: Bank, student: Student, rows: int | None
) -> tuple[State, dict[str, jax.Array]]:
    """One step of the optimizer on `rows` rows; returns the losses before it.

    The rows are drawn from the budget afresh, or are the whole budget where it is not larger.
    None is for a budget that is the whole bank: all of it at every step, without a copy.
    """
    key, draw_key, loss_key, other_key = jax.random.split(state.key, 4)
    if rows is None:
        asked, weights = bank, jnp.ones(len(bank), bank.x.dtype)
    else:
        order, whole = jnp.arange(rows), jnp.asarray(hyper.budget <= rows)
        drawn = jax.random.randint(draw_key, (rows,), 0, hyper.budget, jnp.int32)
        chosen = jnp.where(whole, jnp.minimum(order, hyper.budget - 1), drawn)
        asked = jax.tree.map(lambda part: part[chosen], replace(bank, unlabelled=None))
        weights = jnp.where(whole, order < hyper.budget, True).astype(bank.x.dtype)
    batch = Batch(
        x=asked.x,
        outputs=asked.outputs,
        gradient=asked.gradient,
        label=asked.label,
        weights=weights / jnp.sum(weights),
        scales=state.scales,
        view=bank.view,
    )

    temperature = None
    if hyper.temperature is not None:
        share = state.done.astype(batch.x.dtype) / hyper.steps
        first, last = (jnp.asarray(v, batch.x.dtype) for v in (hyper.temperature, hyper.cooling))
        temperature = first * last**share

    def objective(variables: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        loss, parts = joint(variables, student, hyper, batch, loss_key, temperature)
        if hyper.unlabelled:
            others = (variables, state.average, student, hyper, bank.unlabelled, other_key)
            begun = state.done >= int(ALONE * hyper.steps)
            loss += jax.lax.cond(
                begun, lambda: inconsistency(*others), lambda: jnp.zeros_like(loss)
            )
        return loss, parts

    (loss, (l_g, l_m)), slope = jax.value_and_grad(objective, has_aux=True)(state.variables)
    decay = 0.5 * (1 + jnp.cos(jnp.pi * state.done.astype(loss.dtype) / hyper.steps))
    rate = jnp.asarray(hyper.learning_rate, loss.dtype) * decay
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer count with floats
        updates, optimizer = OPTIMIZERS[hyper.optimizer].update(
            slope, state.optimizer, state.variables
        )
    shrink = jnp.asarray(hyper.weight_decay, loss.dtype)
    variables = jax.tree.map(
        lambda v, u: v - rate.astype(u.dtype) * (u + shrink.astype(u.dtype) * v),
        state.variables,
        updates,
    )
    # An overflow would otherwise be seen one step too late, after the last one not at all.
    finite = state.finite & jnp.isfinite(loss)
    finite &= jnp.isfinite(optax.tree.norm(slope)) & jnp.isfinite(optax.tree.norm(variables))
    variables, optimizer = jax.tree.map(
        partial(jnp.where, finite), (variables, optimizer), (state.variables, state.optimizer)
    )
    average = None
    if hyper.unlabelled:
        moved = averaged(state.average, variables, state.done)
        average = jax.tree.map(partial(jnp.where, finite), moved, state.average)
    after = State(variables, average, optimizer, key, state.done + 1, state.scales, finite)
    losses = {"loss": loss, "gradient": l_g, "membership": l_m}
    return after, jax.tree.map(lambda v: jnp.where(finite, v, jnp.nan), losses)
