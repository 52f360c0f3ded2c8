"""Points that lie on many hyperplanes at once.

The search (`lines`) and the certificate (`certify`) rest on one observation.  Take
presumed units whose rows N_k are linearly independent, and choose x with
N_k x + b_k = m_k for tiny margins m_k and otherwise random.  Such an x sits beside
*every* presumed kink at once, so one query tests them all:

                  i    D = J_i + J_j     j         a pair of units taken for one:
           off    |  off     |    on     |  on     its hyperplane D lies elsewhere,
          --------+----------x-----------+------   so x beside D finds i on and j off,
                                                   or both on, or both off

`touch` returns the antipodal pair x0 + y, x0 - y with y orthogonal to every touched
row and long.  Any unit that is not touched is on at exactly one of the two, as at the
two ends of any long line, so with S = gradient(+end) + gradient(-end) of that line

    gradient(x0 + y) + gradient(x0 - y) - S = sum over touched k of z_k J_k,

where z_k = 1 if k is a single unit (on at both points), and 0 if J_k is the sum of
several units (each on at one of the two).  One linear solve therefore tells *which* of
up to d/2 presumed units are wrong, from two queries.  This is our own construction; the
paper certifies a kink by bisecting to eps (Algorithm 1a).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

DEPENDENT = 1e-6  # squared distance of a unit row from the span of earlier ones, below: dropped


def inverse(gram: Array, valid: Array, floor: float = DEPENDENT) -> tuple[Array, Array]:
    """Inverse of a Gram matrix [s, s] of unit rows, on the rows it keeps [s]: (inverse, keep).

    Rows that are not valid, or depend on earlier ones, are not kept; the inverse is zero
    there.  Gauss-Jordan by the symmetric sweep operator: it drops rows as it goes, and needs
    no LAPACK call inside a loop.
    """

    def sweep(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a, keep = carry
        good = valid[j] & (a[j, j] > floor)
        column = a[:, j] / jnp.where(good, a[j, j], 1.0)
        swept = a - jnp.outer(column, a[j])
        swept = swept.at[j].set(column).at[:, j].set(column)
        swept = swept.at[j, j].set(-1.0 / jnp.where(good, a[j, j], 1.0))
        return jnp.where(good, swept, a), keep.at[j].set(good)

    a, keep = jax.lax.fori_loop(0, gram.shape[0], sweep, (gram, jnp.zeros_like(valid)))
    return jnp.where(keep[:, None] & keep[None], -a, 0.0), keep


def factor(rows: Array, valid: Array) -> tuple[Array, Array, Array]:
    """Independent rows among unit rows [s, d] marked valid [s]: (rows, keep, inverse Gram).

    Rows not kept are zeroed, so that they take no part.
    """
    inverse_gram, keep = inverse(rows @ rows.T, valid)
    return jnp.where(keep[:, None], rows, 0.0), keep, inverse_gram


def coefficients(rows: Array, inverse_gram: Array, vector: Array) -> Array:
    """Least-squares coefficients [s] of vector [d] in the rows [s, d], refined once."""
    first = inverse_gram @ (rows @ vector)
    return first + inverse_gram @ (rows @ (vector - first @ rows))


def touch(key: Array, rows: Array, inverse_gram: Array, level: Array, radius: Array) -> Array:
    """The pair x0 + y, x0 - y [2, d] with rows x = level [s] at both and |y| = radius.

    Takes the rows and inverse of `factor`; needs fewer rows than dimensions.
    """
    scaled = jax.random.normal(key, rows.shape[1:], rows.dtype)

    def onto(x: Array, target: Array) -> Array:
        for _ in range(3):  # Gram systems square the condition number; refinement undoes it
            x = x + (inverse_gram @ (target - rows @ x)) @ rows
        return x

    y = onto(scaled, jnp.zeros_like(level))
    y = y * (radius / jnp.linalg.norm(y))
    foot = onto(jnp.zeros_like(y), level)
    return jnp.stack([onto(foot + y, level), onto(foot - y, level)])
