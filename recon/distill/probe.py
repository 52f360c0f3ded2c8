"""What a student is measured on: its accuracy, and how often it agrees with the victim."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recon.distill.students import Student


class Probe(NamedTuple):
    """What a student is measured on: x [m, d], labels y [m], the victim's classes [m]."""

    x: Any
    y: Any
    victim: Any


def evaluate(
    student: Student, variables: Any, probe: Probe, many: bool = False, batch: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and agreement with the victim, in [0, 1]; [R] each for the variables of R runs.

    An answer that is not finite is none: it names no class.
    """
    x = np.asarray(probe.x)
    classes = np.concatenate(
        [_classes(variables, x[i : i + batch], student, many) for i in range(0, len(x), batch)],
        axis=-1,
    )
    named = classes >= 0
    hits = [
        (named & (classes == np.asarray(truth))).mean(axis=-1) for truth in (probe.y, probe.victim)
    ]
    return np.asarray(hits[0]), np.asarray(hits[1])


@partial(jax.jit, static_argnames=("student", "many"))
def _classes(variables: Any, x: jax.Array, student: Student, many: bool) -> jax.Array:
    def one(variables: Any) -> jax.Array:
        logits = student.apply(variables, x)
        return jnp.where(jnp.isfinite(logits).all(axis=-1), jnp.argmax(logits, axis=-1), -1)

    return (jax.vmap(one) if many else one)(variables)
