"""The comparison: outcomes told apart, what ART asks counted, an endless run killed."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from recon import exact
from recon.exact.recovery import Recovery, Status
from recon.experiments.bench import toolbox
from recon.experiments.bench.exact import BATCH, OURS, Bench, Case, compared
from recon.networks import TwoLayer
from recon.oracles import Cost, ReplyError

FAKE = '''
"""Stands in for ART: what it does depends on the number of units it is told."""
import time
import numpy as np

class BlackBoxClassifierNeuralNetwork:
    def __init__(self, predict, input_shape, nb_classes, preprocessing=(0, 1)):
        if nb_classes < 2:
            raise ValueError("two classes at least")
        self.predict, (self.dim,), self.preprocessing = predict, input_shape, preprocessing

class FunctionallyEquivalentExtraction:
    def __init__(self, classifier, num_neurons):
        self.classifier, self.h = classifier, num_neurons

    def extract(self, x):
        print("on stdout, where it must not disturb the answers")
        ask, d = self.classifier.predict, self.classifier.dim
        if self.h == 3:
            ask(np.zeros((5, d)))
            time.sleep(600)
        if self.h == 4:
            ask(np.zeros((2, d)))
            raise AssertionError("3 kinks, 4 expected\\nand more")
        if self.h == 5:
            import os
            os._exit(7)
        y = ask(np.eye(d))
        ask(x[:1])
        self.w_0, self.b_0 = np.eye(d)[:, : self.h], np.zeros((self.h, 1))
        self.w_1, self.b_1 = y[: self.h], np.zeros((y.shape[1], 1))
        self.b_1[0] = float(np.sum(np.asarray(x[0, 0]) * 0)) + (y.dtype == np.float32)
        assert (self.classifier.preprocessing is None) == (y.dtype == np.float64)
'''


@pytest.fixture
def fake_art(tmp_path, monkeypatch):
    """A package `art` that the other process finds before any real one."""
    for name, text in {
        "art/__init__.py": "__version__ = '9.9'",
        "art/config.py": "",
        "art/attacks/__init__.py": "",
        "art/attacks/extraction.py": FAKE,
        "art/estimators/__init__.py": "",
        "art/estimators/classification.py": FAKE,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


def axes_network(width, outputs, dim=6):
    """Unit rows along the axes, so that the stand-in's answer is exact: f(e_i) is W's column i."""
    weights = np.random.default_rng(width).normal(size=(outputs, width))
    slope, offset = np.zeros((outputs, dim)), np.zeros(outputs)
    return TwoLayer(np.eye(dim)[:width], np.zeros(width), weights, slope, offset)


def test_arts_answer_is_read_and_its_queries_are_counted(fake_art):
    (got,) = toolbox.extract([axes_network(2, 3)], 60.0)
    assert (got.end, got.detail, got.version) == ("returned", "", "9.9")
    assert got.cost == Cost(values=7, numbers=21, rounds=2)
    assert 0 < got.seconds < 60
    x = np.random.default_rng(0).normal(size=(20, 6))
    np.testing.assert_allclose(got.network(x), axes_network(2, 3)(x), rtol=1e-12)


def test_an_endless_run_is_killed_with_its_count_and_the_next_one_goes_on(fake_art):
    networks = [axes_network(width, 2) for width in (4, 3, 2)]
    raised, endless, returned = toolbox.extract(networks, 3.0)
    assert (raised.end, raised.network) == ("raised", None)
    assert raised.detail == "AssertionError: 3 kinks, 4 expected"
    assert raised.cost == Cost(values=2, numbers=4, rounds=1)
    assert (endless.end, endless.network, endless.seconds) == ("limit", None, 3.0)
    assert endless.cost == Cost(values=5, numbers=10, rounds=1)
    assert "3 s" in endless.detail
    assert returned.end == "returned"
    assert returned.version == endless.version == "9.9"


def test_a_process_that_dies_is_an_error(fake_art):
    with pytest.raises(RuntimeError, match="exit code 7"):
        toolbox.extract([axes_network(5, 2)], 60.0)


def test_without_art_its_rows_say_absent(tmp_path, monkeypatch):
    (tmp_path / "art").mkdir()
    (tmp_path / "art" / "__init__.py").write_text("raise ModuleNotFoundError('no art')")
    monkeypatch.syspath_prepend(tmp_path)
    (row,) = bench(Case(4, 2, 2, ("ART",), runs=1)).run()
    assert (row["outcome"], row["detail"]) == ("absent", "ART is not installed.")
    assert [row[name] for name in ("values", "seconds", "error", "version")] == [None] * 4


def test_rows_of_art_are_judged_as_ours_are(fake_art):
    cases = (Case(6, 2, 2, ("ART",), runs=2), Case(6, 2, 1, ("ART",), runs=1))
    several, again, scalar = replace(bench(*cases), toolbox_runs=2).run()
    # a random network's rows are no axes, so the stand-in's confident answer is wrong
    assert several["outcome"] == again["outcome"] == "wrong"
    assert several["error"] > 1e-3
    assert several["error"] != again["error"]
    assert (several["values"], several["repeats"]) == (7, 1)
    assert (scalar["outcome"], scalar["values"]) == ("not defined", None)
    assert scalar["detail"] == "ValueError: two classes at least"


@pytest.mark.skipif(find_spec("art") is None, reason="ART is not installed")
def test_the_real_art_is_driven_rightly():
    """Where the bench extra is installed: the outcome may be any, the calls must be ART's."""
    networks = [axes_network(2, 3, dim=4), axes_network(2, 1, dim=4)]
    got, refused = toolbox.extract(networks, 60.0)
    assert got.end == "returned", got.detail
    assert got.cost.values > 1_000
    assert got.network.rows.shape == (2, 4)
    assert (refused.end, refused.cost.queries) == ("raised", 0)
    assert "nb_classes" in refused.detail


