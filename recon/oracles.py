"""How a victim is asked: the one door.

An oracle answers queries x [n, d] with a `Reply`, by default values [n, K] and gradients
[n, K, d]; its `View` says what else.  `from_jax` wraps a function JAX can trace, so a whole attack
can run on the accelerator; `from_host` wraps anything else (scikit-learn, PyTorch, a service).
`ask` asks either, checks what comes back and counts what it cost; an attack returns its `Cost`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recon.explanations import OUTPUTS, SHOWN, value_and_jacobian
from recon.replies import PLAIN, Cost, Reply, ReplyError, View, ViewError, check, check_values

__all__ = [
    "AnyOracle",
    "Cost",
    "Form",
    "HostOracle",
    "Oracle",
    "Reply",
    "ReplyError",
    "View",
    "ViewError",
    "ask",
    "check",
    "check_values",
    "from_host",
    "from_jax",
    "need",
]

PADDING = 32  # rows to a multiple of which a batch is filled up, so that few shapes are compiled
CHUNK = 64  # queries that are traced to learn a victim's form, and mostly answered at once


class Form(NamedTuple):
    """Outputs K; dtypes of queries and of replies (the coarsest); what it cost to learn them, and
    the values [n, K] and gradients [n, K, d] seen on the way.
    """

    outputs: int
    asked: str
    replied: str
    cost: Cost
    value: np.ndarray
    gradient: np.ndarray


@partial(jax.tree_util.register_dataclass, data_fields=["params", "key"], meta_fields=["f", "view"])
@dataclass(frozen=True)
class Oracle:
    """A victim JAX can trace: f(params, x [d]) -> [K] or scalar, the logits or values.

    A pytree whose leaves are the parameters, so that one compiled attack serves
    every victim of the same f and shapes.  Attacks see the replies only.
    view: what the service computes from f; key: of the noise of its explanations.
    """

    traced: ClassVar[bool] = True
    repeats: ClassVar[int] = 1
    f: Callable[[Any, jax.Array], jax.Array]
    params: Any
    view: View = field(default=PLAIN, kw_only=True)
    key: Any = field(default=None, kw_only=True)

    def __call__(self, x: jax.Array, first: Any = 0) -> Reply:
        """Replies to x [n, d], unchecked when traced: value [n, K], gradient [n, K, d].

        The noise of row i comes from the key folded with first + i.
        """
        if self.view == PLAIN:
            return jax.vmap(lambda row: Reply(*value_and_jacobian(self._raw, row)))(x)
        key = jax.random.key(0) if self.key is None else self.key
        keys = jax.vmap(partial(jax.random.fold_in, key))(first + jnp.arange(len(x)))
        return jax.vmap(self._one)(x, keys)

    def value(self, x: jax.Array) -> Any:
        """Values [n, K] alone: a membership query."""
        return jax.vmap(lambda row: OUTPUTS[self.view.outputs](self._raw(row)))(x)

    def _raw(self, row: jax.Array) -> jax.Array:
        value = jnp.atleast_1d(self.f(self.params, row))
        if value.ndim != 1:
            raise ReplyError(f"f maps {row.shape} to {value.shape}, not to [K] or a scalar")
        return value

    def _one(self, row: jax.Array, key: Any) -> Reply:
        view = self.view
        value = OUTPUTS[view.outputs](self._raw(row))
        if view.explanation == "none":
            return Reply(value, None)
        explained: Any = lambda z: OUTPUTS[view.of](self._raw(z))  # noqa: E731
        return Reply(value, SHOWN[view.shown].show(view.explain(explained, row, key)))

    def asked(self, x: Any, first: int, shape: int, known: int | None = None) -> Reply:
        """Checked replies to x [n, d] as NumPy arrays, asked in an array of `shape` >= n rows."""
        n, dim = x.shape
        filled = jnp.asarray(x)
        if shape > n:
            filled = jnp.concatenate([filled, jnp.repeat(filled[-1:], shape - n, axis=0)])
        reply = _reply(self, filled, first) if self.view.axes else Reply(_value(self, filled), None)
        reply = Reply(*(None if part is None else np.asarray(part)[:n] for part in reply))
        return check(reply, n, dim, known, self.view, first)

    def values(self, x: Any) -> np.ndarray:
        """Checked values [n, K] as a NumPy array; raises ReplyError."""
        return check_values(np.asarray(_value(self, x)))

    def stream(self, x: np.ndarray, shapes: Sequence[int] = (CHUNK,)) -> Iterator[Reply]:
        """Unchecked replies to x [n, d] in float64, in parts that have as many rows as one of the
        shapes, given from the largest to the smallest; each is a compile.

        The next part is under way while one is taken up.  Where JAX shares NumPy's memory, it
        may read x after this has returned.
        """
        before: list[tuple[Reply, int]] = []
        for first, size in pieces(len(x), shapes):
            here = x[first : first + size]
            rows = len(here)
            if rows < size:
                here = np.concatenate([here, np.repeat(here[-1:], size - rows, 0)])
            before.append((_reply(self, here, first), rows))
            if len(before) == 2:
                yield _taken(*before.pop(0))
        yield from (_taken(*last) for last in before)

    def form(self, dim: int, at: np.ndarray | None = None) -> tuple[Oracle, Form]:
        """The oracle, and what it answers to x [n, dim]; asks nothing.

        It is asked in the dtype of its parameters; float64 where it has none.
        """
        leaves = [a.dtype for a in jax.tree.leaves(self.params) if hasattr(a, "dtype")]
        floats = [a for a in leaves if jnp.issubdtype(a, jnp.floating)]
        with jax.numpy_dtype_promotion("standard"):
            asked = str(jnp.result_type(*floats)) if floats else "float64"
        shape = jax.eval_shape(_reply, self, jax.ShapeDtypeStruct((CHUNK, dim), asked), 0)
        if shape.value.ndim != 2 or shape.gradient.shape[1:] != (shape.value.shape[1], dim):
            raise ReplyError(
                f"f must map [{dim}] to [K] or a scalar; one query gives values of shape "
                f"{shape.value.shape} and gradients of shape {shape.gradient.shape}"
            )
        seen = (np.zeros((0, *part.shape[1:])) for part in shape)
        return self, Form(shape.value.shape[1], asked, str(shape.value.dtype), Cost(), *seen)

    def scaled(self, shift: np.ndarray, scale: np.ndarray, dtype: str) -> Oracle:
        """The oracle as a function of z, x = shift + scale z, in float64; it asks in `dtype`."""
        return _Scaled(self.f, self.params, self, shift, scale, dtype)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "key", "inner", "shift", "scale"],
    meta_fields=["f", "view", "dtype"],
)
@dataclass(frozen=True)
class _Scaled(Oracle):
    inner: Any
    shift: Any
    scale: Any
    dtype: str

    def __call__(self, z: jax.Array, first: Any = 0) -> Reply:
        x = self.shift[None] + self.scale[None] * z.astype(jnp.float64)
        reply = self.inner(x.astype(self.dtype), first)
        return Reply(reply.value, reply.gradient.astype(jnp.float64) * self.scale[None, None])


def pieces(n: int, shapes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, size) of the parts in which n rows are asked, each of one of the shapes."""
    first = 0
    while first < n:
        size = next((a for a in shapes if 2 * (n - first) > a), shapes[-1])
        yield first, size
        first += size


