"""Runs spread over many devices, of one process or of several.

The mesh has one axis, the runs: each device trains its share of them, and nothing is exchanged
between devices until results are fetched.  With several processes (`jax.distributed`) every one
of them makes the same calls with the same arguments, and gets all results.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def join() -> bool:
    """Join the processes that the environment names, if any; whether this is the first of them.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; on a cluster that JAX knows the
    first is enough.  Before anything else is asked of JAX.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is not None:
        count, mine = (os.environ.get(f"JAX_{name}") for name in ("NUM_PROCESSES", "PROCESS_ID"))
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            address, None if count is None else int(count), None if mine is None else int(mine)
        )
    return jax.process_index() == 0


def mesh(runs: int, count: int | None = None) -> Mesh:
    """The first `count` devices of all processes, or all; ValueError where `runs` do not fit."""
    there = jax.devices()
    count = len(there) if count is None else count
    if not 1 <= count <= len(there):
        raise ValueError(f"{count} devices asked for, {len(there)} are there")
    if runs % count:
        raise ValueError(f"{runs} runs do not divide over {count} devices evenly")
    return Mesh(np.array(there[:count]), ("run",))


def spread(tree: Any, over: Mesh) -> Any:
    """Every array [R, ...] of a tree with its share of runs on each device."""
    return _put(tree, NamedSharding(over, PartitionSpec("run")))


def copied(tree: Any, over: Mesh) -> Any:
    """Every array of a tree whole on each device."""
    return _put(tree, NamedSharding(over, PartitionSpec()))


def _put(tree: Any, sharding: NamedSharding) -> Any:
    return _bare(lambda leaf: jax.device_put(np.asarray(leaf), sharding), tree)


def fetch(tree: Any) -> Any:
    """The tree with every array whole in this process, whichever devices hold it."""
    if all(getattr(leaf, "is_fully_addressable", True) for leaf in jax.tree.leaves(tree)):
        return tree
    from jax.experimental import multihost_utils

    return _bare(
        lambda leaf: jnp.asarray(multihost_utils.process_allgather(leaf, tiled=True)), tree
    )


def _bare(move: Callable[[Any], Any], tree: Any) -> Any:
    """`move` on every leaf; keys as the numbers they are made of."""

    def one(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return move(leaf)
        return jax.random.wrap_key_data(
            move(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf)
        )

    return jax.tree.map(one, tree)
