"""Everything committed in results/: read, recorded, drawn, and what its own rows say."""

import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from recon import cells, data, reports, tables, victims
from recon.experiments import EXPERIMENTS, Summarised
from recon.experiments.tune import GRIDS
from recon.victims import classifiers

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("**/rows.csv"))
TUNED = [folder for folder in FOLDERS if folder.parent.name == "tune"]
MNIST = next((p for p in (os.environ.get("RECON_DATA"), ROOT.parent / "shared" / "data") if p), "")


def named(folder):
    return str(folder.relative_to(RESULTS))


def experiment(folder):
    """What measured the rows of a folder."""
    if folder in TUNED:
        return GRIDS[folder.name]
    return EXPERIMENTS[folder.name.replace("_", "-")]


def test_there_are_results_and_nothing_else():
    assert FOLDERS
    allowed = {"rows.csv", "run.json", "table.md"}
    for folder in FOLDERS:
        names = {path.name for path in folder.iterdir()}
        assert names <= allowed | {f"{folder.name}.png"}


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_rows_have_a_record_a_table_and_their_figure(folder):
    rows, record = tables.read(folder)
    of = experiment(folder)
    assert rows
    assert record["command"]
    assert record["date"]
    assert {"python", "jax", "numpy", "recon"} <= set(record["versions"])
    assert "changes" not in record["versions"]["recon"], "measured from code nobody can check out"
    tables._refuse_private({"rows": rows, "record": record})
    few = of.summary(rows) if isinstance(of, Summarised) else rows
    if (folder / "table.md").exists():
        written = (folder / "table.md").read_text(encoding="utf-8")
        assert written == tables.markdown(few, of.shown)
    if of in EXPERIMENTS.values() and folder.name.replace("_", "-") in reports.FIGURES:
        assert (folder / f"{folder.name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_victim_is_one_and_the_same_in_every_table():
    found = {}
    for folder in FOLDERS:
        for row in tables.rows(folder / "rows.csv"):
            if row.get("victim_id"):
                who = row["dataset"], row.get("held_out", 0), row["victim"]
                found.setdefault(who, {}).setdefault(row["victim_id"], set()).add(named(folder))
    for who, ids in found.items():
        assert len(ids) == 1, f"{who} is {ids}"


def test_equal_cells_have_equal_rows():
    """A cell that two experiments share was measured once."""
    key = ("dataset", "victim", "student", "queries", "reply", "recipe", "seed", "budget")
    settings = ("steps", "batch", "learning_rate", "weight", "weight_decay", "temperature")
    found = {}
    for folder in FOLDERS:
        for row in tables.rows(folder / "rows.csv"):
            if row.get("victim_id") and "layer" not in row and folder not in TUNED:
                cell = tuple(row[name] for name in (*key, *settings))
                found.setdefault(cell, {})[named(folder)] = row["accuracy"]
    for cell, accuracies in found.items():
        assert len(set(accuracies.values())) == 1, f"{cell}: {accuracies}"


@pytest.mark.parametrize("path", sorted(classifiers.PINNED.glob("*.npz")), ids=lambda p: p.name)
def test_a_pinned_victim_is_named_by_what_it_was_trained_on(path):
    assert re.fullmatch(r"[a-z0-9]+-[a-z_]+-[0-9a-f]{16}\.npz", path.name)
    assert path.stat().st_size < 1e6
    with np.load(path) as file:
        assert 0.9 < float(file["accuracy"]) <= 1
        assert all(np.isfinite(file[name]).all() for name in file.files)


def test_pinned_victims_are_the_ones_taken_and_those_of_the_rows(monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    monkeypatch.setenv("RECON_DATA", str(MNIST))
    try:
        mnist = data.load("mnist")
    except data.DataError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(classifiers, "_train", lambda *_: pytest.fail("was trained"))
    ids = {
        (row["victim"], row["victim_id"], row["victim_accuracy"])
        for folder in FOLDERS
        if folder not in TUNED and "mnist" in folder.name
        for row in tables.rows(folder / "rows.csv")
        if row.get("victim_id") and not row.get("held_out")
    }
    for model in ("linear", "mlp", "conv"):
        victim = victims.classifier(mnist, model)
        name = "v" + cells.digest(jax.tree.leaves(victim.variables))[:12]
        of = {(i, accuracy) for who, i, accuracy in ids if who == model}
        assert of <= {(name, victim.accuracy)}