# --- rows -------------------------------------------------------------------------------------


def bench(*cases):
    return Bench(cases=cases, points=200)


def pretend(monkeypatch, answer):
    """Every tangent attack is `answer(network)`."""
    monkeypatch.setitem(exact.METHODS, "tangent", lambda oracle, **_: answer(oracle.params))


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (lambda net: Recovery(net, Status.RECOVERED, Cost(5)), "ok"),
        (lambda net: Recovery(net, Status.OTHER_WIDTH, Cost(5)), "ok"),
        (
            lambda net: Recovery(
                replace(net, weights=1.001 * net.weights), Status.RECOVERED, Cost(5)
            ),
            "wrong",
        ),
        (
            lambda net: Recovery(
                replace(net, offset=net.offset * np.nan), Status.RECOVERED, Cost(5)
            ),
            "wrong",
        ),
        (lambda net: Recovery(net, Status.UNCERTIFIED, Cost(5)), "failed"),
        (lambda net: Recovery(None, Status.NOISY, Cost(5)), "failed"),
    ],
)
def test_no_status_is_believed(answer, outcome, monkeypatch):
    pretend(monkeypatch, answer)
    (row,) = bench(Case(6, 3, 1, ("tangent",), runs=1)).run()
    assert row["outcome"] == outcome
    assert row["gradients"] == 5
    assert (row["error"] is None) == (outcome == "failed")
    assert (row["detail"] is None) == (outcome != "failed")


def test_replies_at_fault_are_no_refusal(monkeypatch):
    def recover(oracle, **_):
        raise ReplyError("query row 3: the value is not finite")

    monkeypatch.setitem(exact.METHODS, "tangent", recover)
    with pytest.raises(ReplyError):
        bench(Case(6, 3, 1, ("tangent",), runs=1)).run()


def test_our_methods_meet_the_same_network_and_are_compared():
    case = Case(8, 4, 1, ("tangent", "bisect", "membership", BATCH), runs=1, repeats=2)
    rows = {row["method"]: row for row in bench(case).run()}
    assert {rows[name]["outcome"] for name in case.methods[:3]} == {"ok"}
    assert max(rows[name]["error"] for name in case.methods[:3]) < 1e-11
    tangent, bisect, alone = rows["tangent"], rows["bisect"], rows[BATCH]
    assert alone["outcome"] == "reference"
    assert (alone["gradients"], alone["rounds"]) == (tangent["gradients"], 1)
    assert tangent["times_queries"] == tangent["times_seconds"] == alone["times_batch"] == 1
    asked = bisect["gradients"] + bisect["values"]
    assert bisect["times_queries"] == asked / tangent["gradients"]
    assert bisect["times_numbers"] == bisect["numbers"] / tangent["numbers"]
    assert tangent["times_batch"] == tangent["seconds"] / alone["seconds"]
    for row in rows.values():
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
        assert row["repeats"] == 2
        assert row["first_seconds"] > 0


def test_the_papers_methods_are_not_defined_for_many_outputs():
    case = Case(8, 4, 2, ("bisect", "membership"), runs=1)
    for row in bench(case).run():
        assert row["outcome"] == "not defined"
        assert "K = 2 outputs" in row["detail"]
        assert row["seconds"] is row["first_seconds"] is row["times_queries"] is None


def test_ratios_want_the_same_network():
    def row(run, method, gradients, seconds):
        return {
            "run": run, "method": method, "gradients": gradients, "values": 0,
            "numbers": 10 * gradients, "seconds": seconds,
        }  # fmt: skip

    first, second, alone = compared(
        [row(0, "tangent", 4, 0.5), row(1, "bisect", 80, 3.0), row(0, BATCH, 4, 0.25)]
    )
    assert second["times_queries"] is None  # there is no tangent row for network 1
    assert first["times_batch"] == 2
    assert alone["times_seconds"] == 0.5


def test_summary_takes_medians_and_the_worst_error():
    def row(outcome, gradients, error):
        cells = dict.fromkeys(Bench.shown)
        named = {"network": "8-4-1", "method": "bisect", "outcome": outcome}
        return cells | named | {"gradients": gradients, "seconds": 2.0, "error": error}

    rows = [row("ok", 10, 1e-15), row("wrong", 30, 0.5), row("ok", 11, 1e-14)]
    (only,) = Bench().summary(rows)
    assert set(only) == set(Bench.shown)
    assert only["outcome"] == "2 ok, 1 wrong"
    assert (only["gradients"], only["error"], only["values"]) == (11, 0.5, None)
    assert Bench().summary([*rows, row("ok", 1, None) | {"method": "tangent"}])[1]["gradients"] == 1


def test_every_case_asks_the_tangent_method_first():
    """The others are compared with it, and the gradients alone are as many as it asked."""
    for case in (*Bench().cases, *Bench().small().cases):
        assert case.methods[0] == "tangent"
        known = {*OURS, BATCH, "ART"}
        assert set(case.methods) <= known


def test_importing_experiments_does_not_import_art():
    code = "import sys, recon.experiments.bench.exact; sys.exit('art' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
