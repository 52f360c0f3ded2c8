"""Finished cells are kept whole, named by all they depend on, and measured wherever."""

from pathlib import Path

import pytest

from recon import cells, workers


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    return tmp_path / "cells"


def squares(n, note):
    """A row of a cell that is a number; at the module's top, for another process to find."""
    note(f"squaring {n}")
    if n < 0:
        raise ArithmeticError(f"{n} is below 0")
    return [{"n": n, "square": n * n}]


def test_a_damaged_cell_is_measured_again(cache):
    cells.save({"a": 1}, [{"b": 2}])
    assert cells.load({"a": 1}) == [{"b": 2}]
    assert cells.load({"a": 2}) is None
    (path,) = cache.iterdir()
    whole = path.read_text()
    for damaged in (whole[:-3], whole.replace('"b": 2', '"b": 3'), whole.split("\n")[1], ""):
        path.write_text(damaged)
        assert cells.load({"a": 1}) is None
    path.write_text(whole)
    assert cells.load({"a": 1}) == [{"b": 2}]


def test_a_folder_that_cannot_be_written_is_said_and_does_not_stop(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECON_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set RECON_CACHE to a folder with room"):
        cells.save({"a": 1}, [])


def test_comments_do_not_change_what_code_does_and_numbers_do(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "MEASURING", ("one.py", "folder"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "two.py").write_text("y = 1\n")
    digests = []
    for text in ('"""Doc."""\nx = 1\n', '"""Other."""\nx = 1  # why\n', "x = 2\n"):
        (tmp_path / "one.py").write_text(text)
        digests.append(cells.code(tmp_path))
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "folder" / "two.py").write_text("y = 2\n")
    assert cells.code(tmp_path) != digests[2]


def test_the_measuring_files_exist():
    package = Path(cells.__file__).parent
    assert all((package / name).exists() for name in cells.MEASURING)


def test_kept_cells_are_taken_and_the_rest_measured_in_order():
    notes = []
    ((two,),) = workers.map_cells(squares, [2], lambda n: n)
    assert two == {"n": 2, "square": 4}
    found = list(workers.map_cells(squares, [3, 2, 1], lambda n: n, note=notes.append))
    assert [rows[0]["square"] for rows in found] == [9, 4, 1]
    assert notes == ["squaring 3", "squaring 1"]
    assert (
        list(workers.map_cells(squares, [1, 2, 3], lambda n: n, note=notes.append))[::-1] == found
    )
    assert len(notes) == 2


def test_what_was_measured_before_an_exception_is_kept(cache):
    todo = workers.map_cells(squares, [1, 2, -3, 4], lambda n: n)
    assert [next(todo), next(todo)] == [squares(1, workers.quiet), squares(2, workers.quiet)]
    with pytest.raises(ArithmeticError, match="-3 is below 0"):
        next(todo)
    assert len(list(cache.iterdir())) == 2


def test_processes_give_the_rows_of_one(monkeypatch):
    """And an exception in one of them arrives here; one pool, as each starts JAX anew."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    todo = workers.map_cells(squares, [1, 2, 3, -1], lambda n: n, workers=2)
    assert [next(todo) for _ in range(3)] == [squares(n, workers.quiet) for n in (1, 2, 3)]
    with pytest.raises(ArithmeticError, match="-1 is below 0"):
        next(todo)
