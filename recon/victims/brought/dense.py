"""Dense layers, one after the other, as a JAX function: what several kinds of model come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from recon import oracles
from recon.victims.brought.common import Brought, Options

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "exp": jnp.exp,
}


@dataclass(frozen=True)
class Dense:
    """Layers (weights [in, out], bias [out]) with an activation between them and an `end` after.

    scaling: pairs (shift [d], scale [d]) by which inputs are scaled before, (x - shift) / scale.
    """

    layers: list[tuple[Any, Any]]
    activation: str
    name: str
    end: str = "identity"
    scaling: tuple[tuple[Any, Any], ...] = ()
    note: str = ""

    @property
    def dim(self) -> int:
        """Inputs d."""
        return int(self.layers[0][0].shape[0])


def victim(model: Dense, options: Options) -> Brought:
    """An oracle JAX can trace; models of one shape share a compiled attack."""
    params = {"scaling": list(model.scaling), "layers": list(model.layers)}
    f = _function(model.activation, model.end)
    view = options.view or oracles.View()
    return Brought(oracles.from_jax(f, params, view), model.dim, model.name, model.note)


@cache
def _function(activation: str, end: str) -> Callable[[Any, jax.Array], jax.Array]:
    between, last = ACTIVATIONS[activation], ACTIVATIONS[end]

    def f(params: Any, x: jax.Array) -> Any:
        *hidden, (weights, bias) = params["layers"]
        x = x.astype(weights.dtype)
        for shift, scale in params["scaling"]:
            x = (x - shift) / scale
        with jax.default_matmul_precision("highest"):
            for rows, offset in hidden:
                x = between(x @ rows + offset)
            return last(x @ weights + bias)

    return f
