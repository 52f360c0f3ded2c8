"""Every query and reply on disk before it is used, so that no victim is asked twice.

    oracle = ledger.kept(oracle, "wine.ledger", service="api.example.org, model 3", budget=2000)

is asked as the oracle itself is, by every method.  What was answered before is answered from the
file: an attack that was cut off (kill -9, a service that raised, a power cut) and is run again
with the same arguments goes on where it was, to the same network bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recon.book import Book, BudgetError, LedgerError, Tally, opened
from recon.oracles import CHUNK, AnyOracle, Form, HostOracle, Oracle, need, pieces
from recon.replies import Reply, ReplyError

__all__ = ["BudgetError", "Kept", "LedgerError", "Tally", "kept"]


def kept(
    oracle: AnyOracle,
    path: str | Path,
    *,
    service: str,
    budget: int | None = None,
    most_rows: int | None = None,
) -> Kept:
    """The oracle with a durable ledger of its replies in the SQLite file `path`.

    service: what the victim is, its address and version, say; a ledger of another one is refused,
    as is one of another view, or of a JAX victim with other parameters.  A service that changes
    behind the same name is noticed only where it answers in another shape or dtype.  budget: rows
    that may be sent to the service, over all runs; a row whose reply never arrived counts each
    time it was sent.  most_rows: the service's limit for a batch.  Every batch is kept as soon as
    it is answered.

    A point asked twice gets its first reply, though the explanations of a service may be noisy;
    a point asked for values alone is another query than one asked with gradients.  The cost that
    an attack returns counts every row it used, whether from the file or not.  A JAX victim is
    asked from the host.

    Raises LedgerError, a sentence, for a file that is another victim's, not a ledger, damaged, in
    use by another process or not to be written, also later where the disk is full; the file is
    left as it was.  When asked, BudgetError where the budget is spent; what was answered is kept.
    """
    need(oracle)
    if isinstance(oracle, Kept):
        raise ValueError(f"the oracle is kept in {oracle.book.path} already")
    if not isinstance(service, str) or not service.strip():
        raise ValueError("service must say which victim this is: an address and a version, say")
    for name, number, least in (("budget", budget, 0), ("most_rows", most_rows, 1)):
        if number is not None and (not isinstance(number, int) or number < least):
            raise ValueError(f"{name} must be a whole number of at least {least}, not {number!r}")
    victim = {"service": service, "view": str(oracle.view), "parameters": _parameters(oracle)}
    fn: Any = oracle  # not to be called past the ledger
    book, view, repeats = opened(path, victim), oracle.view, oracle.repeats
    rows = None if budget is None else budget // repeats
    more: dict[str, Any] = {"book": book, "budget": rows, "most_rows": most_rows}
    return Kept(fn, view=view, repeats=repeats, inner=oracle, **more)


def _parameters(oracle: AnyOracle) -> str:
    """The SHA-256 of a JAX victim's parameters and key; nothing of a victim on the host."""
    if not isinstance(oracle, Oracle):
        return ""
    key = None if oracle.key is None else jax.random.key_data(oracle.key)
    digest = sha256()
    for leaf in map(np.asarray, jax.tree.leaves((oracle.params, key))):
        if leaf.dtype != object:  # whose bytes are addresses
            digest.update(f"{leaf.shape}{leaf.dtype}".encode() + leaf.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Kept(HostOracle):
    """An oracle that is asked only what its ledger cannot answer."""

    inner: AnyOracle = field(kw_only=True)
    book: Book = field(kw_only=True)
    budget: int | None = field(kw_only=True)
    most_rows: int | None = field(kw_only=True)

    @property
    def tally(self) -> Tally:
        """Rows sent and rows answered, over all runs, as often as each was."""
        often = self.inner.repeats
        return Tally(often * self.book.sent, often * self.book.answered)

    def asked(self, x: Any, first: int, shape: int, known: int | None = None) -> Reply:
        """Checked replies to x [n, d], in batches of at most `most_rows`."""
        x = np.asarray(x)

        def ask(start: int, rows: np.ndarray, new: np.ndarray) -> Reply:
            if self.inner.traced:  # which draws its noise by the number of a row
                runs = np.split(new, np.flatnonzero(np.diff(new) > 1) + 1)
            else:
                runs = [new]
            return _joined(
                self.inner.asked(rows[run], first + start + int(run[0]), size, known)
                for run in runs
            )

        size = shape if self.inner.traced else len(x)
        size = max(1, min(size, self.most_rows or size))
        return self._kept("gradient" if self.view.axes else "value", x, size, ask)

    def value(self, x: Any) -> np.ndarray:
        """Checked values [n, K]; raises ReplyError."""
        x = np.asarray(x)

        def ask(start: int, rows: np.ndarray, new: np.ndarray) -> Reply:
            return Reply(self.inner.values(rows[new]), None)

        return np.asarray(self._kept("value", x, self.most_rows or max(1, len(x)), ask).value)

    values = value

    def _kept(self, kind: str, x: np.ndarray, size: int, ask: Any) -> Reply:
        """In batches that are the same whatever is known, as replies may depend on their batch."""

        def batch(start: int) -> Reply:
            rows = x[start : start + size]

            def unanswered(new: np.ndarray) -> Reply:
                try:
                    reply: Reply = ask(start, rows, new)
                except ReplyError as error:
                    if len(new) < len(rows):
                        error.add_note(f"Of {len(rows)} rows {len(new)} were not in the ledger.")
                    raise
                return reply

            return self.book.replies(kind, rows, unanswered, self.budget)

        return _joined(batch(start) for start in range(0, len(x), size))

    def stream(self, x: np.ndarray, shapes: Sequence[int] = (CHUNK,)) -> Iterator[Reply]:
        """Checked replies to x [n, d] in float64; a JAX victim in parts of the shapes given."""
        if not self.inner.traced:
            yield from super().stream(x, shapes)
            return
        for first, size in pieces(len(x), shapes):
            reply = self.asked(x[first : first + size], first, size, self.outputs)
            yield Reply(*(np.asarray(a, np.float64) for a in reply))

    def form(self, dim: int, at: np.ndarray | None = None) -> tuple[Kept, Form]:
        """As of the oracle that is kept: a JAX victim is not asked for it."""
        if not self.inner.traced:
            return super().form(dim, at)  # type: ignore[return-value]
        _, form = self.inner.form(dim)
        return replace(self, outputs=form.outputs), form

    def scaled(self, shift: np.ndarray, scale: np.ndarray, dtype: str) -> HostOracle:
        """The oracle as a function of z, x = shift + scale z; it asks in `dtype`."""
        of_z = super().scaled(shift, scale, dtype)
        if not self.inner.traced:
            return of_z
        return _Scaled(of_z.fn, None, self.outputs, inner=self, at=(shift, scale, dtype))


@dataclass(frozen=True)
class _Scaled(HostOracle):
    inner: Kept = field(kw_only=True)
    at: tuple[np.ndarray, np.ndarray, str] = field(kw_only=True)

    def stream(self, z: np.ndarray, shapes: Sequence[int] = (CHUNK,)) -> Iterator[Reply]:
        shift, scale, dtype = self.at
        x = shift[None] + scale[None] * z
        for value, gradient in self.inner.stream(x.astype(dtype), shapes):
            yield Reply(value, gradient * scale[None, None])


def _joined(parts: Any) -> Reply:
    value, gradient = (
        None if part[0] is None else np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return Reply(value, gradient)