def _taken(reply: Reply, n: int) -> Reply:
    return Reply(*(np.asarray(a, np.float64)[:n] for a in reply))


@jax.jit
def _reply(oracle: Oracle, x: jax.Array, first: Any) -> Reply:
    return oracle(x, first)


@jax.jit
def _value(oracle: Oracle, x: jax.Array) -> Any:
    return oracle.value(x)


@dataclass(frozen=True)
class HostOracle:
    """A victim that is not JAX; every reply is checked before it is used.

    repeats: how often the service is asked for each row (`service.averaged`); every row counts so
    many times, in `ask` and in what `exact.recover` returns.
    """

    traced: ClassVar[bool] = False
    fn: Callable[[np.ndarray], Any]
    value_fn: Callable[[np.ndarray], Any] | None = None
    outputs: int | None = None  # K, once known
    view: View = PLAIN
    repeats: int = field(default=1, kw_only=True)

    def __call__(self, x: Any, first: int = 0) -> Reply:
        """Checked replies to x [n, d]; raises ReplyError."""
        return self.asked(x, first, len(x), self.outputs)

    def value(self, x: Any) -> np.ndarray:
        """Checked values [n, K]; raises ReplyError."""
        return np.asarray(self._values(x, 0, self.outputs).value)

    def asked(self, x: Any, first: int, shape: int, known: int | None = None) -> Reply:
        """Checked replies to x [n, d]; `shape` is for oracles that are compiled."""
        if not self.view.axes:
            return self._values(x, first, known)
        x = np.array(x)  # the victim's own, to scribble on
        try:
            answer = self.fn(x)
        except Exception as error:
            error.add_note(f"The victim was asked about x of shape {x.shape}, {x.dtype}.")
            raise
        if self.view.outputs == "none" and not isinstance(answer, tuple):
            answer = (None, answer)
        return check(answer, x.shape[0], x.shape[1], known, self.view, first)

    def _values(self, x: Any, first: int, known: int | None) -> Reply:
        x = np.array(x)
        answer = self.fn(x) if self.value_fn is None else self.value_fn(x)
        if self.value_fn is None and isinstance(answer, tuple):
            answer = answer[0]
        alone = View(self.view.outputs, "none")
        return check((answer, None), x.shape[0], x.shape[1], known, alone, first)

    values = value

    def stream(self, x: np.ndarray, shapes: Sequence[int] = (CHUNK,)) -> Iterator[Reply]:
        """The checked reply to x [n, d] in float64: one call, however many rows."""
        yield Reply(*(np.asarray(a, np.float64) for a in self(x)))

    def form(self, dim: int, at: np.ndarray | None = None) -> tuple[HostOracle, Form]:
        """The oracle, held to the K it has, and what it answers; asks once, at `at` [d] or the
        origin.

        It is asked in float64.
        """
        reply = self(np.zeros((1, dim)) if at is None else at[None])
        outputs = reply.value.shape[1]
        dtypes = [a.dtype for a in reply if jnp.issubdtype(a.dtype, jnp.floating)]
        coarsest = max(dtypes, key=lambda a: jnp.finfo(a).eps, default=np.dtype(np.float64))
        cost = Cost(1, 0, outputs * (dim + 1), 1)
        of = Form(outputs, "float64", str(coarsest), cost, *reply)
        return replace(self, outputs=outputs), of

    def scaled(self, shift: np.ndarray, scale: np.ndarray, dtype: str) -> HostOracle:
        """The oracle as a function of z, x = shift + scale z."""

        def fn(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            value, gradient = self(shift[None] + scale[None] * z)
            return value, gradient * scale[None, None]

        return HostOracle(fn, outputs=self.outputs)


AnyOracle = Oracle | HostOracle


def from_jax(f: Callable, params: Any = None, view: View = PLAIN, key: Any = None) -> Oracle:
    """An oracle for a JAX function f(x [d]) -> [K] or scalar, or f(params, x) with params given.

    Giving the parameters apart lets JAX reuse one compiled attack for many victims.  view: what
    the service shows of f's logits or values; key: a JAX key or an integer, for the noise of
    explanations that have some.
    """
    key = jax.random.key(key) if isinstance(key, int) else key
    if params is None:
        return Oracle(_Closed(f), (), view=view, key=key)
    return Oracle(f, params, view=view, key=key)


@dataclass(frozen=True)
class _Closed:
    """f(x) in the form f(params, x); equal for equal f, so a jitted attack is not compiled anew."""

    f: Callable

    def __call__(self, _: Any, x: jax.Array) -> jax.Array:
        return self.f(x)


def from_host(fn: Callable, value_fn: Callable | None = None, view: View = PLAIN) -> HostOracle:
    """An oracle for fn(numpy [n, d]) -> (values [n, K], gradients [n, K, d]).

    A scalar network may answer [n] or [n, 1] with [n, d].  value_fn(x) -> values serves
    membership queries where values alone are cheaper.  `view` declares what fn returns where it
    is something else: a pair with [n, d] for one class, values alone, an explanation alone.
    """
    return HostOracle(fn, value_fn, view=view)


def ask(oracle: AnyOracle, x: Any, first: int = 0, chunk: int | None = None) -> tuple[Reply, Cost]:
    """Checked replies to x [n, d], n >= 1, as NumPy arrays, and what was asked for them.

    chunk: rows a batch at most; None: all of them at once.  Every batch is a round.  first: the
    number of the first row, by which a noisy explanation draws its noise: a row's reply depends
    on its number, not on what else is asked.  A JAX victim is asked in arrays of one shape, the
    last one filled up; that is not in the cost.  Raises ReplyError, and ValueError for no rows.
    """
    if np.ndim(x) != 2 or not len(x):
        raise ValueError(f"queries have shape {np.shape(x)}, expected (n, d) with n >= 1")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    n = len(x)
    shape = -(-n // PADDING) * PADDING if chunk is None else min(n, chunk)
    parts: list[Reply] = []
    known = oracle.outputs if isinstance(oracle, HostOracle) else None
    for i in range(0, n, chunk or n):
        parts.append(oracle.asked(x[i : i + (chunk or n)], first + i, shape, known))
        known = None if parts[0].value is None else parts[0].value.shape[1]
    value, gradient = (
        None if each[0] is None else np.concatenate(each) for each in zip(*parts, strict=True)
    )
    numbers = sum(part.size for part in (value, gradient) if part is not None)
    explained = n if oracle.view.axes else 0
    cost = Cost(explained, n - explained, numbers, len(parts))
    return Reply(value, gradient), cost * oracle.repeats


def need(
    oracle: AnyOracle,
    outputs: str | Sequence[str] | None = None,
    explanation: str | Sequence[str] | None = None,
    of: str | None = None,
    shown: str | Sequence[str] | None = None,
) -> None:
    """ViewError, a sentence, unless the oracle's view has one of the words that are given."""
    if not isinstance(oracle, Oracle | HostOracle):
        raise TypeError(
            f"a victim is given as oracles.from_jax(f) or oracles.from_host(fn), not as a bare "
            f"{type(oracle).__name__}"
        )
    view = oracle.view
    asked = {"outputs": outputs, "explanation": explanation, "of": of, "shown": shown}
    for name, words in asked.items():
        words = (words,) if isinstance(words, str) else words
        if name in ("of", "shown") and not view.axes:
            continue
        if words is not None and getattr(view, name) not in words:
            raise ViewError(f"this needs {name} {' or '.join(words)}; the service's view is {view}")
