"""Modules of flax (linen and nnx) and equinox as victims: JAX functions of their parameters.

All are asked as in inference: nnx and equinox modules as copies in eval or inference mode, linen
modules with the arguments of INFERENCE where their `__call__` has them.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp

from recon import oracles
from recon.replies import PLAIN
from recon.victims.brought.common import (
    Brought,
    Options,
    as_users_have_it,
    cannot_strip,
    check_logits,
    need,
    size,
)

INFERENCE = {"train": False, "training": False, "is_training": False} | {
    "deterministic": True,
    "use_running_average": True,
}


def linen(model: Any, options: Options) -> Brought:
    """A pair (module, variables), or a bound module."""
    if not isinstance(model, tuple) and model.scope is None:
        raise ValueError("a linen module does not hold its variables: give (module, variables)")
    module, variables = model if isinstance(model, tuple) else model.unbind()
    known = inspect.signature(module.__call__).parameters
    how = {name: value for name, value in INFERENCE.items() if name in known}
    return _victim(
        f"flax linen {type(module).__name__}",
        lambda variables, x: module.apply(variables, x, **how),
        variables,
        options,
        batch=True,
    )


def nnx(model: Any, options: Options) -> Brought:
    """A flax nnx module."""
    from flax import nnx

    copy = nnx.clone(model)
    copy.eval()
    definition, state = nnx.split(copy)
    return _victim(
        f"flax nnx {type(model).__name__}",
        lambda state, x: nnx.merge(definition, state)(x),
        nnx.to_pure_dict(state),
        options,
        batch=True,
    )


def equinox(model: Any, options: Options) -> Brought:
    """An equinox module of one input [d], as equinox's are; `shape` makes it one array."""
    eqx = need("equinox", "equinox")
    params, static = eqx.partition(eqx.nn.inference_mode(model), eqx.is_array)
    return _victim(
        f"equinox {type(model).__name__}",
        lambda params, x: eqx.combine(params, static)(x),
        params,
        options,
        batch=False,
    )


def function(model: Any, options: Options) -> Brought:
    """A function JAX can differentiate, f(x [d]) -> logits [K] or a scalar."""
    return _victim("JAX function", lambda _, x: model(x), (), options, batch=False)


def _victim(name: str, apply: Any, params: Any, options: Options, batch: bool) -> Brought:
    """apply(params, x) with x of `options.shape`, in a batch of one where the library has such."""
    if options.logits:
        raise cannot_strip(name)
    shape = options.sizes()

    def f(params: Any, x: jax.Array) -> Any:
        leaves = jax.tree.leaves(params)
        floats = [a.dtype for a in leaves if jnp.issubdtype(a.dtype, jnp.floating)]
        x = x.astype(floats[0]) if floats else x
        x = x.reshape(shape or x.shape)
        with as_users_have_it():
            values = apply(params, x[None] if batch else x)
        return values.reshape(-1)

    oracle = oracles.from_jax(f, params, options.view or PLAIN)
    if options.view is None:
        check_logits(oracle, size(shape), name)
    return Brought(oracle, size(shape), name)
