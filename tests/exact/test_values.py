"""Networks from services that show values and at most one row: they are found, or it is said.

Victims on the host count what they are asked; shapes are small, as every kind of view is tried.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon import oracles
from recon.exact import Status
from recon.exact.less import by_values, chords, top_logit, top_probability
from recon.exact.less.chords import Line, Replies
from recon.networks import TwoLayer
from recon.oracles import Cost
from recon.replies import View

EXACT = 1e-6
VIEWS = {
    "top logit": (top_logit.recover, View("probabilities", "top")),
    "top logit, logits": (top_logit.recover, View("logits", "top")),
    "top probability": (top_probability.recover, View("probabilities", "top", "probabilities")),
    "probabilities": (by_values.recover, View("probabilities", "none")),
    "log-probabilities": (by_values.recover, View("log_probabilities", "none")),
    "values": (by_values.recover, View("values", "none")),
}
every_view = pytest.mark.parametrize("name", VIEWS)


def planted(seed, dim=8, width=6, outputs=4, kind="plain"):
    rng = np.random.default_rng(seed)
    rows, bias = rng.normal(size=(width, dim)) / dim**0.5, 0.5 * rng.normal(size=width)
    weights = 2 * rng.normal(size=(outputs, width)) / width**0.5
    if kind == "dead":
        weights[:, 0], bias[1] = 0, -60
    if kind == "repeated":
        rows[1], bias[1], rows[3] = rows[0], bias[0], 2 * rows[2]
    if kind == "antiparallel":
        rows[1], bias[1], rows[3], bias[3] = -rows[0], -bias[0], -rows[2], bias[2] + 0.5
    if kind == "bias-free":
        bias[:] = 0
    if kind == "tiny":
        weights[:, 0] *= 1e-6
    return TwoLayer(rows, bias, weights, np.zeros((outputs, dim)), 0.3 * rng.normal(size=outputs))


KINDS = ["plain", "dead", "repeated", "antiparallel", "bias-free", "tiny"]


class Service:
    """A network behind a view, which counts what it is asked."""

    def __init__(self, network, view):
        self.network, self.view, self.cost = network, view, Cost()
        self.oracle = oracles.from_host(self.answer, view=view)

    def answer(self, x):
        z = self.network(x)
        log_p = z - np.logaddexp.reduce(z, 1)[:, None] if z.shape[1] > 1 else -np.logaddexp(0, -z)
        shown = {"probabilities": np.exp(log_p), "log_probabilities": log_p}
        value = shown.get(self.view.outputs, z)
        explained = bool(self.view.axes)
        numbers = value.size + explained * x.size
        self.cost += Cost(explained * len(x), (not explained) * len(x), numbers, 1)
        if not explained:
            return value
        here, label = np.arange(len(x)), z.argmax(1)
        gradient = self.network.gradient(x)
        row = gradient[here, label]
        if self.view.of == "probabilities":
            p = np.exp(log_p)
            row = p[here, label][:, None] * (row - np.einsum("nk,nkd->nd", p, gradient))
        return value, row


def deviation(found, truth, view):
    """The largest error at normal points, up to what the view hides, over the largest value."""
    x = np.random.default_rng(5).normal(size=(2000, truth.rows.shape[1]))
    z, other = truth(x), found(x)
    if "prob" in view.outputs and z.shape[1] > 1:
        z, other = (a - a.mean(1, keepdims=True) for a in (z, other))
    return np.abs(z - other).max() / np.abs(z).max()


def attack(name, truth, seed=0, **options):
    recover, view = VIEWS[name]
    seen = Service(truth, view)
    found = recover(seen.oracle, truth.rows.shape[1], seed, **options)
    assert found.cost == seen.cost
    if found.ok:
        assert deviation(found.network, truth, view) < EXACT, str(found)
    else:
        assert len(str(found)) > 20
    return found


# --- Views ------------------------------------------------------------------------------------


@every_view
@pytest.mark.parametrize("outputs", [2, 3, 10])
def test_random_networks_are_exact(name, outputs):
    for seed in range(2):
        found = attack(name, planted(seed, outputs=outputs), seed, width=6)
        assert found.status is Status.RECOVERED, found


@every_view
def test_more_units_than_inputs(name):
    for seed in range(2):
        found = attack(name, planted(seed, 4, 9), seed)
        assert found.status is Status.RECOVERED, found
        assert found.network.width == 9


@every_view
@pytest.mark.parametrize("kind", KINDS)
def test_networks_outside_the_assumptions_are_exact_or_not_ok(name, kind):
    right = sum(attack(name, planted(seed, kind=kind), seed).ok for seed in range(3))
    assert right == 3 or kind == "tiny"


@pytest.mark.parametrize("outputs", ["values", "probabilities"])
def test_one_output(outputs):
    """The usual extraction challenge: more units than inputs, biases, values alone."""
    truth, view = planted(0, 5, 8, 1), View(outputs, "none")
    seen = Service(truth, view)
    found = by_values.recover(seen.oracle, 5, 0)
    assert found.status is Status.RECOVERED
    assert found.cost == seen.cost
    assert deviation(found.network, truth, view) < EXACT


@every_view
def test_one_input(name):
    assert attack(name, planted(1, 1, 4, 5)).status is Status.RECOVERED


def test_a_function_of_values_beside_a_view_of_gradients_is_asked_alone():
    truth = planted(0)
    found = by_values.recover(oracles.from_host(None, truth), 8, 0)
    assert found.ok
    assert found.cost.gradients == 0


@every_view
def test_a_victim_in_jax_is_asked_alike(name):
    recover, view = VIEWS[name]
    truth = planted(3)
    with jax.enable_x64(True):
        network = jax.tree.map(jnp.asarray, truth)
        found = recover(oracles.from_jax(TwoLayer.__call__, network, view), 8, 0)
    assert found.ok
    assert deviation(found.network, truth, view) < EXACT


# --- Costs and failures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "most"), [("top logit", 2.4), ("top probability", 3.5), ("probabilities", 11.0)]
)
def test_queries_of_a_unit(name, most):
    """At 40-32-10; the floor of values alone is 50 / 9 = 5.6."""
    costs = [attack(name, planted(seed, 40, 32, 10), seed).cost.queries / 32 for seed in range(3)]
    assert np.mean(costs) < most


@every_view
def test_no_budget_is_exceeded(name):
    truth = planted(0)
    whole = attack(name, truth).cost.queries
    for budget in (0, 1, 9, whole // 2, whole - 1, whole):
        found = attack(name, truth, budget=budget)
        assert found.cost.queries <= budget
        assert found.ok == (budget == whole)
        assert found.ok or found.status is Status.BUDGET


@every_view
def test_a_wrong_width_is_said(name):
    assert attack(name, planted(0), width=5).status is Status.OTHER_WIDTH


@every_view
def test_three_layers_are_not_ok(name):
    recover, view = VIEWS[name]
    first, second = planted(0, 8, 6, 5), planted(1, 5, 6, 4)

    class Deep:
        def __call__(self, x):
            return second(first(x))

        def gradient(self, x):
            return second.gradient(first(x)) @ first.gradient(x)

    seen = Service(Deep(), view)
    found = recover(seen.oracle, 8, 0, budget=3000)
    assert not found.ok
    assert found.cost == seen.cost


@every_view
def test_replies_in_float32_are_never_wrong(name):
    recover, view = VIEWS[name]
    seen = Service(planted(0), view)

    def coarse(x):
        reply = seen.answer(x)
        return (
            tuple(a.astype(np.float32) for a in reply)
            if isinstance(reply, tuple)
            else (reply.astype(np.float32))
        )

    found = recover(oracles.from_host(coarse, view=view), 8, 0, budget=3000)
    assert not found.ok or deviation(found.network, seen.network, view) < EXACT


@every_view
def test_a_network_without_units_takes_few_queries(name):
    truth = planted(0)
    for slope in (0.0, 1.0):
        flat = replace(truth, weights=0 * truth.weights, slope=slope * truth.rows[:4])
        found = attack(name, flat)
        assert found.ok
        assert found.network.width == 0
        assert found.cost.queries < 640


def test_a_saturated_classifier_is_said_to_be():
    truth = planted(0)
    truth = replace(truth, offset=truth.offset + np.array([2000.0, 0, 0, 0]))
    found = attack("top logit", truth)
    assert "one class alone" in str(found)


@every_view
def test_arguments_that_make_no_sense(name):
    recover, view = VIEWS[name]
    oracle = Service(planted(0), view).oracle
    for bad in ({"dim": 0}, {"width": 0}, {"budget": -1}):
        with pytest.raises(ValueError, match="must"):
            recover(oracle, **{"dim": 8, "key": 0} | bad)
    with pytest.raises(oracles.ViewError):
        recover(oracles.from_host(lambda x: x[:, :1], view=View("label", "none")), 8, 0)


# --- The lemma ----------------------------------------------------------------------------------


@given(
    q=st.integers(1, 9),
    count=st.integers(0, 20),
    seed=st.integers(0, 2**32 - 1),
    hinted=st.booleans(),
)
def test_values_alone_find_all_kinks(q, count, seed, hinted):
    rng = np.random.default_rng(seed)
    kinks = np.sort(np.tan(rng.uniform(-1.5, 1.5, count)))
    jump, asked = rng.normal(size=(count, q)), []

    def ask(t):
        f = np.maximum(t[:, None] - kinks[None], 0) @ jump
        number = len(asked) + np.arange(len(t))
        asked.extend(t.tolist())
        return Replies(t, f, 1e-15 * (1 + count * (1 + np.abs(t))), number)

    def hint(number):
        cell = np.searchsorted(kinks, np.array(asked)[number])
        return np.where(np.diff(cell) == 0, chords.EMPTY, chords.FULL)

    line = Line(np.zeros(1), np.ones(1), 1.0)
    start = ask(np.tan(np.linspace(-1.56, 1.56, 10)))
    _, found = chords.search(ask, line, start, hint if hinted else chords.no_hint)
    apart = np.diff(np.arctan(kinks)).min(initial=1.0) > 1e-4
    if apart and np.linalg.norm(jump, axis=1).min(initial=1.0) > 1e-2:
        assert len(found.t) == count
        np.testing.assert_allclose(np.sort(found.t), kinks, rtol=1e-6, atol=1e-6)


def test_eight_kinks_are_read_off_eleven_replies():
    """A window of nine second differences in nine coordinates, one kink in each inner gap."""
    rng = np.random.default_rng(0)
    t = np.arange(11.0)
    kinks = 1 + np.arange(8) + rng.uniform(0.2, 0.8, 8)
    f = np.maximum(t[:, None] - kinks[None], 0) @ rng.normal(size=(8, 9))
    state, where = chords.explain(Replies(t, f, np.full(11, 1e-15), np.arange(11)), np.zeros(10))
    assert state.tolist() == [chords.EMPTY, *[chords.KINK] * 8, chords.EMPTY]
    np.testing.assert_allclose(where[1:-1], kinks, rtol=1e-9)
    f[5] += 1e-9  # as a second kink in a gap would
    state, _ = chords.explain(Replies(t, f, np.full(11, 1e-15), np.arange(11)), np.zeros(10))
    assert (state == chords.OPEN).all()
