"""Figures come from rows alone, are the same for the same rows, and legible without colour."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from recon import reports, tables
from recon.experiments import EXPERIMENTS

RESULTS = Path(__file__).parents[1] / "results"


def place(name):
    return reports.folder(RESULTS, name)


@pytest.fixture(scope="module")
def rows_of():
    """Committed rows; those of the small form for an experiment whose long run is yet to come."""
    small = {}

    def rows(name):
        if (place(name) / "rows.csv").exists():
            return tables.read(place(name))[0]
        if name not in small:
            small[name] = EXPERIMENTS[name].small().run()
        return small[name]

    return rows


# a figure whose rows are yet to come needs its experiment's small form, which can take a minute
DRAWN = [
    n if (place(n) / "rows.csv").exists() else pytest.param(n, marks=pytest.mark.slow)
    for n in reports.FIGURES
]
FEW = ("figure1", "depth", "fig2-mnist", "filters-mnist")
TWICE = [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in reports.FIGURES]


@pytest.mark.parametrize("name", TWICE)
def test_the_same_rows_give_the_same_picture(name, tmp_path, rows_of):
    tables.write(tmp_path, rows_of(name), {})
    path = reports.draw(name, tmp_path)
    assert path == tmp_path / f"{tmp_path.name}.png"
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert reports.draw(name, tmp_path).read_bytes() == first


@pytest.mark.parametrize("name", DRAWN)
def test_series_can_be_told_apart_without_colour(name, rows_of):
    from matplotlib.figure import Figure

    figure = Figure()
    reports.FIGURES[name](figure, rows_of(name))
    assert figure.get_suptitle()
    for axis in figure.axes:
        assert axis.get_xlabel()
        handles, labels = axis.get_legend_handles_labels()
        looks = Counter()
        for handle in handles:
            line = handle[0] if isinstance(handle, tuple) else handle
            if hasattr(line, "get_linestyle") and hasattr(line, "get_marker"):
                filled = str(line.get_markerfacecolor()) not in ("none", "white")
                looks[line.get_linestyle(), str(line.get_marker()), filled] += 1
            else:  # a bar: its hatch, or how bright it is, tells
                red, green, blue, _ = line.get_facecolor()
                looks[line.get_hatch(), round(0.3 * red + 0.59 * green + 0.11 * blue, 1)] += 1
        assert max(looks.values(), default=1) == 1, f"{labels} look alike: {looks}"


@pytest.mark.parametrize("name", reports.FIGURES)
def test_a_figure_has_the_name_of_its_experiment(name):
    assert name in EXPERIMENTS


def test_a_figure_says_how_many_students_failed(rows_of):
    from matplotlib.figure import Figure

    rows = [row | {"failure": None} for row in rows_of("fig2-mnist")]
    figure = Figure()
    reports.FIGURES["fig2-mnist"](figure, rows)
    assert "failed" not in figure.get_supxlabel()
    rows[0]["failure"] = "run 0 stopped"
    figure = Figure()
    reports.FIGURES["fig2-mnist"](figure, rows)
    assert "1 students failed" in " ".join(figure.get_supxlabel().split())


def test_no_rows_is_an_error_that_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        reports.draw("lemma2", tmp_path)
    with pytest.raises(KeyError):
        reports.draw("no such figure", tmp_path)


def test_importing_figures_does_not_import_matplotlib():
    code = "import sys, recon.reports; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
