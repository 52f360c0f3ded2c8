"""What a report writes, where it refuses to, and `recon attack --report`."""

import json
import re
from pathlib import Path

import joblib
import numpy as np
import pytest
from owned import X, attacked, planted
from sklearn.datasets import load_wine
from sklearn.neural_network import MLPRegressor

from recon import networks
from recon.cli import main
from recon.reports import owner
from recon.reports.owner import figure

# --- files


def test_the_folder_holds_the_page_the_facts_the_copy_and_a_picture(tmp_path):
    subject, got = attacked(planted(outputs=3, bias=True))
    facts = owner.measure(subject, got)
    path = owner.write(tmp_path / "report", facts, got.network)
    words = path.read_text(encoding="utf-8")
    record = json.loads((tmp_path / "report" / "report.json").read_text())
    assert owner.markdown(record) == words
    assert record["errors"] == facts["errors"]
    loaded = networks.load(path.with_name("network.npz"))
    same = networks.from_json(path.with_name("network.json").read_text())
    model = joblib.load(path.with_name("network.joblib"))
    for network in (loaded, same):
        assert np.array_equal(network(X), got.network(X))
    np.testing.assert_allclose(model.predict(X), got.network(X), rtol=1e-12, atol=1e-12)
    listed = set(re.findall(r"^- `([\w.]+)`", words, flags=re.M))
    assert listed | {"report.md", "figure.png"} == {a.name for a in path.parent.iterdir()}
    picture = path.with_name("figure.png").read_bytes()
    owner.write(tmp_path / "report", facts, got.network)  # an earlier report is replaced
    assert path.with_name("figure.png").read_bytes() == picture


def test_the_figure_can_be_read_without_colour():
    from matplotlib.figure import Figure

    subject, got = attacked(planted(outputs=3, bias=True))
    drawn = Figure()
    figure.draw(drawn, [owner.measure(subject, got)])
    left, right = drawn.axes
    assert left.get_xlabel() == "queries (logarithmic)"
    assert "no unit" in right.get_xlabel()
    assert "%" in right.get_ylabel()
    looks = {(bar.get_hatch(), bar.get_facecolor()[:3]) for bar in left.patches}
    assert len(looks) == 4
    assert len({line.get_linestyle() for line in right.lines}) == 2
    assert [bar.get_width() for bar in left.patches][:2] == [got.cost.queries, 6]
    assert "not defined for this model" in " ".join(drawn.get_supxlabel().split())


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("")
    argv = ["attack", "--dim", "6", "--width", "2", "--report"]
    assert main([*argv, str(tmp_path)]) == 2
    assert "holds files that are no report" in capsys.readouterr().err
    (tmp_path / "report.json").write_text('{"kind": "another"}')
    assert main([*argv, str(tmp_path)]) == 2
    assert main([*argv, str(tmp_path / "file")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert {a.name for a in tmp_path.iterdir()} == {"thesis.txt", "file", "report.json"}


# --- recon attack --report


def test_an_attack_on_a_random_network_reports_and_a_failure_takes_the_copy_away(tmp_path, capsys):
    argv = ["attack", "--dim", "12", "--width", "6", "--report", str(tmp_path / "r")]
    assert main([*argv, "--price", "0.5", "--json"]) == 0
    out, err = capsys.readouterr()
    printed, record = json.loads(out), json.loads((tmp_path / "r" / "report.json").read_text())
    assert "report.md" in err.replace("\n", "")
    assert record["queries"] == printed["queries"]
    assert record["certificate"] == printed["certificate"]
    assert (record["price"], record["seed"], record["width"]) == (0.5, 0, 6)
    assert (tmp_path / "r" / "network.npz").exists()
    assert main([*argv, "--budget", "5"]) == 1
    assert {a.name for a in (tmp_path / "r").iterdir()} == {"report.md", "report.json"}
    words = (tmp_path / "r" / "report.md").read_text()
    assert "The query budget ran out" in words
    assert "Allow more queries" in words


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_an_attack_on_a_model_in_a_file_reports_on_the_owners_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = load_wine(return_X_y=True)
    model = MLPRegressor(hidden_layer_sizes=(6,), max_iter=20, random_state=0).fit(x, y)
    joblib.dump(model, "net.joblib")
    np.save("x.npy", x)
    argv = ["attack", "--model", "net.joblib", "--trust", "--data", "x.npy", "--report", "r"]
    assert main(argv) == 0
    words = Path("r/report.md").read_text()
    assert "# What scikit-learn MLPRegressor gives away" in words
    assert "At 178 inputs of yours the copy is off by at most" in words
    assert "random inputs with the means and spreads of yours" in words
    copy = joblib.load("r/network.joblib")
    np.testing.assert_allclose(copy.predict(x), model.predict(x), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--price", "1"], "--price is for the report: give --report"),
        (["--compare"], "--compare is for the report: give --report"),
        (["--report", "r", "--price", "-1"], "a price of -1.0 a query makes no sense"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(
    options, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["attack", "--dim", "4", "--width", "2", *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.strip().splitlines()[-1]) == ("", sentence)
    assert not [*tmp_path.iterdir()]
