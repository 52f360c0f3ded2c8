"""What is trained: a model as two to four functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from inspect import signature
from math import prod
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Student:
    """A model to be trained: init(key) -> variables; apply(variables, x [n, d]) -> logits [n, K].

    `apply` treats every row alone (no BatchNorm in training mode): the gradients of a whole batch
    then come from one backward pass of the batch.  `warp`, (key, x [n, d]) -> [n, d], changes
    inputs in ways that should not change their class; only `Hyper.unlabelled` needs it.
    `surrogate`, (variables, x, temperature), is `apply` with masks of that temperature; only
    `Hyper.temperature` needs it.
    Hashed by its functions: keep one Student for many runs and they share what was compiled.
    """

    init: Callable[[Any], Any]
    apply: Callable[[Any, jax.Array], jax.Array]
    warp: Callable[[Any, jax.Array], jax.Array] | None = None
    surrogate: Callable[[Any, jax.Array, Any], jax.Array] | None = None


def student(
    model: Any,
    shape: int | tuple[int, ...],
    classes: int | None = None,
    centre: float = 0.0,
    **options: Any,
) -> Student:
    """A model as a student; the same object for the same arguments, so that it compiles once.

    model: a name of `models.MODELS`, of which `options` change fields (`width=32` of an "mlp"),
    or a flax module of your own.  shape: an image's (height, width, channels), which also gives
    the student a warp, or d (or (d,)) for inputs that are not images.  classes: the K outputs,
    for a name; 1 for a scalar.  A module has a surrogate if its call takes a `temperature`.
    centre: subtracted from every input first.  Pixels in [0, 1] lie far from zero, so that at
    first a filter is on or off nearly everywhere, by the sign of its sum; about their mean it
    starts with edges, and learns to match in a fraction of the steps.  Dense layers and
    convolutions without padding still have the same functions, by their biases.  ValueError for a
    name, an option or a shape that does not fit.
    """
    from recon import models  # flax is heavy

    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if not isinstance(model, str):
        masked = "temperature" in signature(type(model).__call__).parameters
        return _student(model, shape, masked, centre)
    if classes is None:
        raise ValueError(f"a student {model!r} needs its number of classes")
    module = models.build(model, shape, classes)
    known = {f.name for f in fields(module)} - {"shape", "outputs", "name", "parent"}
    if unknown := options.keys() - known:
        raise ValueError(f"a student {model!r} has no {min(unknown)!r}; there are {sorted(known)}")
    if hasattr(module, "shape") and len(shape) != 3:
        raise ValueError(f"a student {model!r} needs images (height, width, channels), not {shape}")
    return _student(module.clone(**options), shape, True, centre)


@cache
def _student(module: Any, shape: tuple[int, ...], masked: bool, centre: float) -> Student:
    from recon import models

    x = jnp.zeros(prod(shape))
    f, tempered = models.logits(module), models.surrogate(module) if masked else None
    if centre:
        f = _about(f, centre)
        tempered = tempered and _about(tempered, centre)
    bent = warp(shape) if len(shape) == 3 else None
    return Student(lambda key: module.init(key, x), f, bent, tempered)


def _about(f: Callable[..., Any], centre: float) -> Callable[..., Any]:
    return lambda variables, x, *rest: f(variables, x - jnp.asarray(centre, x.dtype), *rest)


def knowing(plain: Student, variables: Any, layers: str) -> Student:
    """A student that has some of a victim's layers, fixed, and learns the others.

    variables: the victim's, of the student's own class; layers: the start of their names.
    ValueError where it has none.
    """
    theirs = {k: v for k, v in variables["params"].items() if k.startswith(layers)}
    masked = plain.surrogate
    if not theirs:
        raise ValueError(f"the victim has no layer {layers!r}; it has {[*variables['params']]}")

    def init(key: Any) -> Any:
        every = plain.init(key)["params"]
        return {"params": {k: v for k, v in every.items() if k not in theirs}}

    def whole(variables: Any) -> Any:
        return {"params": {**theirs, **variables["params"]}}

    def tempered(variables: Any, x: jax.Array, temperature: Any) -> jax.Array:
        assert masked is not None
        return masked(whole(variables), x, temperature)

    return Student(
        init,
        lambda variables, x: plain.apply(whole(variables), x),
        plain.warp,
        None if masked is None else tempered,
    )


@cache
def warp(shape: tuple[int, ...]) -> Callable[[Any, jax.Array], jax.Array]:
    """A function (key, x [n, d]) -> [n, d] that bends images of shape (height, width, channels).

    Rotation and shear by up to 0.25, sides stretched by up to a fifth, a shift by up to a
    fourteenth of the image and a smooth random field: strong changes that leave a digit a digit.
    """
    height, width, _ = shape
    grid = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")

    def apply(key: Any, x: jax.Array) -> jax.Array:
        n, dtype = len(x), x.dtype
        affine_key, shift_key, field_key = jax.random.split(key, 3)
        turn, shear, size, aspect = jax.random.uniform(affine_key, (4, n), dtype, -0.25, 0.25)
        size, aspect = jnp.exp(0.5 * size), jnp.exp(0.4 * aspect)
        cos, sin = size * jnp.cos(turn), size * jnp.sin(turn)
        matrix = jnp.stack([aspect * cos, -sin, sin + size * shear, cos / aspect])
        matrix = matrix.reshape(2, 2, n)
        sides = jnp.array([height, width], dtype)
        moved = jax.random.uniform(shift_key, (n, 2), dtype, -1 / 14, 1 / 14) * sides[None]
        centre = (sides - 1) / 2
        at = jnp.stack(grid).astype(dtype) - centre[:, None, None]
        where = jnp.einsum("ijn,jhw->nihw", matrix, at) + (moved + centre[None])[..., None, None]
        coarse = jax.random.normal(field_key, (n, 2, 5, 5), dtype) * jnp.asarray(0.025, dtype)
        field = jax.image.resize(coarse, (n, 2, height, width), "cubic")
        where = where + field * sides[None, :, None, None]

        def one(image: jax.Array, where: jax.Array) -> jax.Array:
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                return jax.vmap(
                    lambda plane: jax.scipy.ndimage.map_coordinates(plane, list(where), order=1),
                    in_axes=-1,
                    out_axes=-1,
                )(image)

        out = jax.vmap(one)(x.reshape(n, *shape), where)
        return out.reshape(x.shape).astype(dtype)

    return apply
