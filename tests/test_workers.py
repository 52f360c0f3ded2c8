"""Cells measured elsewhere are those measured here: in processes, on a cluster, whoever dies."""

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from recon import cells, workers
from recon.workers import WorkerError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def squared(folder, cell, note):
    """The row of a cell, and a line in a file for each time it was measured."""
    with (Path(folder) / f"{cell}.measured").open("a") as file:
        file.write("once\n")
    return [{"cell": cell, "square": cell**2}]


def dying(folder, cell, note):
    """As `squared`, but the process that is given 5 dies, the first time."""
    mark = Path(folder) / "died"
    if cell == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return squared(folder, cell, note)


def deadly(cell, note):
    """Nothing survives it."""
    os.kill(os.getpid(), signal.SIGKILL)


def refusing(cell, note):
    """An error of its own."""
    raise ZeroDivisionError(str(cell))


def times(folder):
    return {path.stem: len(path.read_text().split()) for path in Path(folder).glob("*.measured")}


def test_cells_are_counted_as_they_come_and_kept_ones_at_once(tmp_path):
    heard = []
    measure, count = partial(squared, tmp_path), lambda *of: heard.append(of)
    list(workers.map_cells(measure, [1, 2], str, count=count))
    assert heard == [(0, 2), (1, 2), (2, 2)]
    heard.clear()
    list(workers.map_cells(measure, [1, 2, 3], str, count=count))
    assert heard == [(2, 3), (3, 3)]
    assert times(tmp_path) == {"1": 1, "2": 1, "3": 1}


def test_a_cell_is_kept_when_it_is_done_not_when_it_is_its_turn(tmp_path, monkeypatch):
    def backwards(measure, left, pool):
        for i in reversed(left):
            yield i, measure(left[i], workers.quiet)
            assert cells.load(str(left[i])) is not None

    monkeypatch.setattr(workers, "_spread", backwards)
    rows = list(workers.map_cells(partial(squared, tmp_path), [1, 2, 3], str, 2))
    assert [row["cell"] for (row,) in rows] == [1, 2, 3]


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(tmp_path):
    todo = list(range(12))
    rows = list(workers.map_cells(partial(dying, tmp_path), todo, str, 2))
    assert rows == [[{"cell": cell, "square": cell**2}] for cell in todo]
    assert (tmp_path / "died").exists()
    # what the dying pool had in hand is measured again, what was done is not
    assert times(tmp_path).keys() == {str(cell) for cell in todo}
    assert sum(times(tmp_path).values()) <= len(todo) + 2


def test_workers_that_always_die_are_given_up_with_a_sentence(tmp_path):
    with pytest.raises(WorkerError, match="workers died 3 times before they finished any of 2"):
        list(workers.map_cells(deadly, [1, 2], str, 2))


def test_an_error_in_a_worker_comes_through():
    with pytest.raises(ZeroDivisionError, match=r"[12]"):
        list(workers.map_cells(refusing, [1, 2], str, 2))


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(tmp_path, monkeypatch):
    # here, as every process of the other tests imports this file
    from recon.experiments.mnist import FIGURE2
    from recon.experiments.rebuild import Panel, Where

    panel = Panel("linear", (1, 5), replies=("gradient",), recipes=("plain",), seeds=1)
    few = replace(FIGURE2, panels=(panel,), dataset="digits", victim_steps=50, steps=10)

    def rows(processes):
        monkeypatch.setenv("RECON_CACHE", str(tmp_path / str(processes)))
        return [row | {"seconds": None} for row in few.run(where=Where(processes))]

    assert rows(2) == rows(1)
