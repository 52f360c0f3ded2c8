"""The command line: what it prints, writes and returns."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recon import networks, tables
from recon.cli import COMMANDS, main, model
from recon.experiments import EXPERIMENTS
from recon.experiments.tune import GRIDS

ROOT = Path(__file__).parents[1]
SMALL = ["attack", "--dim", "12", "--width", "6"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RECON_DATA", raising=False)
        patch.delenv("RECON_DOWNLOAD", raising=False)
        yield


# --- recon attack


def test_json_is_one_object_and_the_network_is_saved(capsys, tmp_path):
    saved = tmp_path / "net.npz"
    assert main([*SMALL, "--json", "--out", str(saved)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"]
    assert printed["queries"] == printed["gradients"] + printed["values"]
    assert printed["numbers"] == printed["queries"] * 13
    assert printed["max_error"] < 1e-11
    network = networks.load(saved)
    assert network.width == printed["found_width"] == 6
    np.testing.assert_allclose(np.linalg.norm(network.rows, axis=1), 1)


def test_a_failure_is_said_and_nothing_is_saved(capsys, tmp_path):
    saved = tmp_path / "net.npz"
    argv = [*SMALL, "--budget", "5", "--out", str(saved)]
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert "budget ran out" in " ".join(out.replace("│", " ").split())
    assert "Not saved" in err
    assert not saved.exists()
    assert main([*argv, "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["status"], printed["certificate"]) == ("BUDGET", None)
    assert printed["queries"] <= 5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--method", "bisect", "--no-width-known"], "method bisect has to know the width"),
        (["--method", "bisect", "--bias"], "method bisect is for networks without biases"),
        (["--dim", "0"], "dim, width and outputs must be at least 1"),
        (["--widths", "4", "3"], "--width is for one hidden layer"),
        (["--width", "64", "--widths", "4", "--bias"], "--bias is for one hidden layer"),
        (["--width", "64", "--widths", "4", "0"], "dim, width and outputs must be at least 1"),
        (
            ["--width", "64", "--widths", "4", "3", "--method", "bisect"],
            "method bisect is for one hidden layer",
        ),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(options, sentence, capsys):
    assert main([*SMALL, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip().splitlines()[-1] == sentence


DEEP = ["attack", "--dim", "5", "--widths", "4", "3", "--outputs", "2", "--budget", "300"]


def test_a_deep_victim_is_attacked_and_what_comes_of_it_is_said(capsys, tmp_path):
    """Whatever it is: no status is good unless the network is the victim."""
    saved = tmp_path / "net.npz"
    code = main([*DEEP, "--json", "--out", str(saved)])
    printed = json.loads(capsys.readouterr().out)
    assert (code == 0) == printed["ok"] == saved.exists()
    assert (printed["dim"], printed["width"], printed["widths"]) == (5, 7, [4, 3])
    assert (printed["bias"], printed["outputs"], printed["method"]) == (True, 2, "tangent")
    assert 0 < printed["queries"] <= 300
    assert not printed["ok"] or printed["max_error"] < 1e-7
    if printed["found_width"] is None:
        assert printed["found_widths"] is None
    else:
        assert printed["found_width"] == sum(printed["found_widths"])
    assert main(DEEP) == code
    assert "on 5-4-3-2" in " ".join(capsys.readouterr().out.split())


def test_the_lines_of_a_deep_network_name_its_layers():
    summary = {"found_width": 7, "found_widths": [4, 3]}
    assert model.units(summary) == "7 found (4 + 3)"
    assert model.units({"found_width": 7, "found_widths": [7]}) == "7 found"
    assert model.units({"found_width": None, "found_widths": None}) == "none found"


# --- help, and names there are not


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(command, capsys):
    if command:
        with pytest.raises(SystemExit) as stop:  # as tyro ends
            main([command, "--help"])
        assert not stop.value.code
    else:
        assert main([]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) > 5
    if not command:
        assert all(f"recon {name}" in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["lemma2"], COMMANDS),
        (["run", "lemma7"], EXPERIMENTS),
        (["tune", "lemma7"], GRIDS),
        (["plot", "lemma7"], EXPERIMENTS),
    ],
)
def test_unknown_names_are_one_sentence(argv, names, capsys):
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert repr(argv[-1]) in line
    assert all(name in line for name in names)


def test_every_experiment_is_listed_with_its_claim_and_time(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(f" {name} " in out for name in (*EXPERIMENTS, "tune"))
    assert "CPU core" in out


# --- recon run, recon tune, recon plot


def test_an_experiment_writes_rows_record_table_and_figure(capsys, tmp_path):
    folder = tmp_path / "lemma3"
    assert main(["run", "lemma3", "--small", "--out", str(folder)]) == 0
    rows, record = tables.read(folder)
    settings = EXPERIMENTS["lemma3"].small()
    assert len(rows) == len(settings.dims) * len(settings.reaches)
    assert record["command"] == "recon run lemma3 --small"
    assert record["settings"]["draws"] == settings.draws
    assert record["seeds"] == [settings.seed]
    drawn, table = ((folder / name).read_bytes() for name in ("lemma3.png", "table.md"))
    (folder / "lemma3.png").unlink()
    (folder / "table.md").unlink()
    assert main(["plot", "all", "--results", str(tmp_path)]) == 0
    assert (folder / "lemma3.png").read_bytes() == drawn
    assert (folder / "table.md").read_bytes() == table
    assert "not run: needs" in (tmp_path / "claims.md").read_text()
    assert main(["plot", "lemma2", "--results", str(tmp_path)]) == 1
    assert "`recon run lemma2` comes first" in capsys.readouterr().err
    assert main(["plot", "--results", str(tmp_path / "none")]) == 2


def test_a_small_run_is_shown_and_not_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").write_text("in the way")  # of what is not written
    assert main(["run", "lemma3", "--small"]) == 0
    assert "probability" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_run(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["run", "robust", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "is no folder, or read-only" in capsys.readouterr().err


STUDENTS = ["run", "fig2-mnist", "--small", "--only", "victim=linear", "reply=gradient"]


def test_students_are_measured_cell_by_cell(tmp_path, capsys):
    assert main([*STUDENTS, "budget=10", "--out", str(tmp_path)]) == 0
    (row,), record = tables.read(tmp_path)
    assert (row["victim"], row["reply"], row["budget"]) == ("linear", "gradient", 10)
    assert record["command"] == (
        "recon run fig2-mnist --small --only victim=linear reply=gradient budget=10"
    )
    assert record["seconds"] == pytest.approx(row["seconds"], abs=1e-3)
    picture = f"{tmp_path.name}.png"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("rows.csv", "run.json", "table.md", picture),
    }
    assert "10" in capsys.readouterr().out
    # other cells join it, and the same one is measured in its place; records of earlier versions
    # hold the steps of small forms, and had fewer panels
    settings = record["settings"] | {"small_steps": 7, "panels": [["linear", [10]]]}
    tables.write(tmp_path, [row], record | {"settings": settings})
    assert main([*STUDENTS, "budget=100", "--out", str(tmp_path)]) == 0
    assert "1 rows of other cells" in " ".join(capsys.readouterr().err.split())
    assert main([*STUDENTS, "budget=100", "--out", str(tmp_path)]) == 0
    rows, joined = tables.read(tmp_path)
    assert [row["budget"] for row in rows] == [10, 100]
    assert rows[0] == row
    assert joined["earlier"][0]["command"] == record["command"]
    assert joined["command"].endswith(" && " + record["command"] + "0")
    # rows of other settings are not lost
    tables.write(tmp_path, rows, joined | {"settings": settings | {"steps": 1}})
    assert main([*STUDENTS, "budget=100", "--out", str(tmp_path)]) == 2
    assert "rows of other settings" in " ".join(capsys.readouterr().err.split())
    assert tables.read(tmp_path)[0] == rows


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([*STUDENTS, "budget=7"], "no budget is '7'; there are"),
        ([*STUDENTS, "colour=red"], "there is no column 'colour'"),
        ([*STUDENTS, "budget"], "--only takes COLUMN=VALUE"),
        (["run", "fig2-mnist"], "--data-dir names such a folder, --download gets the files"),
        (["run", "lemma3", "--small", "--only", "dim=2"], "lemma3 has no cells to choose from"),
        (["run", "lemma3", "--small", "--workers", "2"], "or to measure elsewhere"),
        (["run", "lemma3", "--full"], "lemma3 has no students, and so no --full form"),
        ([*STUDENTS, "budget=10", "--devices", "7"], "7 devices asked for, 1 are there"),
        (["run", "lemma3", "lemma2", "--small", "--out", "x"], "--out is for one name"),
    ],
)
def test_the_command_line_says_what_is_wrong(argv, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert sentence in err


def test_a_grid_is_tuned_on_images_that_are_not_the_test_part(tmp_path, capsys):
    assert main(["tune", "first", "--small", "--out", str(tmp_path)]) == 0
    rows, record = tables.read(tmp_path)
    assert {row["held_out"] for row in rows} == {200}
    assert record["command"].startswith("recon ")
    assert len({row["learning_rate"] for row in rows}) == 2


@pytest.mark.parametrize(
    "name", ["run", *(pytest.param(n, marks=pytest.mark.slow) for n in ("plot", "demo"))]
)
def test_scripts_are_thin_doors(name):
    path = ROOT / "scripts" / f"{name}.py"
    run = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=True
    )
    assert f"recon {name}" in run.stdout
    assert len(path.read_text().splitlines()) <= 8
