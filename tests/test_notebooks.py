"""The notebooks are generated from their sources; `make test-notebooks` runs them."""

from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_the_generated_one_and_holds_no_output(source):
    jupytext = pytest.importorskip("jupytext")
    made, there = jupytext.read(source), jupytext.read(source.with_suffix(".ipynb"))
    both = ([(c.cell_type, c.source) for c in book.cells] for book in (made, there))
    assert next(both) == next(both), "make notebooks"
    assert not any(cell.get("outputs") for cell in there.cells)


def test_there_are_three():
    assert [path.stem for path in SOURCES] == ["distill", "exact", "sweep"]
