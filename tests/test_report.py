"""The report for owners: its numbers are the attack's, its words are true of them.

Planted networks throughout; counts are held against committed runs of the paper's methods.
"""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from owned import X, attacked, planted

from recon import exact, oracles, tables, victims
from recon.exact.recovery import Recovery, Status, promise
from recon.networks import TwoLayer
from recon.oracles import Cost
from recon.reports import owner
from recon.reports.owner import facts as measured
from recon.reports.owner import text

ROOT = Path(__file__).parents[1]
# --- facts


def test_the_numbers_are_those_of_the_attack_and_of_the_planted_network(counting_host):
    network = planted()
    counted = counting_host(network)
    got = exact.recover(counted.oracle, dim=12, key=0)
    assert got.cost == counted.cost
    subject = owner.Subject("it", counted.oracle, X, own=True)
    facts = owner.measure(subject, got, seconds=1.0, price=2.0)
    assert (facts["queries"], facts["gradients"]) == (got.cost.queries, got.cost.gradients)
    assert (facts["ok"], facts["width"], facts["outputs"], facts["dim"]) == (True, 6, 1, 12)
    assert facts["network_numbers"] == 6 * 13
    assert facts["undefined"] == []
    assert (facts["eps"], facts["promise"]) == (2.0**-52, promise(2.0**-52))
    assert (facts["checked"], len(facts["errors"]), facts["same"]) == (50, 50, None)
    assert facts["max_error"] == facts["errors"][-1] < 1e-12
    rows = {row["what"]: (row["queries"], row["known"]) for row in facts["comparison"]}
    assert rows["this attack"] == (got.cost.queries, "measured")
    assert rows["floor, one gradient a unit"] == (6, "counted")
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_a_copy_that_is_wrong_is_seen_on_the_inputs():
    subject, got = attacked(planted(outputs=3, bias=True))
    truth = got.network(X)
    wrong = replace(got.network, offset=got.network.offset + np.array([0, 9, 0]))
    facts = owner.measure(subject, replace(got, network=wrong))
    assert facts["max_error"] == pytest.approx(9 / np.sqrt(np.mean(truth**2)))
    assert facts["same"] == np.mean(truth.argmax(1) == wrong(X).argmax(1)) < 1


@pytest.mark.parametrize("method", ["bisect", "membership"])
def test_computed_counts_are_within_an_eighth_of_what_was_measured(method):
    """As the page says of committed runs."""
    rows, _ = tables.read(ROOT / "results" / "bench_exact")
    rows = [row for row in rows if row["method"] == method and row["outcome"] == "ok"]
    assert len(rows) > 10
    for row in rows:
        if method == "bisect":
            computed = sum(measured.algorithm1(row["dim"], row["width"]))
        else:
            computed = measured.membership(row["dim"], row["width"])
        assert computed == pytest.approx(row["gradients"] + row["values"], rel=1 / 8), row


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
def test_turned_units_are_turned_back(seed, outputs, bias):
    """Of rows and weights that leave no choice of sides, as more inputs than units do."""
    r = np.random.default_rng(seed)
    n = TwoLayer(
        r.standard_normal((5, 9)),
        r.standard_normal(5) * bias,
        r.standard_normal((outputs, 5)),
        np.zeros((outputs, 9)),
        r.standard_normal(outputs) * bias,
    )
    other = r.random(5) < 0.5
    sign = np.where(other, -1.0, 1.0)
    turned = TwoLayer(
        n.rows * sign[:, None],
        n.bias * sign,
        n.weights,
        n.weights[:, other] @ n.rows[other],
        n.offset + n.weights[:, other] @ n.bias[other],
    )
    x = r.standard_normal((20, 9))
    np.testing.assert_allclose(turned(x), n(x), atol=1e-12)
    found = measured.structure(turned, 2.0**-52)
    assert (found["biases"], found["linear"]) == (bias, False)
    wanted = [f"{outputs} outputs"] * (outputs > 1) + ["biases"] * bias
    assert found["undefined"] == wanted
    rest = replace(turned, slope=turned.slope + r.standard_normal((outputs, 9)))
    assert measured.structure(rest, 2.0**-52)["linear"]


