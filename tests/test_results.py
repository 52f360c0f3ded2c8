"""Everything that is committed in results/: it can be repeated, and says what its rows say."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from recon import cells, data, reports, tables, victims
from recon.experiments import EXPERIMENTS, Summarised, students
from recon.experiments.tune import GRIDS

RESULTS = Path(__file__).parents[1] / "results"
FOLDERS = sorted(path.parent for path in RESULTS.rglob("rows.csv"))
NAMES = {folder: folder.name.replace("_", "-") for folder in FOLDERS}
PINNED = sorted((RESULTS / "victims").glob("*.npz"))


def experiment_of(folder):
    return (GRIDS if folder.parent.name == "tune" else EXPERIMENTS)[NAMES[folder]]


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES.get)
def test_results_have_a_record_a_figure_and_an_experiment(folder):
    rows, record = tables.read(folder)
    assert rows
    assert experiment_of(folder)
    assert record["command"].startswith(("python scripts/", "recon "))
    assert record["seeds"]
    assert {"python", "jax", "recon"} <= record["versions"].keys()
    assert record["device"]
    assert "changes" not in record["versions"]["recon"], "measured from code nobody can check out"
    if NAMES[folder] in reports.FIGURES:
        assert (folder / f"{folder.name}.png").exists()


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES.get)
def test_tables_are_what_the_rows_say(folder):
    experiment, (rows, _) = experiment_of(folder), tables.read(folder)
    few = experiment.summary(rows) if isinstance(experiment, Summarised) else rows
    if (folder / "table.md").exists():
        assert (folder / "table.md").read_text() == tables.markdown(few, experiment.shown)


def test_every_table_is_about_the_pinned_victims_and_the_same_students():
    """Conv after ten gradient queries is one number, wherever it is shown."""
    pinned = {tuple(path.stem.split("-")[:2]): path for path in PINNED}
    student = {}
    for folder in FOLDERS:
        for row in tables.rows(folder / "rows.csv"):
            if row.get("victim_id") is None or row.get("held_out"):
                continue
            of = row["dataset"], row["victim"]
            if of in pinned:  # a large one is not committed
                assert row["victim_id"] == _id(pinned[of])
            of = ("dataset", "victim", "student", "queries", "reply", "recipe", "budget", "seed")
            of = tuple(row[name] for name in (*of, "steps", "temperature", "weight_decay"))
            assert student.setdefault(of, row["accuracy"]) == row["accuracy"]


@cache
def _id(path):
    """What `students.measure` calls the victim that is kept in a file."""
    with np.load(path) as file:
        return "v" + cells.digest(file[name] for name in file if name != "accuracy")[:12]


def test_a_victim_s_name_in_rows_is_that_of_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    monkeypatch.setattr(students, "_VICTIMS", {})
    cell = replace(EXPERIMENTS["fig2-mnist"].small().plan()[0], training=victims.Training(steps=1))
    victim = students.victim_of(cell)
    (path,) = (tmp_path / "victims").iterdir()
    assert _id(path) == "v" + cells.digest(jax.tree.leaves(victim.variables))[:12]


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.stem)
def test_pinned_victims_are_small_and_those_of_the_rows(path):
    assert path.stat().st_size < 2**20
    name, model, _ = path.stem.split("-")
    with np.load(path) as file:
        assert (0.7 if name == "cifar10" else 0.9) < file["accuracy"] <= 1
    where = os.environ.get("RECON_DATA", RESULTS.parents[1] / "shared" / "data")
    if not (Path(where) / name).is_dir():
        pytest.skip(f"{name} is not here")
    pytest.importorskip("tensorflow_datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON_DATA", str(where))
        dataset = data.load(name)
    found = victims.classifier(dataset, model)  # by its schedule
    with np.load(path) as file:
        assert found.accuracy == file["accuracy"]
        flat = found.variables["params"]
        for key in file.files:
            if key != "accuracy":
                layer, part = key.split("/")[-2:]
                np.testing.assert_array_equal(flat[layer][part], file[key])


def test_nothing_large_is_committed():
    for path in RESULTS.rglob("*"):
        assert path.is_dir() or path.stat().st_size < 2**20, path
