"""The certificate: a recovered network held against the victim on fresh queries.

Apart from the attack: it sees the recovered network and the oracle, nothing of the search.
Three kinds of fresh points, one round:

- beside every hyperplane of the network at once (`touch`), near the origin and far out: each
  unit that is really several gives itself away there, at y or at -y, and so does a unit that
  was missed, however far from the origin it sets in, up to the ends of the line;
- standard normal points, the distribution errors are reported on;
- points on a fresh line through the origin region, far and near.

Both the values and the gradients count.  What none of this can see is a change confined
to a region that no such point meets.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from recon.exact import touch
from recon.networks import TwoLayer
from recon.oracles import Reply

NORMAL = 2  # fresh standard normal points
NORMAL_IF_OTHER_WIDTH = 16  # the same, where the width found is not the one told
NORMAL_IF_MISSING = 64  # the same, where fewer were found than told, or none
FEW = 8  # units up to which as many normal points are asked as where the width is another
ON_LINE = 1  # fresh points on the search's line


def group_size(dim: int) -> int:
    """Most rows touched at once: half the dimensions keep the systems well conditioned."""
    return max(1, min(dim // 2, 128))


def points(
    key: Array,
    network: TwoLayer,
    count: int,
    eps: float,
    normal: int,
    u: Array,
    v: Array,
    scale: Array,
) -> np.ndarray:
    """Fresh queries [n, d] for a network of which the first `count` units are real.

    `normal` standard normal points, one on the line u + t v, then for each group of rows a pair
    near the origin and a pair as far out as the line reaches.  scale is the size of the victim's
    gradient, by which the rounding of a row is judged.
    """
    groups = -(-count // group_size(network.rows.shape[1]))
    fresh, touched, keep, alone, far = (
        np.asarray(a) for a in _points(key, network, jnp.asarray(count), eps, normal, u, v, scale)
    )
    if network.rows.shape[1] == 1:  # a hyperplane is a point: nothing to touch from afar
        groups, keep = 0, np.zeros_like(keep)
    left = ~keep[:count]  # rows that depend on others of their group
    alone = alone[:count][left].reshape(-1, network.rows.shape[1])
    return np.concatenate([fresh, touched[: 4 * groups], alone, far[: 0 if groups else 2]])


@partial(jax.jit, static_argnums=(3, 4))
def _points(
    key: Array,
    network: TwoLayer,
    count: Array,
    eps: float,
    normal: int,
    u: Array,
    v: Array,
    scale: Array,
) -> tuple[Array, ...]:
    width, dim = network.rows.shape
    normal_key, line_key, side_key, touch_key, far_key = jax.random.split(key, 5)
    around = jax.random.normal(normal_key, (normal, dim), network.rows.dtype)
    t = jnp.tan(jax.random.uniform(line_key, (ON_LINE, 1), u.dtype, -1.5, 1.5))
    group = group_size(dim)
    groups = -(-width // group)
    members = jnp.arange(groups * group).reshape(groups, group)
    sides = jax.random.rademacher(side_key, (groups, group), network.rows.dtype)
    strength = jnp.linalg.norm(network.weights, axis=0)
    reach = eps**-0.5 * jnp.linalg.norm(v)

    def one(key: Array, i: Array, side: Array) -> tuple[Array, Array, Array]:
        valid = i < count
        i = jnp.minimum(i, width - 1)
        rows, keep, inverse = touch.factor(network.rows[i], valid)
        bias = network.bias[i]
        foot = jnp.linalg.norm(jnp.where(keep, bias, 0.0))
        blur = scale / jnp.where(valid, strength[i], 1.0)
        margin = side * jnp.minimum(1e3 * eps * jnp.maximum(blur, 16.0), 1e-2)

        def pair(radius: Array, margin: Array) -> Array:
            level = jnp.where(keep, margin * radius - bias, 0.0)
            return touch.touch(key, rows, inverse, level, radius)

        near = 10 * (dim**0.5 + foot)
        around = jax.random.normal(key, rows.shape, rows.dtype) * (near / dim**0.5)
        n, level = network.rows[i], margin[:, None] * near * jnp.asarray([[1.0, -1.0]])
        level = level - (jnp.sum(around * n, 1) + bias)[:, None]
        alone = around[:, None, :] + level[:, :, None] * n[:, None, :]
        return jnp.concatenate([pair(near, margin), pair(reach, -margin)]), keep, alone

    each = (jax.random.split(touch_key, groups), members, sides)
    touched, keep, alone = jax.lax.map(lambda a: one(*a), each)
    away = jax.random.normal(far_key, (1, dim), u.dtype)
    away = away * (reach / jnp.linalg.norm(away))
    fresh = jnp.concatenate([around, u[None] + t * v[None]])
    touched, keep, alone = touched.reshape(-1, dim), keep.reshape(-1), alone.reshape(-1, 2, dim)
    return fresh, touched, keep, alone, jnp.concatenate([away, -away])


@jax.jit
def deviation(network: TwoLayer, x: Array, reply: Reply, scale: Array) -> Array:
    """The largest relative deviation over points x [n, d]; a scalar.

    Gradients are taken relative to `scale`, the largest gradient of the victim; values to
    what such a gradient makes of the point, |f| + scale |x|.  Not a number counts as infinite.
    """
    x = x.astype(network.rows.dtype)
    gradient = jnp.linalg.norm(network.gradient(x) - reply.gradient, axis=2).max(1)
    value = jnp.abs(network(x) - reply.value).max(1)
    size = jnp.abs(reply.value).max(1) + scale * jnp.linalg.norm(x, axis=1)
    worst = jnp.maximum(gradient / jnp.maximum(scale, 1e-300), value / jnp.maximum(size, 1e-300))
    worst = jnp.where(scale > 0, worst, jnp.maximum(gradient, value))
    return jnp.max(jnp.where(jnp.isnan(worst), jnp.inf, worst))
