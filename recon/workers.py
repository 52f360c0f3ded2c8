"""Where cells are measured: in this process one after another, or in processes beside it.

Cells are plain data and `measure` is a function of its module, so that both can be sent elsewhere.
Results come in the order of the cells whatever the workers; each cell is looked for among the
finished ones first, and kept when it is done.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from recon import cells

Cell = TypeVar("Cell")
Row = dict[str, Any]
Measure = Callable[[Any, Callable[[str], None]], list[Row]]


def quiet(text: str) -> None:
    """Say nothing."""


def map_cells(
    measure: Measure,
    todo: Sequence[Cell],
    settings: Callable[[Cell], Any],
    workers: int = 1,
    note: Callable[[str], None] = quiet,
) -> Iterator[list[Row]]:
    """The rows of each cell, in order: kept ones, or measure(cell, note) done now and kept.

    settings(cell): plain data that names it.  With more than one worker cells are measured in
    processes of their own, which must find the same modules; an exception in one ends the rest.
    """
    kept = [cells.load(settings(cell)) for cell in todo]
    missing = [cell for cell, rows in zip(todo, kept, strict=True) if rows is None]
    with _mapper(min(workers, len(missing))) as each:
        fresh = each(measure, missing, note)
        for cell, rows in zip(todo, kept, strict=True):
            if rows is None:
                rows = next(fresh)
                cells.save(settings(cell), rows)
            yield rows


class _mapper:
    """`map` in this process, or in a pool that is shut down at the end."""

    def __init__(self, workers: int):
        spawn = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
        self.pool = ProcessPoolExecutor(workers, spawn) if workers > 1 else None

    def __enter__(self) -> Callable[..., Iterator[list[Row]]]:
        def each(
            measure: Measure, todo: Sequence[Any], note: Callable[[str], None]
        ) -> Iterator[list[Row]]:
            if self.pool is None:
                return (measure(cell, note) for cell in todo)
            return iter(self.pool.map(measure, todo, [quiet] * len(todo)))

        return each

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
