"""Finished cells are kept whole, and measured in this process or beside it, in order."""

import pytest

from recon import cells, workers


def test_a_damaged_cell_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    cells.save({"a": 1}, [{"b": 2}])
    assert cells.load({"a": 1}) == [{"b": 2}]
    assert cells.load({"a": 2}) is None
    (path,) = (tmp_path / "cells").iterdir()
    whole = path.read_text()
    for damaged in (whole[:-3], whole.replace('"b": 2', '"b": 3'), whole.split("\n")[1], ""):
        path.write_text(damaged)
        assert cells.load({"a": 1}) is None


def test_a_folder_that_cannot_be_written_is_said_and_does_not_stop(tmp_path, monkeypatch):
    (tmp_path / "cells").write_text("in the way")
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match="RECON_CACHE"):
        cells.save({"a": 1}, [{"b": 2}])


def test_comments_do_not_change_what_code_does_and_numbers_do(tmp_path):
    for name in cells.MEASURING:
        path = tmp_path / (name if name.endswith(".py") else f"{name}/a.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Doc."""\nx = 1\n')
    before = cells.code(tmp_path)
    (tmp_path / "models.py").write_text('"""Other."""\nx = 1  # one\n')
    assert cells.code(tmp_path) == before
    few = cells.code(tmp_path, ["masks.py", "data"])
    (tmp_path / "models.py").write_text('"""Other."""\nx = 2\n')
    assert cells.code(tmp_path) != before
    assert cells.code(tmp_path, ["masks.py", "data"]) == few
    (tmp_path / "masks.py").write_text("x = 3\n")
    assert cells.code(tmp_path, ["masks.py", "data"]) != few


def doubled(cell, note):
    if cell < 0:
        raise ValueError("no such cell")
    return [{"cell": 2 * cell}]


@pytest.mark.parametrize("processes", [1, 2])
def test_cells_come_in_order_and_once_and_errors_come_through(processes, tmp_path, monkeypatch):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    each = workers.map_cells(doubled, [3, 1, 2], str, processes)
    assert [rows[0]["cell"] for rows in each] == [6, 2, 4]
    never = workers.map_cells(lambda *_: pytest.fail("again"), [1, 2, 3], str)
    assert [rows[0]["cell"] for rows in never] == [2, 4, 6]
    with pytest.raises(ValueError, match="no such cell"):
        list(workers.map_cells(doubled, [5, -1], str, processes))
    assert cells.load("5") == [{"cell": 10}]  # what was done is kept
