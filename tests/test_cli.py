"""The command line: what it prints, writes and returns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recon import networks, tables
from recon.cli import COMMANDS, main
from recon.experiments import EXPERIMENTS
from recon.experiments.tune import GRIDS

SCRIPTS = Path(__file__).parents[1] / "scripts"
ATTACK = ["attack", "--dim", "12", "--width", "6"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Nothing is written into the repository, and no data is found."""
    monkeypatch.chdir(tmp_path)
    for name in ("RECON_DATA", "RECON_DOWNLOAD"):
        monkeypatch.setenv(name, "")  # what a command sets is put back
    return tmp_path


def refused(capsys, *argv):
    """What a command says that refuses, a sentence."""
    assert main([*argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.strip()]
    return line


# --- help, names


@pytest.mark.parametrize("name", COMMANDS)
def test_help_can_be_read(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    out = capsys.readouterr().out
    assert left.value.code == 0
    assert f"recon {name}" in out
    assert "Traceback" not in out


def test_what_there_is_is_listed(capsys):
    for argv in ([], ["--help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(f"recon {name}" in out for name in COMMANDS)
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert main(["list", "--markdown"]) == 0
    table = capsys.readouterr().out
    for name in EXPERIMENTS:
        assert name in shown
        assert f"| `{name}` |" in table


def test_unknown_names_are_one_sentence(capsys, tmp_path):
    assert "'attak'; there are attack, run" in refused(capsys, "attak")
    said = refused(capsys, "run", "lemma7")
    assert all(name in said for name in ("'lemma7'", *EXPERIMENTS))
    assert all(name in refused(capsys, "tune", "lemma7") for name in GRIDS)
    assert "lemma2" in refused(capsys, "plot", "lemma7", "--results", str(tmp_path))


@pytest.mark.parametrize("name", ["run", "plot", "demo"])
def test_a_script_is_a_thin_door(name):
    text = (SCRIPTS / f"{name}.py").read_text()
    assert f'main(["{name}", *sys.argv[1:]])' in text
    assert len(text.splitlines()) < 12


def test_a_script_returns_what_the_command_returns():
    argv = [sys.executable, str(SCRIPTS / "run.py"), "lemma7"]
    env = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    got = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (got.returncode, got.stdout) == (2, "")
    assert "There is no experiment 'lemma7'" in got.stderr


# --- attack


def test_json_is_one_object_and_the_network_is_saved(capsys, tmp_path):
    saved = tmp_path / "net.npz"
    assert main([*ATTACK, "--json", "--out", str(saved)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"]
    assert printed["status"] == "RECOVERED"
    assert printed["max_error"] <= 1e-11
    assert printed["numbers"] == printed["queries"] * 13
    network = networks.load(saved)
    assert network.width == printed["found_width"] == 6
    np.testing.assert_allclose(np.linalg.norm(network.rows, axis=1), 1)


def test_a_failure_is_said_and_nothing_is_saved(capsys, tmp_path):
    saved = tmp_path / "net.npz"
    assert main([*ATTACK, "--budget", "5", "--out", str(saved)]) == 1
    out, err = capsys.readouterr()
    assert "budget ran out" in " ".join(out.replace("│", " ").split())
    assert "Not saved" in err
    assert not saved.exists()
    assert main([*ATTACK, "--budget", "5", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["status"], printed["certificate"]) == ("BUDGET", None)
    assert printed["queries"] <= 5


def test_an_attack_that_makes_no_sense_is_one_sentence(capsys):
    bisect = ("attack", "--method", "bisect", "--dim", "4", "--width", "2")
    assert refused(capsys, *bisect, "--no-width-known") == "method bisect has to know the width"
    assert "without biases" in refused(capsys, *bisect, "--bias")
    assert "at least 1" in refused(capsys, "attack", "--dim", "0")


# --- run, tune, plot


def test_an_experiment_writes_rows_record_and_figure(capsys, tmp_path):
    assert main(["run", "lemma3", "--small", "--out", str(tmp_path / "lemma3")]) == 0
    rows, record = tables.read(tmp_path / "lemma3")
    settings = EXPERIMENTS["lemma3"].small()
    assert len(rows) == len(settings.dims) * len(settings.reaches)
    assert record["command"] == "recon run lemma3 --small"
    assert record["seeds"] == [settings.seed]
    table = (tmp_path / "lemma3" / "table.md").read_text()
    assert table == tables.markdown(rows, settings.shown)
    picture = tmp_path / "lemma3" / "lemma3.png"
    drawn = picture.read_bytes()
    picture.unlink()
    assert main(["plot", "all", "--results", str(tmp_path)]) == 0
    assert picture.read_bytes() == drawn
    assert (tmp_path / "claims.md").exists()
    assert main(["plot", "lemma2", "--results", str(tmp_path)]) == 1
    assert "`recon run lemma2` comes first" in capsys.readouterr().err
    assert "none is no folder" in refused(capsys, "plot", "--results", str(tmp_path / "none"))


def test_a_small_run_is_shown_and_not_written(capsys, tmp_path):
    (tmp_path / "results").write_text("in the way")  # of what is not written
    assert main(["run", "lemma3", "--small"]) == 0
    assert "probability" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_part_of_an_experiment_with_students_is_written(capsys, tmp_path):
    only = ("victim=linear", "reply=gradient", "budget=10")
    argv = ["run", "fig2-mnist", "--small", "--only", *only, "--out", str(tmp_path / "fig2_mnist")]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "victim linear, student linear, queries pool, reply gradient" in err  # a line each
    rows, record = tables.read(tmp_path / "fig2_mnist")
    assert [(r["victim"], r["reply"], r["budget"]) for r in rows] == [("linear", "gradient", 10)]
    assert record["command"] == f"recon run fig2-mnist --small --only {' '.join(only)}"
    assert record["seconds"] == pytest.approx(rows[0]["seconds"], abs=1e-2)
    assert (tmp_path / "fig2_mnist" / "fig2_mnist.png").exists()
    assert "median" in out


@pytest.mark.parametrize(
    ("only", "sentence"),
    [
        ("victim", "--only takes COLUMN=VALUE or COLUMN=VALUE,VALUE, got 'victim'"),
        ("colour=red", "there is no column 'colour'; there are dataset, victim"),
        ("victim=tree", "no victim is 'tree'; there are linear, mlp, conv"),
    ],
)
def test_only_names_what_there_is(only, sentence, capsys):
    assert sentence in refused(capsys, "run", "fig2-mnist", "--small", "--only", only)


def test_only_is_refused_where_there_are_no_cells(capsys):
    said = refused(capsys, "run", "lemma3", "--small", "--only", "dim=2")
    assert "lemma3 has no cells" in said


def test_missing_data_is_said_with_what_to_do(capsys, tmp_path):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    for more in ((), ("--data-dir", str(tmp_path / "there"))):
        said = refused(capsys, "run", "fig2-mnist", *more)
        assert "mnist" in said
        assert "--data-dir" in said
        assert "--download" in said
    assert not list(tmp_path.glob("results*"))


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_run(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        said = refused(capsys, "run", "lemma3", "--small", "--out", str(out))
        assert f"{out} cannot be written" in said
    said = refused(capsys, "run", "lemma2", "lemma3", "--out", str(tmp_path / "one"))
    assert said == "--out is for one name."


def test_choosing_writes_the_table_anew(capsys, monkeypatch, tmp_path):
    from recon.experiments import hyper

    committed = hyper.FILE.read_text(encoding="utf-8")
    monkeypatch.setattr(hyper, "FILE", tmp_path / "hyper.csv")
    results = Path(__file__).parents[1] / "results"
    assert main(["tune", "--choose", "--out", str(results)]) == 0
    assert (tmp_path / "hyper.csv").read_text(encoding="utf-8") == committed
