"""Where cells are measured: in this process in turn, in processes beside it, or on a dask cluster.

Cells are plain data and `measure` is a function of its module, so that both can be sent elsewhere.
Results come in the order of the cells whatever the workers; each cell is looked for among the
finished ones first, and kept as soon as it is done, in whatever order that is.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    ProcessPoolExecutor,
    as_completed,
)
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

from recon import cells

Cell = TypeVar("Cell")
Row = dict[str, Any]
Measure = Callable[[Any, Callable[[str], None]], list[Row]]
Pool = Callable[[], AbstractContextManager[Executor]]

LOST = 3  # pools in a row that dying workers broke before a cell was done
PATIENCE = 10  # seconds for a scheduler to answer
_ONE = threading.Lock()


class WorkerError(ValueError):
    """Workers that cannot be had, differ from this process, or die; one sentence says which."""


def quiet(text: str) -> None:
    """Say nothing."""


def uncounted(done: int, of: int) -> None:
    """Count nothing."""


def map_cells(
    measure: Measure,
    todo: Sequence[Cell],
    settings: Callable[[Cell], Any],
    workers: int = 1,
    note: Callable[[str], None] = quiet,
    dask: str | None = None,
    count: Callable[[int, int], None] = uncounted,
) -> Iterator[list[Row]]:
    """The rows of each cell, in order: kept ones, or measure(cell, note) done now and kept.

    settings(cell): plain data that names it.  workers: processes that measure side by side, if
    more than one; dask: the address of a scheduler whose workers do, in their stead.  They must
    find the same modules and data.  A worker that dies is replaced and its cells are measured
    again; an exception of `measure` ends the rest.  `count` hears (done, of) cells.  WorkerError
    for workers that do not answer, have another version, or die again and again.
    """
    found: dict[int, list[Row]] = {}
    for i, cell in enumerate(todo):
        if (rows := cells.load(settings(cell))) is not None:
            found[i] = rows
    left = {i: cell for i, cell in enumerate(todo) if i not in found}
    done = len(found)
    count(done, len(todo))
    if dask is not None and left:
        fresh = _spread(measure, left, partial(_cluster, dask))
    elif workers > 1 and len(left) > 1:
        fresh = _spread(measure, left, partial(_processes, min(workers, len(left))))
    else:
        fresh = ((i, measure(cell, note)) for i, cell in left.items())
    for i in range(len(todo)):
        while i not in found:
            at, rows = next(fresh)
            cells.save(settings(todo[at]), rows)
            found[at] = rows
            done += 1
            count(done, len(todo))
        yield found.pop(i)


def _spread(measure: Measure, left: dict[int, Any], pool: Pool) -> Iterator[tuple[int, list[Row]]]:
    """(i, rows) as they are done; a pool that a dying worker broke is started anew."""
    left, lost, failed = dict(left), 0, None
    while left:
        before = len(left)
        with pool() as executor:
            futures = {executor.submit(_alone, measure, cell): i for i, cell in left.items()}
            for future in as_completed(futures):
                try:
                    rows = future.result()
                except (BrokenExecutor, CancelledError):
                    continue  # its cell is still left
                except Exception as error:  # what is done or in hand is kept first
                    failed = failed or error
                    for other in futures:
                        other.cancel()
                    continue
                del left[futures[future]]
                yield futures[future], rows
        if failed is not None:
            raise failed
        lost = lost + 1 if len(left) == before else 0
        if lost == LOST:
            raise WorkerError(
                f"workers died {LOST} times before they finished any of {len(left)} cells: out of "
                "memory, perhaps; fewer --workers need less"
            )


def _alone(measure: Measure, cell: Any) -> list[Row]:
    """One cell at a time, also where a worker has several threads."""
    with _ONE:
        return measure(cell, quiet)


def _follow(parent: int) -> None:
    """End this worker soon after the process that started it, however that was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _processes(count: int) -> Iterator[Executor]:
    spawn = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    pool = ProcessPoolExecutor(count, spawn, _follow, (os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    """The workers of a dask scheduler behind the same interface; its own retries apply."""
    try:
        from distributed import Client
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise WorkerError("--dask needs dask's scheduler: pip install 'recon[dask]'") from error
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise WorkerError(f"no dask scheduler answers at {address}: {error}") from error
    try:
        _same(client)
        yield client.get_executor(pure=False)
    except KilledWorker as error:
        raise WorkerError(
            f"a cell ended every dask worker it was given to ({error}): out of memory, perhaps; "
            "workers with fewer threads or more memory may do"
        ) from error
    finally:
        client.close()


def _same(client: Any) -> None:
    """WorkerError unless every worker of the cluster runs this code with these versions."""
    try:
        theirs = client.run(cells.surroundings)
    except Exception as error:  # whatever a worker without recon raises
        raise WorkerError(f"a dask worker cannot run recon: {error}") from error
    if not theirs:
        raise WorkerError("the dask scheduler has no workers")
    ours = cells.surroundings()
    for worker, other in theirs.items():
        for name, mine in ours.items():
            if (has := other.get(name)) != mine:
                raise WorkerError(f"the dask worker {worker} has {name} {has}, this process {mine}")
