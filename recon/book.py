"""Queries and replies in one SQLite file: what `ledger` writes and reads.

A row of the table `replies` is a point x [d] (float64, little endian) and a kind of question,
"gradient" or "value".  It is there before the service is asked, with `sent` 1, and completed by
the reply before anyone sees that: value and gradient as bytes, each with its form, a dtype and a
shape.  Rows that are not completed were sent and got no reply that can be used; they are sent
again when they are needed again, which `sent` counts.

SQLite keeps a rollback journal, "-journal", beside the file while it writes.  A write-ahead log
would wait for the disk a third as long, but after a kill the last replies would stand in it alone,
to be lost by who copies the ledger without it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recon.replies import Reply, ReplyError

MARK = 0x7265636F  # "reco", in the header of the file
FORMAT = 1
SCHEMA = f"""
PRAGMA application_id = {MARK};
PRAGMA user_version = {FORMAT};
CREATE TABLE victim (name TEXT PRIMARY KEY, told TEXT NOT NULL);
CREATE TABLE replies (
    kind TEXT NOT NULL, digest BLOB NOT NULL, sent INTEGER NOT NULL,
    value_form TEXT, gradient_form TEXT, x BLOB NOT NULL, value BLOB, gradient BLOB,
    UNIQUE (kind, digest)
);
"""
ANSWERED = "(value_form IS NOT NULL OR gradient_form IS NOT NULL)"
PATIENCE = 1.0  # seconds for a process that was just killed to let go of the file
DAMAGED = "is not a ledger, or a damaged one; it was left as it is"
TROUBLE = {  # by how SQLite's own names begin
    "SQLITE_BUSY": "is in use by another process; a ledger serves one at a time",
    "SQLITE_FULL": "cannot take more, the disk is full; what it held is unharmed",
    "SQLITE_IOERR": "cannot be read or written, a full disk perhaps; what it held is unharmed",
    "SQLITE_READONLY_DBMOVED": "was moved or removed while it was in use",
    "SQLITE_READONLY": "cannot be written",
    "SQLITE_CANTOPEN": "cannot be opened, or nothing can be written beside it",
    "SQLITE_NOTADB": DAMAGED,
    "SQLITE_CORRUPT": DAMAGED,
}


class LedgerError(OSError):
    """A file that cannot serve as this ledger; nothing in it was changed."""


class BudgetError(RuntimeError):
    """The service's budget does not cover the next queries; none of them was sent."""


class Tally(NamedTuple):
    """Rows sent, each as often as it was, and rows answered, which are never sent again."""

    sent: int
    answered: int


@contextlib.contextmanager
def sentences(path: Path) -> Iterator[None]:
    """LedgerError, a sentence, for what SQLite and the file system raise."""
    try:
        yield
    except LedgerError:
        raise
    except OSError as error:
        raise LedgerError(f"{path} cannot be made: {error.strerror or error}") from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        text = next((text for start, text in TROUBLE.items() if name.startswith(start)), "failed")
        raise LedgerError(f"{path} {text} ({error})") from error


_OPEN: weakref.WeakValueDictionary[Path, Book] = weakref.WeakValueDictionary()
_OPENING = threading.Lock()


def opened(path: str | Path, victim: dict[str, str]) -> Book:
    """The ledger at `path`, of this victim, made where there is none; one object a file.

    LedgerError where it is another victim's, or no ledger, or cannot be had.
    """
    path = Path(path)
    with sentences(path):
        path = path.resolve()
    with _OPENING:
        book = _OPEN.get(path)
        if book is None or not book.here():
            book = _OPEN[path] = Book(path, victim)
        book.check(victim)
    return book


