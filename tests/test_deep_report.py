"""The report of a deep network: its numbers are counted by hand, its words true of it.

No attack is run: the recovery is the planted truth, its units in another order and scale.
"""

import json
from dataclasses import replace
from itertools import pairwise

import jax
import joblib
import numpy as np
import pytest

from recon import networks, victims
from recon.exact.recovery import Recovery, Status
from recon.networks import Deep, TwoLayer
from recon.oracles import Cost
from recon.reports import owner
from recon.reports.owner import facts as measured
from recon.reports.owner import figure

SIZES = (6, 5, 4, 3)
X = np.random.default_rng(0).standard_normal((40, 6))


def recovered(sizes=SIZES, bias=0.5):
    """A subject and its copy."""
    with jax.enable_x64(True):
        network = victims.random_deep(jax.random.key(0), sizes, bias)
        oracle = victims.oracle_of(network)
    copy = permuted(jax.tree.map(np.asarray, network), np.random.default_rng(1))
    got = Recovery(copy, Status.RECOVERED, Cost(70, 3, 1500, 9), 1e-13)
    return owner.Subject("a planted network", oracle, X), got


def permuted(network, r):
    weights, biases = [*network.weights], [*network.biases]
    for i, width in enumerate(network.widths):
        order, scale = r.permutation(width), r.uniform(0.5, 2, width)
        weights[i], biases[i] = (scale * weights[i].T).T[order], (scale * biases[i])[order]
        weights[i + 1] = (weights[i + 1] / scale)[:, order]
    return Deep(tuple(weights), tuple(biases))


def test_the_numbers_are_those_of_the_network():
    subject, got = recovered()
    facts = owner.measure(subject, got, price=2.0)
    numbers = sum(h * below + h for below, h in pairwise(SIZES))
    assert (facts["width"], facts["widths"], facts["outputs"], facts["dim"]) == (9, [5, 4], 3, 6)
    assert (facts["biases"], facts["linear"], facts["network_numbers"]) == (True, False, numbers)
    assert facts["undefined"] == ["2 hidden layers"]
    assert facts["max_error"] == facts["errors"][-1] < 1e-13
    assert facts["same"] == 1
    rows = {row["what"]: row["queries"] for row in facts["comparison"]}
    assert rows["this attack"] == 73
    assert rows[measured.FLOOR] == -(-(numbers - 9) // 7)
    assert rows[measured.ALGORITHM1] == rows[measured.MEMBERSHIP] == 0  # and so are not shown
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    none = owner.measure(*recovered(bias=0.0))
    assert (none["biases"], none["network_numbers"]) == (False, numbers - 12)
    wrong = replace(got.network, biases=(*got.network.biases[:-1], np.full(3, 9.0)))
    assert owner.measure(subject, replace(got, network=wrong))["max_error"] > 0.1


def test_the_folder_holds_a_page_that_is_true_and_files_that_answer_the_same(tmp_path):
    subject, got = recovered()
    facts = owner.measure(subject, got)
    words = owner.write(tmp_path / "r", facts, got.network).read_text(encoding="utf-8")
    assert owner.markdown(json.loads((tmp_path / "r" / "report.json").read_text())) == words
    for sentence in (
        "Found: hidden layers of 5 and 4 units, and biases.",
        "are for one hidden layer: there is nothing to compare",
        "the copy has 74 numbers",
        "floor, as many numbers as the model has",
        "the largest output is the same at all of them",
    ):
        assert sentence in words
    for other in ("slope", "rows have length one", "counts are what", "computed"):
        assert other not in words
    truth = got.network(X)
    for network in (
        networks.load(tmp_path / "r" / "network.npz"),
        networks.from_json((tmp_path / "r" / "network.json").read_text()),
    ):
        assert np.array_equal(network(X), truth)
    model = joblib.load(tmp_path / "r" / "network.joblib")
    np.testing.assert_allclose(model.predict(X), truth, rtol=1e-12, atol=1e-12)
    assert (tmp_path / "r" / "figure.png").stat().st_size > 1000


def test_the_figure_shows_what_there_is():
    drawn = pytest.importorskip("matplotlib.figure").Figure()
    figure.draw(drawn, [owner.measure(*recovered())])
    left, _ = drawn.axes
    assert [bar.get_width() for bar in left.patches] == [73, 10]
    caption = " ".join(drawn.get_supxlabel().split())
    assert caption.endswith("not defined for this model (2 hidden layers).")
    assert "Computed" not in caption


def test_one_hidden_layer_is_a_two_layer_network():
    _, got = recovered((6, 5, 3))
    deep = got.network
    (rows, weights), (bias, offset) = deep.weights, deep.biases
    found = measured.structure(deep, None)
    assert found == measured.structure(
        TwoLayer(rows, bias, weights, np.zeros((3, 6)), offset), None
    )
    assert found["widths"] == [5]
    assert not found["linear"]
