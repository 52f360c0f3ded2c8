"""The theory as experiments: closed forms against their definitions, and every small form runs."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom

from recon.exact import asking
from recon.experiments import EXACT, EXPERIMENTS, Summarised, head, relative_error
from recon.experiments import algorithm1 as a1
from recon.experiments.cifar10 import CIFAR10
from recon.experiments.common import interval
from recon.experiments.lemmas import Lemma2, Lemma3, lemma2_bound, lemma2_exact, lemma2_sharp
from recon.experiments.mnist import MNIST
from recon.networks import TwoLayer

SLOW = (
    "queries",
    "robust",
    "views",
    "depth",
    "bench-exact",
    "bench-distill",
    *MNIST,
    *CIFAR10,
)  # small forms of 10 s and more
RUN = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in EXPERIMENTS]


epsilons = st.floats(1e-6, 1e3)
separations = st.floats(1e-4, 1.0)


@pytest.fixture(scope="module")
def small_rows():
    """Rows of every experiment's small form, run once for all tests that look at them."""
    done = {}

    def rows(name):
        if name not in done:
            done[name] = EXPERIMENTS[name].small().run()
        return done[name]

    return rows


# --- what every experiment promises -----------------------------------------------------------


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_head_names_claim_time_and_expectation(name):
    of = head(EXPERIMENTS[name])
    assert len(of.title) <= 100
    assert all(len(part) > 10 for part in of)
    assert "CPU core" in of.time


def test_the_list_can_be_read_at_once():
    assert len(EXPERIMENTS) + 1 <= 23  # and tune


@pytest.mark.parametrize("name", RUN)
def test_small_form_gives_flat_rows_and_tells_each(name, small_rows):
    rows, experiment = small_rows(name), EXPERIMENTS[name].small()
    few = experiment.summary(rows) if isinstance(experiment, Summarised) else rows
    assert all(set(experiment.shown) <= set(row) for row in few)
    flat = (bool, int, float, str, type(None))
    assert all(isinstance(cell, flat) for row in rows for cell in row.values())


def test_tell_hears_the_rows():
    told = []
    rows = replace(Lemma3(), dims=(2,), draws=64, chunk=64).run(told.append)
    assert told == rows


# --- binomial intervals and the error ---------------------------------------------------------


@given(st.integers(1, 400), st.data())
def test_interval_ends_where_the_tails_are(trials, data):
    hits = data.draw(st.integers(0, trials))
    low, high = interval(hits, trials, level=0.9)
    assert 0 <= low <= hits / trials <= high <= 1
    if hits > 0:
        assert binom.sf(hits - 1, trials, low) == pytest.approx(0.05, rel=1e-6)
    if hits < trials:
        assert binom.cdf(hits, trials, high) == pytest.approx(0.05, rel=1e-6)


def linear(slope):
    """f(x) = slope x as a network without units."""
    slope = np.asarray(slope, np.float64)
    outputs, dim = slope.shape
    return TwoLayer(
        np.zeros((0, dim)), np.zeros(0), np.zeros((outputs, 0)), slope, np.zeros(outputs)
    )


def test_relative_error_is_the_worst_over_the_root_mean_square():
    victim, network = linear([[3.0], [4.0]]), linear([[3.0], [4.5]])
    key = jax.random.key(0)
    with jax.enable_x64(True):
        error = relative_error(network, victim, key, n=1_500)  # more than one chunk, not whole ones
        chunks = [
            jax.random.normal(jax.random.fold_in(key, k), (size, 1), "float64")
            for k, size in enumerate((1_000, 500))
        ]
    x = np.concatenate([np.asarray(chunk) for chunk in chunks])
    truth = x * [3.0, 4.0]
    assert error == pytest.approx(0.5 * np.abs(x).max() / np.sqrt(np.mean(truth**2)))


def test_relative_error_scales_its_points():
    key, victim = jax.random.key(1), linear([[1.0, 2.0]])
    shifted = replace(victim, offset=np.array([1.0]))
    near, far = (relative_error(shifted, victim, key, 100, scale) for scale in (1.0, 1e3))
    assert far == pytest.approx(near / 1e3, rel=1e-5)


