"""Several students of the same replies answer as one: ours, not the paper's.

Few replies are fitted by many networks.  Students from first weights of their own end at different
ones, and where they err they err apart.  An attacker sees which of them fit the replies best,
keeps those and answers by the mean of their logits; it asks nothing more.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon.distill.students import Student

TAIL = 0.05  # of the steps, the last ones, that a residual is the mean of


def residual(curve: np.ndarray) -> np.ndarray:
    """The mean of a curve [..., T] over its last steps: one step's loss is a draw."""
    return np.asarray(np.mean(curve[..., -max(1, int(TAIL * curve.shape[-1])) :], axis=-1))


def closest(losses: np.ndarray, count: int) -> np.ndarray:
    """The `count` of R runs that fit best, the best first: losses [R, T] -> [count].

    A run that failed has a loss that is not finite, and comes last.
    """
    left = residual(losses)
    return np.argsort(np.where(np.isfinite(left), left, np.inf), kind="stable")[:count]


@cache
def mean(student: Student) -> Student:
    """The student of which variables [R, ...] are R members; it answers by their mean logits.

    Only for `evaluate`.  Equal students give the same object, so it compiles once.
    """

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        members = len(jax.tree.leaves(variables)[0])  # in turn: batched kernels are slow on a CPU
        each = [
            student.apply(jax.tree.map(lambda v, r=r: v[r], variables), x) for r in range(members)
        ]
        return jnp.mean(jnp.stack(each), axis=0)

    return Student(student.init, apply)