class Book:
    """An open ledger, locked against other processes for as long as the object lives."""

    def __init__(self, path: Path, victim: dict[str, str]):
        self.path, self.process, self.lock = path, os.getpid(), threading.RLock()
        with sentences(path):
            if not path.exists():
                _make(path, victim)
            elif not path.is_file():
                raise LedgerError(f"{path} is not a file")
            self.inode = _inode(path)
            self.db = sqlite3.connect(
                f"{path.as_uri()}?mode=rw",
                uri=True,
                timeout=PATIENCE,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._start(victim)
            except BaseException:
                self.db.close()
                raise
        weakref.finalize(self, _close, self.db, self.process)

    def _start(self, victim: dict[str, str]) -> None:
        def one(query: str) -> Any:
            return self.db.execute(query).fetchone()

        one("PRAGMA locking_mode = EXCLUSIVE")
        one("PRAGMA synchronous = FULL")
        one("BEGIN EXCLUSIVE")  # the lock outlives the transaction
        mark, version, pages, bytes_each = (
            one(f"PRAGMA {name}")[0]
            for name in ("application_id", "user_version", "page_count", "page_size")
        )
        whole = self.path.stat().st_size >= pages * bytes_each
        if mark != MARK or not whole or one("PRAGMA quick_check(1)")[0] != "ok":
            raise LedgerError(f"{self.path} {DAMAGED}")
        if version != FORMAT:
            raise LedgerError(f"{self.path} is a ledger of format {version}, this recon's {FORMAT}")
        self.victim = dict(self.db.execute("SELECT name, told FROM victim"))
        self.check(victim)
        self.sent, self.answered = map(
            int, one(f"SELECT total(sent), count(CASE WHEN {ANSWERED} THEN 1 END) FROM replies")
        )
        self.dim = None if (row := one("SELECT length(x) FROM replies")) is None else row[0] // 8
        self.forms: dict[str, list[str | None]] = {}
        for kind in ("gradient", "value"):
            known = f"FROM replies WHERE kind = '{kind}' AND {ANSWERED} ORDER BY rowid DESC"
            if row := one(f"SELECT value_form, gradient_form {known}"):
                self.forms[kind] = list(row)
        one(f"PRAGMA user_version = {FORMAT}")  # whether it can be written
        one("COMMIT")

    def here(self) -> bool:
        """Whether the file still lies where it was opened, by this process."""
        return self.process == os.getpid() and self.inode == _inode(self.path)

    def check(self, victim: dict[str, str]) -> None:
        """LedgerError unless the replies are those of the victim, by what is told of it."""
        for name, mine in victim.items():
            if (theirs := self.victim.get(name)) != mine:
                raise LedgerError(
                    f"{self.path} is the ledger of another victim: its {name} is {theirs!r}, not "
                    f"{mine!r}; give another file"
                )

    def replies(
        self, kind: str, x: np.ndarray, ask: Callable[[np.ndarray], Reply], budget: int | None
    ) -> Reply:
        """Replies to x [n, d] from the file; ask(rows [m]), checked, for those not yet in it.

        Raises what `ask` raises, BudgetError before anything is sent, LedgerError, and ReplyError
        for replies of another form than the ledger's, which are not kept.
        """
        points = np.ascontiguousarray(x, "<f8") + 0.0  # -0.0 and 0.0 are one point
        digests = [sha256(point).digest() for point in points]
        with self.lock:
            if not self.here():
                raise LedgerError(
                    f"{self.path} was moved or removed while it was in use, or opened before this "
                    "process began: open the ledger anew"
                )
            with sentences(self.path):
                new = self._unanswered(kind, digests)
            if new:
                names = [digests[i] for i in new]
                self._send(kind, points[new], names, budget)
                reply = ask(np.array(new))
                try:
                    self._complete(kind, names, reply)
                except LedgerError as error:
                    error.add_note(f"{len(new)} replies that had come are lost: ask them again.")
                    raise
            with sentences(self.path):
                return self._read(kind, digests)

    def _unanswered(self, kind: str, digests: Sequence[bytes]) -> list[int]:
        known = f"SELECT 1 FROM replies WHERE kind = ? AND digest = ? AND {ANSWERED}"
        first: dict[bytes, int] = {}
        for i, digest in enumerate(digests):
            first.setdefault(digest, i)
        return [i for a, i in first.items() if not self.db.execute(known, (kind, a)).fetchone()]

    def _send(
        self, kind: str, points: np.ndarray, names: Sequence[bytes], budget: int | None
    ) -> None:
        n, dim = points.shape
        if self.dim not in (None, dim):
            raise LedgerError(
                f"{self.path} is the ledger of another victim, of {self.dim} inputs, not {dim}"
            )
        if budget is not None and self.sent + n > budget:
            raise BudgetError(
                f"the budget of {budget} queries does not cover {n} more: {self.sent} were sent, "
                f"{self.answered} of them answered and kept in {self.path}"
            )
        with self._transaction():
            self.db.executemany(
                "INSERT INTO replies (kind, digest, x, sent) VALUES (?, ?, ?, 1) "
                "ON CONFLICT (kind, digest) DO UPDATE SET sent = sent + 1",
                ((kind, name, point.tobytes()) for name, point in zip(names, points, strict=True)),
            )
        self.sent, self.dim = self.sent + n, dim

    def _complete(self, kind: str, names: Sequence[bytes], reply: Reply) -> None:
        parts = [None if part is None else _native(part) for part in reply]
        forms = [None if part is None else _form(part) for part in parts]
        for form, known in zip(forms, self.forms.get(kind, forms), strict=True):
            if not _alike(form, known):
                raise ReplyError(
                    f"the service answers {form} for a query, where the replies in {self.path} "
                    f"are {known}: is it another one?"
                )
        none = [None] * len(names)
        told = ([*map(np.ndarray.tobytes, part)] if part is not None else none for part in parts)
        with self._transaction():
            self.db.executemany(
                "UPDATE replies SET value_form = ?, gradient_form = ?, value = ?, gradient = ? "
                "WHERE digest = ? AND kind = ?",
                ((*forms, *row, kind) for row in zip(*told, names, strict=True)),
            )
        self.answered += len(names)
        self.forms[kind] = forms

    def _read(self, kind: str, digests: Sequence[bytes]) -> Reply:
        told = "SELECT value, value_form, gradient, gradient_form FROM replies"
        rows = [
            self.db.execute(f"{told} WHERE kind = ? AND digest = ?", (kind, digest)).fetchone()
            for digest in digests
        ]
        value, gradient = (
            None if rows[0][i] is None else np.stack([_array(*row[i : i + 2]) for row in rows])
            for i in (0, 2)
        )
        return Reply(value, gradient)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """On disk as a whole when it ends, or not at all."""
        with sentences(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")
                raise


def _make(path: Path, victim: dict[str, str]) -> None:
    """A new ledger, under its name only once it is whole; another process may be faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists() and any(journal.read_bytes()[:8]):  # it would be applied to the new file
        raise LedgerError(f"{journal} lies there without its ledger; remove it, or bring both back")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        part = Path(folder) / "new"
        with contextlib.closing(sqlite3.connect(part)) as db, db:
            db.executescript(f"BEGIN; {SCHEMA}")
            db.executemany("INSERT INTO victim VALUES (?, ?)", victim.items())
        try:
            os.link(part, path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            part.rename(path)


def _close(db: sqlite3.Connection, process: int) -> None:
    if process == os.getpid():  # to a fork, the file is its parent's
        db.close()


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _native(part: Any) -> np.ndarray:
    part = np.asarray(part)
    return part.astype(part.dtype.newbyteorder("=")) if part.dtype.byteorder == ">" else part


def _form(part: np.ndarray) -> str:
    """Dtype and shape of a row, as "float64 3 13"."""
    return " ".join(map(str, (part.dtype.name, *part.shape[1:])))


def _array(data: bytes, form: str) -> np.ndarray:
    name, *shape = form.split()
    return np.frombuffer(data, np.dtype(name)).reshape([int(size) for size in shape])


def _alike(form: str | None, known: str | None) -> bool:
    """Whether two forms can be one service's: whole numbers stand among floats in JSON, say."""
    if form is None or known is None:
        return form is known
    (name, *shape), (other, *others) = form.split(), known.split()
    return shape == others and (name == other or "float" not in name or "float" not in other)
