"""How a victim is asked.

An oracle answers queries x [n, d] with a `Reply`: values [n, K] and gradients
[n, K, d].  `from_jax` wraps a function JAX can trace, so a whole attack can run
on the accelerator; `from_host` wraps anything else (scikit-learn, PyTorch, a
service).  What an attack has asked is a `Cost`, a value it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Reply(NamedTuple):
    """Answers to n queries: `value` [n, K] and `gradient` [n, K, d] (d value_k / d x)."""

    value: Any
    gradient: Any


@dataclass(frozen=True)
class Cost:
    """What an attack asked of its oracle.

    gradients: rows answered with value and gradient; values: rows answered with
    the value alone; numbers: floats received; rounds: batched round trips.
    """

    gradients: int = 0
    values: int = 0
    numbers: int = 0
    rounds: int = 0

    @property
    def queries(self) -> int:
        """Rows asked, of either kind."""
        return self.gradients + self.values

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class ReplyError(ValueError):
    """A reply that cannot be used; the message names the query row."""


def check(reply: Reply, n: int, dim: int, known: int | None = None) -> Reply:
    """The reply as arrays of shape [n, K] and [n, K, d], or a ReplyError that names the row.

    known: the outputs K of earlier replies, if there were any.
    """
    value, gradient = np.asarray(reply[0]), np.asarray(reply[1])
    if value.ndim == 1 and gradient.ndim == 2:  # a scalar network answered without its K = 1 axis
        value, gradient = value[:, None], gradient[:, None, :]
    outputs = value.shape[1] if value.ndim == 2 else -1
    if value.ndim != 2 or value.shape[0] != n:
        raise ReplyError(f"values have shape {value.shape}, expected ({n}, K) for {n} query rows")
    if gradient.shape != (n, outputs, dim):
        raise ReplyError(f"gradients have shape {gradient.shape}, expected ({n}, {outputs}, {dim})")
    if known not in (None, outputs):
        raise ReplyError(f"{outputs} outputs, where earlier replies had {known}")
    check_values(value)
    bad = ~np.isfinite(gradient).all(axis=(1, 2))
    if bad.any():
        raise ReplyError(f"query row {int(bad.argmax())}: the gradient is not finite")
    return Reply(value, gradient)


def check_values(value: np.ndarray) -> np.ndarray:
    """Finite values [n, K], or a ReplyError that names the row."""
    bad = ~np.isfinite(value).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise ReplyError(f"query row {row}: the value is not finite ({value[row].tolist()})")
    return value


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["f"])
@dataclass(frozen=True)
class Oracle:
    """A victim JAX can trace: f(params, x [d]) -> [K] or scalar.

    A pytree whose leaves are the parameters, so that one compiled attack serves
    every victim of the same f and shapes.  Attacks see the replies only.
    """

    f: Callable[[Any, jax.Array], jax.Array]
    params: Any

    def __call__(self, x: jax.Array) -> Reply:
        """Replies to x [n, d], unchecked when traced: value [n, K], gradient [n, K, d]."""

        def one(row: jax.Array) -> Reply:
            value, pull = jax.vjp(lambda r: jnp.atleast_1d(self.f(self.params, r)), row)
            if value.ndim != 1:
                raise ReplyError(f"f maps {row.shape} to {value.shape}, not to [K] or a scalar")
            (gradient,) = jax.vmap(pull)(jnp.eye(value.shape[0], dtype=value.dtype))
            return Reply(value, gradient)

        return jax.vmap(one)(x)

    def value(self, x: jax.Array) -> jax.Array:
        """Values [n, K] alone: a membership query."""
        return jax.vmap(lambda row: jnp.atleast_1d(self.f(self.params, row)))(x)


@dataclass(frozen=True)
class HostOracle:
    """A victim that is not JAX; every reply is checked before it is used."""

    fn: Callable[[np.ndarray], tuple[Any, Any]]
    value_fn: Callable[[np.ndarray], Any] | None = None
    outputs: int | None = None  # K, once known

    def __call__(self, x: Any) -> Reply:
        """Checked replies to x [n, d]; raises ReplyError."""
        x = np.array(x)  # the victim's own, to scribble on
        n, dim = x.shape
        value, gradient = self.fn(x)
        return check(Reply(value, gradient), n, dim, self.outputs)

    def value(self, x: Any) -> np.ndarray:
        """Checked values [n, K]; raises ReplyError."""
        x = np.array(x)
        value = np.asarray(self.fn(x)[0] if self.value_fn is None else self.value_fn(x))
        value = value[:, None] if value.ndim == 1 else value
        if value.ndim != 2 or value.shape[0] != x.shape[0]:
            raise ReplyError(f"values have shape {value.shape}, expected ({x.shape[0]}, K)")
        return check_values(value)


AnyOracle = Oracle | HostOracle


def from_jax(f: Callable, params: Any = None) -> Oracle:
    """An oracle for a JAX function f(x [d]) -> [K] or scalar, or f(params, x) with params given.

    Giving the parameters apart lets JAX reuse one compiled attack for many victims.
    """
    if params is None:
        return Oracle(_Closed(f), ())
    return Oracle(f, params)


@dataclass(frozen=True)
class _Closed:
    """f(x) in the form f(params, x); equal for equal f, so a jitted attack is not compiled anew."""

    f: Callable

    def __call__(self, _: Any, x: jax.Array) -> jax.Array:
        return self.f(x)


def from_host(fn: Callable, value_fn: Callable | None = None) -> HostOracle:
    """An oracle for fn(numpy [n, d]) -> (values [n, K], gradients [n, K, d]).

    A scalar network may answer ([n], [n, d]).  value_fn(x) -> values serves
    membership queries where values alone are cheaper.
    """
    return HostOracle(fn, value_fn)


def recorded(oracle: HostOracle, path: str | Path) -> HostOracle:
    """The oracle with a durable record of its replies in the .npz file `path`.

    Rows already in the record are answered from it, so an attack that was cut off (a service
    that raised, a machine that went down) and is run again with the same key asks only what it
    had not yet been told.  Written after every batch, whole or not at all; x, value and gradient
    are its arrays.  The returned cost of an attack counts every row it used, recorded or not.
    """
    path = Path(path).with_suffix(".npz")
    known: dict[bytes, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            for row in zip(file["x"], file["value"], file["gradient"], strict=True):
                known[row[0].tobytes()] = row

    def fn(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        new = {row.tobytes(): row for row in x if row.tobytes() not in known}
        if new:
            asked = np.stack(list(new.values()))
            reply = oracle(asked)
            for name, *row in zip(new, asked, *reply, strict=True):
                known[name] = tuple(row)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial_file = path.with_suffix(".part.npz")
            rows, value, gradient = map(np.stack, zip(*known.values(), strict=True))
            np.savez(partial_file, x=rows, value=value, gradient=gradient)
            partial_file.replace(path)
        told = [known[row.tobytes()] for row in x]
        return np.stack([r[1] for r in told]), np.stack([r[2] for r in told])

    return HostOracle(fn)
