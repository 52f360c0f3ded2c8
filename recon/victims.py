"""Victims to attack: random networks with a planted truth."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from recon import oracles
from recon.networks import TwoLayer


def random_network(
    key: Any, dim: int, width: int, outputs: int = 1, bias: bool = False
) -> TwoLayer:
    """A random two-layer network that meets the paper's assumptions (1-3) almost surely.

    Rows are uniform on the unit sphere (assumption 1), weights standard normal; with
    `bias`, hidden and output biases are standard normal too.  The distributions are our
    own choice, the paper names none.  Float64 under `jax.enable_x64(True)`.
    """
    row_key, weight_key, bias_key, offset_key = jax.random.split(key, 4)
    rows = jax.random.normal(row_key, (width, dim))
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    return TwoLayer(
        rows=rows,
        bias=jax.random.normal(bias_key, (width,)) if bias else jnp.zeros(width),
        weights=jax.random.normal(weight_key, (outputs, width)),
        slope=jnp.zeros((outputs, dim)),
        offset=jax.random.normal(offset_key, (outputs,)) if bias else jnp.zeros(outputs),
    )


def oracle_of(network: TwoLayer) -> oracles.Oracle:
    """The oracle of a recorded network; all of one shape share a compiled attack."""
    return oracles.from_jax(TwoLayer.__call__, network)
