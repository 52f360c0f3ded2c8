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
row and long.  Array unit that is not touched is on at exactly one of the two, as at the
two ends of any long line, so with S = gradient(+end) + gradient(-end) of that line

    gradient(x0 + y) + gradient(x0 - y) - S = sum over touched k of z_k J_k,

where z_k = 1 if k is a single unit (on at both points), and 0 if J_k is the sum of
several units (each on at one of the two).  One linear solve therefore tells *which* of
up to d/2 presumed units are wrong, from two queries.  This is our own construction; the
paper certifies a kink by bisecting to eps (Algorithm 1a).  NumPy arrays or traced ones.
"""

from __future__ import annotations

import numpy as np

from recon.exact import arrays
from recon.exact.arrays import Array

DEPENDENT = 1e-6  # squared distance of a unit row from the span of earlier ones, below: dropped


def inverse(gram: Array, valid: Array, floor: float = DEPENDENT) -> tuple[Array, Array]:
    """Inverse of a Gram matrix [s, s] of unit rows, on the rows it keeps [s]: (inverse, keep).

    Rows that are not valid, or depend on earlier ones, are not kept; the inverse is zero
    there.  Gauss-Jordan by the symmetric sweep operator: it drops rows as it goes, and needs
    no LAPACK call inside a traced loop.
    """
    xp = arrays.namespace(gram)
    if xp is np and _independent(gram, valid, floor):
        a, inner = np.zeros_like(gram), np.ix_(valid, valid)
        a[inner] = np.linalg.inv(gram[inner])
        return a, valid.copy()

    def sweep(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a, keep = carry
        good = valid[j] & (a[j, j] > floor)
        pivot = xp.where(good, a[j, j], 1.0)
        column = a[:, j] / pivot
        here = xp.arange(len(column)) == j
        line = xp.where(here, -1.0 / pivot, column)
        swept = xp.where(here[None], line[:, None], a - column[:, None] * a[j][None])
        swept = xp.where(here[:, None], line[None], swept)
        return xp.where(good, swept, a), xp.where(here, good, keep)

    a, keep = arrays.loop(gram.shape[0], sweep, (gram, xp.zeros_like(valid)))
    return xp.where(keep[:, None] & keep[None], -a, 0.0), keep


def _independent(gram: np.ndarray, valid: np.ndarray, floor: float) -> bool:
    """Whether no valid row depends on earlier ones: its distance from them is Cholesky's pivot."""
    try:
        pivots = np.diag(np.linalg.cholesky(gram[np.ix_(valid, valid)]))
    except np.linalg.LinAlgError:
        return False
    return bool((pivots**2 > floor).all())


def factor(rows: Array, valid: Array) -> tuple[Array, Array, Array]:
    """Independent rows among unit rows [s, d] marked valid [s]: (rows, keep, inverse Gram).

    Rows not kept are zeroed, so that they take no part.
    """
    inverse_gram, keep = inverse(rows @ rows.T, valid)
    if isinstance(keep, np.ndarray) and keep.all():
        return rows, keep, inverse_gram
    return arrays.namespace(rows).where(keep[:, None], rows, 0.0), keep, inverse_gram


def coefficients(rows: Array, inverse_gram: Array, vector: Array) -> Array:
    """Least-squares coefficients [s] of vector [d] in the rows [s, d], refined once."""
    first = inverse_gram @ (rows @ vector)
    return first + inverse_gram @ (rows @ (vector - first @ rows))


def touch(key: Array, rows: Array, inverse_gram: Array, level: Array, radius: Array) -> Array:
    """The pair x0 + y, x0 - y [2, d] with rows x = level [s] at both and |y| = radius.

    Takes the rows and inverse of `factor`; needs fewer rows than dimensions.  key: a JAX key, or
    what seeds a NumPy generator, or one.
    """
    along = arrays.normal(key, rows.shape[1:])
    radius = arrays.namespace(rows).asarray(radius)
    return pairs(along[None], rows, inverse_gram, level[None], radius[None])[0]


def pairs(along: Array, rows: Array, inverse_gram: Array, level: Array, radius: Array) -> Array:
    """Pairs [p, 2, d] of `touch` for levels [p, s] and radii [p], each with y along a random
    vector [p, d], so far as the rows allow.  All at once, as every product reads the rows.
    """
    xp = arrays.namespace(rows)
    first = xp.concatenate([-(along @ rows.T), level]) @ inverse_gram @ rows
    y, foot = along + first[: len(along)], first[len(along) :]
    y = y * (radius / xp.linalg.norm(y, axis=1))[:, None]
    x, target = xp.concatenate([foot + y, foot - y]), xp.concatenate([level, level])
    for _ in range(2):  # Gram systems square the condition number; refinement undoes it
        x = x + ((target - x @ rows.T) @ inverse_gram) @ rows
    return xp.moveaxis(x.reshape(2, *along.shape), 0, 1)
