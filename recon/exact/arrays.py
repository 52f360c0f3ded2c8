"""What NumPy arrays and traced JAX arrays do not share: writes, loops, sizes, random numbers.

The search is one set of functions of arrays.  NumPy runs them as they stand, with no compile,
for a victim on the host; JAX traces them where the victim can be traced.  What both do alike is
taken from `namespace`; this is the rest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = Any  # NumPy's or JAX's
LARGE = 1 << 22  # numbers in an array above which work on it is worth several threads
THREADS = 4  # at most: more would wait for memory, and take more of it


def namespace(a: Any) -> ModuleType:
    """numpy for a NumPy array or scalar, jax.numpy for any other."""
    return np if isinstance(a, np.ndarray | np.generic) else jnp


def put(a: Any, index: Any, value: Any) -> Any:
    """a with a[index] = value; entries of an index array [n] out of bounds are dropped.

    A NumPy array is written in place and so consumed, as JAX consumes a donated one.
    """
    if namespace(a) is jnp:
        if jnp.ndim(index) == 0:
            return lax.dynamic_update_index_in_dim(a, value, index, 0)
        return a.at[index].set(value, mode="drop")
    if not a.flags.writeable:  # JAX's memory
        a = a.copy()
    if isinstance(index, np.ndarray) and (index >= len(a)).any():
        kept = index < len(a)
        index, value = index[kept], value[kept] if np.ndim(value) else value
    a[index] = value
    return a


def replace(a: Any, mask: Any, source: Any, index: Any) -> Any:
    """a [n, d] with source[index] where mask [n] holds; a NumPy array is written in place."""
    if namespace(a) is np:
        a[mask] = source[index[mask]]
        return a
    return jnp.where(mask[:, None], source[index], a)


def squares(a: Any) -> Any:
    """Sums of the squares of a [n, ...], [n]: in NumPy without an array of squares."""
    if namespace(a) is np:
        flat = a.reshape(len(a), math.prod(a.shape[1:]))
        return np.einsum("nd,nd->n", flat, flat)
    return jnp.sum(a**2, tuple(range(1, a.ndim)))


def loop(count: Any, body: Callable[[Any, Any], Any], carry: Any, apart: bool = False) -> Any:
    """carry = body(i, carry) for i in range(count).

    apart: each i only writes to its own places of the arrays it is given, and only reads there:
    NumPy may then do several at once.
    """
    if isinstance(count, jax.Array) or any(
        isinstance(a, jax.Array) for a in jax.tree.leaves(carry)
    ):
        return lax.fori_loop(0, count, body, carry)
    if apart:
        carry = tuple(a if a.flags.writeable else a.copy() for a in carry)
        each(lambda i: body(i, carry), range(count), True)
        return carry
    for i in range(count):
        carry = body(i, carry)
    return carry


def each(f: Callable[[Any], Any], items: Iterable[Any], large: bool) -> list[Any]:
    """[f(item) for item in items]; where the arrays are large, in NumPy on all cores."""
    if not large:
        return [f(item) for item in items]
    return [a.result() for a in [_pool().submit(copy_context().run, f, item) for item in items]]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(os.cpu_count() or 1, THREADS), "recon")


def either(which: Any, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """one() where `which` holds, else other()."""
    if isinstance(which, jax.Array):
        return lax.cond(which, one, other)
    return one() if which else other()


def nonzero(mask: Any, size: int, fill: int) -> Any:
    """Where mask [n] holds, as [size] indices: the first ones, then `fill`."""
    xp = namespace(mask)
    if xp is np:
        found = np.flatnonzero(mask)[:size]
        return np.concatenate([found, np.full(size - len(found), fill)])
    slot = xp.where(mask, xp.cumsum(mask) - 1, size)
    return put(xp.full(size, fill), slot, xp.arange(len(mask)))


def split(key: Any, count: int) -> Any:
    """`count` new keys; a NumPy key is what seeds a generator, two words."""
    if namespace(key) is jnp:
        return jax.random.split(key, count)
    return np.random.default_rng(key).integers(1 << 32, size=(count, 2), dtype=np.uint32)


def normal(key: Any, shape: tuple[int, ...]) -> Any:
    """Standard normal float64, by a JAX key, or by a NumPy key or generator."""
    if isinstance(key, jax.Array):
        return jax.random.normal(key, shape, jnp.float64)
    return np.random.default_rng(key).standard_normal(shape)


def host_key(key: Any) -> np.ndarray:
    """The NumPy key [2] that stands for a JAX key (or is one)."""
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    return np.asarray(key).astype(np.uint32)