def test_the_papers_methods_are_run_when_asked_for_and_only_where_they_are_defined():
    subject, got = attacked(planted())
    facts = owner.measure(subject, got, compare=jax.random.key(5))
    run = [row for row in facts["comparison"] if row["known"] == "measured"]
    assert [row["what"] for row in run] == ["this attack", measured.ALGORITHM1, measured.MEMBERSHIP]
    for row, method in zip(run[1:], ("bisect", "membership"), strict=True):
        again = exact.METHODS[method](subject.oracle, dim=12, key=jax.random.key(5), width=6)
        assert row["queries"] == again.cost.queries
    assert "Both were run on the model" in owner.markdown(
        facts | {"files": {}, "missing": [], "figure": False}
    )
    subject, got = attacked(planted(outputs=2))
    facts = owner.measure(subject, got, compare=jax.random.key(5))
    assert [row["known"] for row in facts["comparison"]][2:] == ["computed", "computed"]


@pytest.mark.parametrize(
    ("x", "more", "sentence"),
    [
        (X[0], {}, "must be inputs"),
        (X, {"box": (0, 1)}, "must lie in the box"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(x, more, sentence):
    with jax.enable_x64(True):
        oracle = victims.oracle_of(planted())
    subject = owner.Subject("it", oracle, x, **more)
    with pytest.raises(ValueError, match=sentence):
        owner.measure(subject, Recovery(None, Status.NOISY, Cost()))


# --- words


def page(facts):
    return owner.markdown({"files": {}, "missing": [], "figure": False} | facts)


def test_a_service_of_probabilities_in_a_box_is_said_to_be_one():
    view = oracles.View("probabilities", of="probabilities")
    subject, got = attacked(planted(8, 5, 3, True), X[:, :8].clip(-1, 1), view, box=(-1, 1))
    facts = owner.measure(subject, got)
    assert (facts["hides"], facts["box"], facts["same"]) == (True, [-1, 1], 1)
    assert facts["max_error"] < facts["promise"]
    words = page(facts)
    assert "Probabilities hide what all logits have in common" in words
    assert "No query left the box from -1 to 1" in words
    assert "random inputs in the box, the error is at most" in words
    assert "the largest output is the same at all of them" in words
    assert "not defined for this model, which has 3 outputs and biases" in words


def test_a_linear_model_is_said_to_be_one():
    A = np.random.default_rng(0).standard_normal((2, 12))
    oracle = oracles.from_host(lambda x: (x @ A.T, np.repeat(A[None], len(x), axis=0)))
    facts = owner.measure(owner.Subject("it", oracle, X), exact.recover(oracle, dim=12, key=0))
    assert (facts["ok"], facts["width"], facts["linear"], facts["biases"]) == (True, 0, True, False)
    assert facts["network_numbers"] == 24
    assert "Found: a linear model" in page(facts)


def test_a_service_that_shows_one_output_is_not_compared():
    with jax.enable_x64(True):
        oracle = replace(victims.oracle_of(planted()), view=oracles.View("label"))
    got = Recovery(planted(), Status.RECOVERED, Cost(7, 0, 91, 1), 1e-9)
    facts = owner.measure(owner.Subject("it", oracle, X), got)
    assert (facts["errors"], facts["promise"], facts["eps"]) == (None, None, None)
    assert "the model does not show every output" in page(facts)


def test_costs_are_queries_times_the_price():
    subject, got = attacked(planted())
    words = page(owner.measure(subject, got, price=0.25))
    line = next(line for line in words.splitlines() if line.startswith("| this attack"))
    assert line.endswith(f"| {0.25 * got.cost.queries:.2f} |")


@pytest.mark.parametrize("status", [status for status in Status if not status.ok])
def test_every_failure_says_why_and_what_to_try(status):
    assert text.NEXT[status.name]
    with jax.enable_x64(True):
        oracle = victims.oracle_of(planted())
    got = Recovery(planted(), status, Cost(7, 0, 91, 1), detail="So it was.")
    words = page(owner.measure(owner.Subject("it", oracle, X), got))
    assert f"Why: {status.value} So it was." in words
    assert text.NEXT[status.name][0] in words
    assert "can be copied" not in words
    assert "7 queries" in words


def test_shares_are_not_rounded_up_to_all():
    assert text._percent(1.0) == "all of them"
    assert text._percent(0.99999) == "99.9 % of them"