def test_relative_error_of_nothing_and_of_nan_is_infinite():
    key, victim = jax.random.key(2), linear([[1.0]])
    assert relative_error(victim, victim, key, 10) == 0
    assert relative_error(None, victim, key, 10) == math.inf
    assert relative_error(linear([[math.nan]]), victim, key, 10) == math.inf


def test_relative_error_from_a_zero_victim_is_absolute():
    error = relative_error(
        replace(linear([[0.0]]), offset=np.array([0.25])), linear([[0.0]]), jax.random.key(3), 10
    )
    assert error == 0.25


# --- Lemmas 2 and 3 ---------------------------------------------------------------------------


@given(epsilons, separations)
def test_lemma2_bounds_stand_above_the_exact_probability(epsilon, separation):
    exactly = lemma2_exact(epsilon, separation, nodes=1 << 12)
    assert 0 < exactly < 1
    assert exactly <= lemma2_sharp(epsilon, separation)
    assert exactly <= lemma2_bound(epsilon, separation)
    assert lemma2_sharp(epsilon, separation) <= epsilon / (2 * math.sqrt(separation)) * (1 + 1e-12)


@pytest.mark.parametrize(("epsilon", "separation"), [(1e-3, 0.01), (0.3, 0.5), (10.0, 1.0)])
def test_lemma2_exact_agrees_with_the_mean_over_the_direction_of_v(epsilon, separation):
    """P(|t1 - t2| <= epsilon | v) integrated over v itself: an angle and a length."""
    theta = math.acos(1 - separation)

    def given_v(length, angle):
        a, b = length * math.cos(angle), length * math.cos(angle - theta)
        y = epsilon * abs(a * b) / (math.sin(theta) * length)  # |u2 v1 - u1 v2| / |v| is normal
        return math.erf(y / math.sqrt(2)) * length * math.exp(-(length**2) / 2)

    def at_angle(angle):
        return quad(given_v, 0, 12, args=(angle,))[0] / math.pi

    breaks = sorted((math.pi / 2, (theta + math.pi / 2) % math.pi))
    direct = sum(
        quad(at_angle, a, b, epsabs=1e-10)[0]
        for a, b in zip((0, *breaks), (*breaks, math.pi), strict=True)
    )
    assert lemma2_exact(epsilon, separation) == pytest.approx(direct, rel=1e-5)


@given(separations)
def test_lemma2_exact_is_linear_in_small_epsilon(separation):
    theta = math.acos(1 - separation)
    slope = (1 + (math.pi / 2 - theta) / math.tan(theta)) / math.pi
    assert lemma2_exact(1e-9, separation) == pytest.approx(1e-9 * slope, rel=1e-6)


@pytest.mark.parametrize("name", ["lemma2", "lemma3"])
def test_measured_probabilities_agree_with_the_exact_ones(name, small_rows):
    for row in small_rows(name):
        assert row["probability"] == row["hits"] / row["draws"]
        assert row["low"] <= row["probability"] <= row["high"]
        sigma = math.sqrt(row["exact"] * (1 - row["exact"]) / row["draws"])
        assert abs(row["probability"] - row["exact"]) <= 5 * sigma
        assert row["exact"] <= row["bound"]


def test_lemma2_draws_do_not_depend_on_how_they_are_chunked():
    """Chunks have keys of their own: many small ones give the same law as one large one."""
    few = replace(Lemma2(), dims=(3,), separations=(0.5,), epsilons=(1.0,), draws=1 << 14)
    (one,), (many,) = replace(few, chunk=1 << 14).run(), replace(few, chunk=1 << 10).run()
    assert one["draws"] == many["draws"] == 1 << 14
    assert one["hits"] != many["hits"]
    assert one["probability"] == pytest.approx(many["probability"], abs=0.03)


# --- Algorithm 1 ------------------------------------------------------------------------------


def test_separation_ignores_the_sign_of_a_row():
    network = linear([[0.0, 0.0]])
    rows = np.array([[1.0, 0.0], [-0.6, 0.8]])
    assert a1.measured_separation(replace(network, rows=rows)) == pytest.approx(0.4)
    assert a1.measured_separation(replace(network, rows=rows * [[1], [-1]])) == pytest.approx(0.4)
    assert a1.measured_separation(replace(network, rows=rows[:1])) == 1


