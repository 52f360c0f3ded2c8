"""The command lines: what they print, write and return."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from recon import networks, tables
from recon.experiments import EXPERIMENTS

SCRIPTS = Path(__file__).parents[1] / "scripts"


def load(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run():
    return load("run").main


@pytest.fixture(scope="module")
def plot():
    return load("plot").main


def test_json_is_one_object_and_the_network_is_saved(run, capsys, tmp_path):
    saved = tmp_path / "net.npz"
    argv = ["exact", "--dim", "12", "--width", "6", "--json", "--out", str(saved)]
    assert run(argv) == 0
    printed = json.loads(capsys.readouterr().out)
    wanted = {
        "status", "ok", "method", "dim", "width", "outputs", "found_width", "queries", "numbers",
        "rounds", "max_error", "certificate", "seconds", "seconds_with_compile",
    }  # fmt: skip
    assert wanted <= set(printed)
    assert printed["ok"]
    assert printed["numbers"] == printed["queries"] * 13
    network = networks.load(saved)
    assert network.width == printed["found_width"] == 6
    np.testing.assert_allclose(np.linalg.norm(network.rows, axis=1), 1)


def test_a_failure_is_said_and_nothing_is_saved(run, capsys, tmp_path):
    saved = tmp_path / "net.npz"
    argv = ["exact", "--dim", "12", "--width", "6", "--budget", "5", "--out", str(saved)]
    assert run(argv) == 1
    out, err = capsys.readouterr()
    assert "budget ran out" in " ".join(out.replace("│", " ").split())
    assert "Not saved" in err
    assert not saved.exists()
    assert run([*argv, "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["status"], printed["certificate"]) == ("BUDGET", None)
    assert printed["queries"] <= 5


def test_settings_that_make_no_sense_are_one_sentence(run, capsys):
    assert run(["exact", "--method", "bisect", "--no-width-known"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip().splitlines()[-1] == "method bisect has to know the width"


def test_unknown_names_are_one_sentence(run, plot, capsys, tmp_path):
    assert run(["lemma7"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'lemma7'" in line
    assert all(name in line for name in ("exact", *EXPERIMENTS))
    assert plot(["lemma7", "--results", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'lemma7'" in line
    assert "lemma2" in line


def test_help_lists_every_experiment(run, capsys):
    assert run([]) == 0
    out = capsys.readouterr().out
    assert all(f"    {name}" in out for name in EXPERIMENTS)


def test_an_experiment_writes_rows_record_and_figure(run, plot, capsys, tmp_path):
    assert run(["lemma3", "--small", "--out", str(tmp_path / "lemma3")]) == 0
    rows, record = tables.read(tmp_path / "lemma3")
    settings = EXPERIMENTS["lemma3"].small()
    assert len(rows) == len(settings.dims) * len(settings.reaches)
    assert record["settings"]["draws"] == settings.draws
    assert record["seeds"] == [settings.seed]
    picture = tmp_path / "lemma3" / "lemma3.png"
    drawn = picture.read_bytes()
    picture.unlink()
    assert plot(["all", "--results", str(tmp_path)]) == 0
    assert picture.read_bytes() == drawn
    assert plot(["lemma2", "--results", str(tmp_path)]) == 1
    assert "run scripts/run.py lemma2 first" in capsys.readouterr().err


def test_a_small_run_is_shown_and_not_written(run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").write_text("in the way")  # of what is not written
    assert run(["lemma3", "--small"]) == 0
    assert "probability" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_the_papers_methods_refuse_biases(run, capsys):
    assert run(["exact", "--method", "bisect", "--bias", "--dim", "4", "--width", "2"]) == 2
    assert "without biases" in capsys.readouterr().err
