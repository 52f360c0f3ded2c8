"""What a student is measured on: its accuracy, and how often it agrees with the victim."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recon.distill.students import Student
from recon.explanations import label


class Probe(NamedTuple):
    """What a student is measured on: x [m, d], labels y [m], the victim's classes [m].

    Of a regression y and the victim's are values, floats [m, K] or, of one value, [m].
    """

    x: Any
    y: Any
    victim: Any


def evaluate(
    student: Student, variables: Any, probe: Probe, many: bool = False, batch: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and agreement with the victim, in [0, 1]; [R] each for the variables of R runs.

    One logit names class 1 above 0.  Of a regression the two are the share of the variance that
    is explained, 1 - |error|^2 / |values - their mean|^2, at most 1.  An answer that is not finite
    is none: it names no class, and explains -inf.
    """
    x, regression = np.asarray(probe.x), np.issubdtype(np.asarray(probe.victim).dtype, np.floating)
    ask, axis = (_values, -2) if regression else (_classes, -1)
    parts = [ask(variables, x[i : i + batch], student, many) for i in range(0, len(x), batch)]
    answers = np.concatenate(parts, axis=axis)
    score = _explained if regression else _hits
    return score(answers, np.asarray(probe.y)), score(answers, np.asarray(probe.victim))


def _hits(classes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.asarray(((classes >= 0) & (classes == truth)).mean(axis=-1))


def _explained(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    truth = truth.reshape(len(truth), -1)
    error = np.mean(np.sum((values - truth) ** 2, axis=-1), axis=-1)
    explained = 1 - error / (truth.var(axis=0).sum() or 1.0)
    return np.where(np.isfinite(explained), explained, -np.inf)


@partial(jax.jit, static_argnames=("student", "many"))
def _classes(variables: Any, x: jax.Array, student: Student, many: bool) -> jax.Array:
    def one(variables: Any) -> jax.Array:
        logits = student.apply(variables, x)
        return jnp.where(jnp.isfinite(logits).all(axis=-1), label(logits), -1)

    return (jax.vmap(one) if many else one)(variables)


@partial(jax.jit, static_argnames=("student", "many"))
def _values(variables: Any, x: jax.Array, student: Student, many: bool) -> jax.Array:
    def one(variables: Any) -> jax.Array:
        return student.apply(variables, x)

    return (jax.vmap(one) if many else one)(variables)