@given(st.integers(2, 200), st.floats(0.01, 0.99), st.floats(0.001, 1.0))
def test_sharp_epsilon_uses_up_half_of_delta_and_no_more(width, delta, separation):
    epsilon = a1.sharp_epsilon(width, delta, separation)
    pairs = width * (width - 1) / 2
    assert pairs * lemma2_sharp(epsilon, separation) <= delta / 2
    printed, _ = asking.theorem2_constants(width, delta, separation)
    assert epsilon > printed


def test_theorem1_counts_causes_and_keeps_to_the_bound(small_rows):
    for row in small_rows("theorem1"):
        assert row["failures"] == sum(row[cause] for cause in ("far", "close", "other", "wrong"))
        assert row["wrong"] == 0
        assert row["failure_rate"] == row["failures"] / row["runs"]
        # a search takes its steps in whole numbers, and the ends of the line cost two
        bound = row["bound_per_unit"] + 1 + 2 / row["width"]
        assert row["gradients_per_unit"] <= bound
        assert row["worst_error"] <= EXACT
    by_rule = {(row["width"], row["rule"]): row for row in small_rows("theorem1")}
    for width in (2, 4):
        sharp, printed = by_rule[width, "sharp"], by_rule[width, "paper"]
        assert sharp["gradients_per_unit"] < printed["gradients_per_unit"]


@pytest.mark.parametrize(
    ("reach", "eps", "cause"), [(1e-9, 1e-12, "far"), (1e9, 1e8, "close"), (1e6, 1e-6, "")]
)
def test_a_failed_search_is_put_down_to_its_cause(reach, eps, cause, monkeypatch):
    monkeypatch.setattr(asking, "theorem2_constants", lambda *_: (eps, reach))
    with jax.enable_x64(True):
        outcome = a1.attack(jax.random.key(5), 4, 2, 0.5, "paper")
    assert outcome.cause == cause
    assert (outcome.eps, outcome.reach) == (eps, reach)
    assert outcome.recovery.ok == (cause == "")


def test_figure1_finds_both_kinks_by_halving(small_rows):
    rows = small_rows("figure1")
    units, queries, kinks = (
        [row for row in rows if row["kind"] == kind] for kind in ("unit", "query", "kink")
    )
    assert len(units) == len(kinks) == 2
    for kink in kinks:
        assert kink["error"] <= kink["epsilon"]
        changes = [
            (s * unit["gradient_x"], s * unit["gradient_y"]) for unit in units for s in (1, -1)
        ]
        found = kink["gradient_x"], kink["gradient_y"]
        assert any(found == pytest.approx(change) for change in changes)
        # the last midpoint and the kink found are at most eps apart
        mine = [q["t"] for q in queries if q["search"] == kink["order"]]
        assert abs(mine[-1] - kink["t"]) <= kink["epsilon"]
    ends = [queries[0]["t"], queries[1]["t"]]
    assert ends == pytest.approx([-queries[0]["reach"], queries[0]["reach"]])
    assert [q["order"] for q in queries] == list(range(len(queries)))
    second = [q["t"] for q in queries if q["search"] == 1]
    assert second[0] == pytest.approx((kinks[0]["t"] + ends[1]) / 2)


# --- the tangent method -----------------------------------------------------------------------


def test_queries_and_robust_find_small_victims_exactly(small_rows):
    for row in small_rows("queries"):
        assert row["exact"] == row["ok"] == row["runs"]
        assert row["queries_per_unit_min"] <= row["queries_per_unit"] <= row["queries_per_unit_max"]
    for row in small_rows("robust"):
        assert row["wrong"] == row["near_only"] == 0
        assert row["failed"] == 0 or row["kind"].startswith(("any: ", "told "))
        assert row["exact"] + row["failed"] == row["victims"]
    named = {(row["kind"], row["width_known"]): row for row in small_rows("robust")}
    assert named["antiparallel", True]["fewer_units"] == 2  # some pairs share a hyperplane
