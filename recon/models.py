"""The flax modules, and the only flax import; other files import this one when they need it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn


class _MLP(nn.Module):
    width: int
    outputs: int
    bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nn.relu(nn.Dense(self.width, use_bias=self.bias, name="hidden")(x))
        return nn.Dense(self.outputs, use_bias=self.bias, name="output")(hidden)


def mlp(width: int, outputs: int, bias: bool = True) -> nn.Module:
    """One hidden ReLU layer, x [..., d] -> logits [..., K]; without `bias`, Equation 1."""
    return _MLP(width, outputs, bias)


def mlp_arrays(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an `mlp` by the field names of `networks.TwoLayer`.

    rows [h, d], bias [h], weights [K, h], slope [K, d] (zero), offset [K], in the
    parameters' own dtype; a missing bias is zero.
    """
    rows, weights = params["hidden"]["kernel"].T, params["output"]["kernel"].T
    width, dim = rows.shape
    outputs = weights.shape[0]
    return {
        "rows": rows,
        "bias": params["hidden"].get("bias", np.zeros(width, rows.dtype)),
        "weights": weights,
        "slope": np.zeros((outputs, dim), rows.dtype),
        "offset": params["output"].get("bias", np.zeros(outputs, rows.dtype)),
    }
