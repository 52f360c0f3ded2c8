"""Lemmas 2 and 3: the probabilities the paper bounds, measured and computed exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from recon.experiments.common import Measured, Row, columns, interval


def lemma2_bound(epsilon: float, separation: float) -> float:
    """The bound of Lemma 2 on P(|t1 - t2| <= epsilon), as printed; it may exceed 1."""
    return 3 ** (4 / 3) * (epsilon / separation) ** (2 / 3)


def lemma2_exact(epsilon: float, separation: float, nodes: int = 1 << 16) -> float:
    """P(|t1 - t2| <= epsilon) for unit vectors with |<a, b>| = 1 - separation, exactly.

    Our own derivation.  Let theta be the angle between a and b.  In their plane
    t1 - t2 = sin(theta) (v1 u2 - u1 v2) / (<a, v> <b, v>).  Given v, the bracket is
    |v| times a standard normal, and a standard normal over |v| lies within [-y, y] with
    probability y / sqrt(1 + y^2), whatever the direction of v.  That direction is
    uniform, hence with psi uniform on the circle

        P = E[y / sqrt(1 + y^2)],   y = epsilon |cos(psi) + cos(theta)| / (2 sin(theta)).

    The mean is taken by the midpoint rule on `nodes` angles.
    """
    cosine = 1 - separation
    sine = np.sqrt(1 - cosine**2)
    psi = (np.arange(nodes) + 0.5) * np.pi / nodes
    y = epsilon * np.abs(np.cos(psi) + cosine) / (2 * sine)
    return float(np.mean(y / np.sqrt(1 + y**2)))


def lemma2_sharp(epsilon: float, separation: float) -> float:
    """A sharper bound than Lemma 2's, linear in epsilon (ours): epsilon / (2 sin(theta)).

    It follows from `lemma2_exact` by y / sqrt(1 + y^2) <= y and E|cos(psi) + cos(theta)| <= 1,
    and is at most epsilon / (2 sqrt(separation)).  For small epsilon it is tight to within
    pi/2 when a and b are orthogonal, and tight in the limit when they are nearly collinear.
    """
    return epsilon / (2 * np.sqrt(separation * (2 - separation)))


@partial(jax.jit, static_argnames=("dim", "draws"))
def _close_pairs(
    key: jax.Array, separations: jax.Array, epsilons: jax.Array, *, dim: int, draws: int
) -> jax.Array:
    """How many of `draws` pairs (u, v) bring t1 and t2 within each epsilon: [C, E]."""
    vector_key, u_key, v_key = jax.random.split(key, 3)
    a, other = jax.random.normal(vector_key, (2, dim))
    a = a / jnp.linalg.norm(a)
    other = other - (other @ a) * a
    other = other / jnp.linalg.norm(other)
    cosine = 1 - separations
    b = jnp.outer(cosine, a) + jnp.outer(jnp.sqrt(1 - cosine**2), other)
    u, v = jax.random.normal(u_key, (draws, dim)), jax.random.normal(v_key, (draws, dim))
    t_a = -(u @ a) / (v @ a)
    t_b = -(u @ b.T) / (v @ b.T)
    gap = jnp.abs(jax.vmap(lambda t: t - t_a, in_axes=1)(t_b))  # [C, draws]
    return jax.lax.map(lambda epsilon: jnp.sum(gap <= epsilon, axis=1), epsilons).T


@dataclass(frozen=True)
class _Lemma(Measured):
    """What both share: random lines are drawn in chunks, and hits are counted."""

    dims: tuple[int, ...] = (2, 32)
    draws: int = 1 << 22
    chunk: int = 1 << 16
    seed: int = 0

    def small(self) -> Any:
        """One d, 65,536 draws."""
        return replace(self, dims=(2,), draws=1 << 16)

    def count(self, hits: Any, dim: int, settings: tuple[Any, ...]) -> tuple[np.ndarray, int]:
        """hits(key, *settings) summed over all chunks, and how many lines were drawn."""
        key = jax.random.fold_in(jax.random.key(self.seed), dim)
        keys = jax.random.split(key, -(-self.draws // self.chunk))
        counted = np.sum([np.asarray(hits(key, *settings)) for key in keys], axis=0)
        return counted, len(keys) * self.chunk


def seen_of(hits: int, draws: int) -> Row:
    """The columns of a measured probability."""
    of = {"draws": draws, "hits": hits, "probability": hits / draws}
    return of | dict(zip(("low", "high"), interval(hits, draws), strict=True))


@dataclass(frozen=True)
class Lemma2(_Lemma):
    """Lemma 2: two kinks of a random line are rarely within epsilon of each other.

    Claim:   P(|t1 - t2| <= epsilon) <= 3^(4/3) (epsilon / c)^(2/3), section 3.1.
    Time:    10 seconds on 2 CPU cores.
    Expect:  the bound holds everywhere, far from tightly: the true probability is linear in
             epsilon, close to epsilon / (2 sqrt(2 c)) for small c (`lemma2_exact`), so at
             c = 1 and epsilon = 1e-4 it is 3.2e-5 and the bound 9.3e-3.

    u and v are drawn in all `dim` dimensions, new unit vectors a and b for every chunk; all
    separations and epsilons look at the same draws.  P does not depend on dim, nor on
    the sign of <a, b>: turning a into -a leaves t1 where it was.
    """

    shown: ClassVar[tuple[str, ...]] = columns(
        "dim separation epsilon probability exact sharp_bound bound"
    )
    separations: tuple[float, ...] = (0.01, 0.1, 0.5, 1.0)
    epsilons: tuple[float, ...] = tuple(float(f"{10 ** (k / 2):.3g}") for k in range(-8, 3))

    def rows(self) -> Iterator[Row]:
        """One a dimension, separation and epsilon."""
        settings = jnp.asarray(self.separations), jnp.asarray(self.epsilons)
        for dim in self.dims:
            close = partial(_close_pairs, dim=dim, draws=self.chunk)
            hits, draws = self.count(close, dim, settings)
            for (i, j), seen in np.ndenumerate(hits):
                separation, epsilon = self.separations[i], self.epsilons[j]
                of = {"dim": dim, "separation": separation, "epsilon": epsilon}
                of |= seen_of(int(seen), draws) | {"exact": lemma2_exact(epsilon, separation)}
                of |= {"bound": lemma2_bound(epsilon, separation)}
                yield of | {"sharp_bound": lemma2_sharp(epsilon, separation)}


@partial(jax.jit, static_argnames=("dim", "draws"))
def _far_kinks(key: jax.Array, reaches: jax.Array, *, dim: int, draws: int) -> jax.Array:
    """How many of `draws` pairs (u, v) put the kink of a beyond each reach: [L]."""
    vector_key, u_key, v_key = jax.random.split(key, 3)
    a = jax.random.normal(vector_key, (dim,))
    a = a / jnp.linalg.norm(a)
    u, v = jax.random.normal(u_key, (draws, dim)), jax.random.normal(v_key, (draws, dim))
    t = jnp.abs((u @ a) / (v @ a))
    return jax.lax.map(lambda reach: jnp.sum(t >= reach), reaches)


@dataclass(frozen=True)
class Lemma3(_Lemma):
    """Lemma 3: the kink of a unit is rarely far out on a random line.

    Claim:   P(|t| >= l) <= 2 / (pi l), section 3.1.
    Time:    5 seconds on 2 CPU cores.
    Expect:  t is the ratio of two independent standard normals, a standard Cauchy variable,
             so P = (2/pi) atan(1/l) exactly; the bound holds and is tight as l grows
             (0.3 % above the truth at l = 10).
    """

    shown: ClassVar[tuple[str, ...]] = columns("dim reach probability exact bound")
    reaches: tuple[float, ...] = tuple(float(f"{10 ** (k / 4):.3g}") for k in range(-4, 13))

    def rows(self) -> Iterator[Row]:
        """One a dimension and reach."""
        reaches = (jnp.asarray(self.reaches),)
        for dim in self.dims:
            hits, draws = self.count(partial(_far_kinks, dim=dim, draws=self.chunk), dim, reaches)
            for reach, seen in zip(self.reaches, hits.tolist(), strict=True):
                theory = {"exact": float(2 / np.pi * np.arctan(1 / reach))}
                theory |= {"bound": float(2 / (np.pi * reach))}
                yield {"dim": dim, "reach": reach} | seen_of(seen, draws) | theory
