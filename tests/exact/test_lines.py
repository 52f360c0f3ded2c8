"""What is known of kinks along a line: meeting points, their density, and the rank of jumps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import exact, victims
from recon.exact import lines, rounds, splits
from recon.networks import TwoLayer
from recon.oracles import Reply

EPS = float(np.finfo(np.float64).eps)
ONE = lines.Settings(3, 1, 16, "float64", EPS)
TWO = lines.Settings(3, 2, 16, "float64", EPS)


@pytest.fixture(autouse=True, scope="module")
def double():
    with jax.enable_x64(True):
        yield


def network(rows, bias, weights):
    """Units with `weights` [K, h] and a linear part."""
    outputs, dim = len(weights), len(rows[0])
    slope = np.linspace(-1, 1, outputs * dim).reshape(outputs, dim)
    parts = (rows, bias, weights, slope, np.ones(outputs))
    return TwoLayer(*(jnp.asarray(a, float) for a in parts))


@partial(jax.jit, static_argnums=0)
def _asked(s, state, victim):
    x = rounds.queries(s, state, 0, s.capacity)
    reply = Reply(victim(x), victim.gradient(x))
    return rounds.settle(s, rounds.store(s, state, 0, x, reply))


@pytest.fixture(params=["numpy", "jax"], scope="module")
def form(request):
    """The namespace whose arrays a state is made of."""
    return {"numpy": np, "jax": jnp}[request.param]


def asked(form, s, victim, angles, seed=0):
    """The state of a search that has asked at these angles, in this order."""
    state = lines.begin(s, np.array([0, seed]), -1, 1000)
    n = len(angles)
    i = np.arange(s.capacity)
    pairs = np.where((i < n - 1)[:, None], np.stack([i, i + 1], 1), -1)
    state = state._replace(
        size=np.asarray(n),
        place=np.resize(np.asarray(angles, float), s.capacity),
        pairs=np.stack([pairs, np.full_like(pairs, -1)], 1),
    )
    if form is jnp:
        return _asked(s, state, victim)
    return _asked.__wrapped__(s, state, jax.tree.map(np.asarray, victim))


_intervals = jax.jit(lines.intervals, static_argnums=0)
_compare = jax.jit(splits.compare, static_argnums=0)


def intervals(form, s, state):
    return (lines.intervals if form is np else _intervals)(s, state)


def kinks_of(victim, state):
    """Angles [h] at which the line crosses the victim's hyperplanes."""
    victim, u, v = jax.tree.map(np.asarray, (victim, state.u, state.v))
    t = -(victim.rows @ u + victim.bias) / (victim.rows @ v)
    return np.arctan(np.asarray(t))


@pytest.mark.parametrize("bias", [0.0, 0.7, -40.0])
def test_tangents_meet_at_the_kink_of_a_single_unit(form, bias):
    victim = network([[0.6, 0.0, 0.8]], [bias], [[-2.5]])
    for seed in range(10):
        state = asked(form, ONE, victim, [-1.5, 1.5], seed)
        (kink,) = kinks_of(victim, state)
        iv = intervals(form, ONE, state)
        inside = -1.5 < kink < 1.5
        assert bool(iv.kink[0]) == inside
        assert not iv.kink[1:].any()
        assert (iv.low[0], iv.high[0]) == (-1.5, 1.5)
        if inside:
            assert abs(iv.meet[0] - kink) <= iv.blur[0] <= 1e-8


def test_tangents_of_two_opposite_units_can_meet_outside_of_their_interval(form):
    victim = network([[1.0, 0, 0], [1.0, 0, 0]], [0.0, -0.5], [[2.0, -1.9]])
    for seed in range(10):
        state = asked(form, ONE, victim, [-1.5, 1.5], seed)
        kinks = kinks_of(victim, state)
        if np.abs(kinks).max() < 1.5:
            iv = intervals(form, ONE, state)
            assert iv.kink[0]
            assert not kinks.min() < iv.meet[0] < kinks.max()


def test_intervals_come_in_the_order_of_their_angles(form):
    victim = network([[0.6, 0.0, 0.8]], [0.1], [[1.0]])
    state = asked(form, ONE, victim, [0.5, -1.0, 1.2, -0.2])
    iv = intervals(form, ONE, state)
    np.testing.assert_array_equal(iv.low[:3], [-1.0, -0.2, 0.5])
    np.testing.assert_array_equal(iv.high[:3], [-0.2, 0.5, 1.2])
    np.testing.assert_array_equal(iv.left[:3], [1, 3, 0])
    np.testing.assert_array_equal(iv.right[:3], [3, 0, 2])


@pytest.mark.parametrize("rate", [2.0, 20.0, 200.0])
def test_the_density_of_poisson_kinks_is_estimated(form, rate):
    capacity, seeds = 512, 40
    estimate = splits.density if form is np else jax.jit(splits.density)
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        count = int(np.clip(4 * rate, 64, capacity - 1))
        ends = np.sort(rng.uniform(-np.pi / 2, np.pi / 2, count + 1))
        kinks = rng.uniform(-np.pi / 2, np.pi / 2, rng.poisson(rate * np.pi))
        holds = np.histogram(kinks, ends)[0] > 0
        unused = np.zeros(capacity - 1 - count)
        low, high = np.append(ends[:-1], unused), np.append(ends[1:], unused)
        none = np.zeros(capacity - 1)
        kink = np.append(holds, unused.astype(bool))
        iv = lines.Intervals(none, none, low, high, none, none, kink)
        found.append(float(estimate(iv)))
    assert np.mean(found) == pytest.approx(rate, rel=5 / np.sqrt(np.pi * rate * seeds) + 0.05)
    assert np.std(found) < 3 * np.sqrt(rate)


def test_kinks_everywhere_have_no_finite_density(form):
    ends = form.linspace(-1.5, 1.5, 16)
    none, all_ = form.zeros(15), form.ones(15, bool)
    iv = lines.Intervals(none, none, ends[:-1], ends[1:], none, none, all_)
    assert splits.density(iv) == np.inf


def compared(form, victim, state):
    pairs = form.asarray([[0, 1]] * TWO.capacity)
    differs, several, *_ = (splits.compare if form is np else _compare)(TWO, state, pairs)
    return bool(differs[0]), bool(several[0])


ROWS = [[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("rows", "bias", "weights", "several"),
    [
        (ROWS[:1], [0.3], [[1.0], [2.0]], False),
        (ROWS, [0.3, -0.2], [[1.0, 2.0], [2.0, -1.0]], True),
        # parallel columns of W: rank one whatever the rows, so nothing is certain
        (ROWS, [0.3, -0.2], [[1.0, 2.0], [-1.0, -2.0]], False),
        # one hyperplane: one kink
        ([ROWS[0], ROWS[0]], [0.3, 0.3], [[1.0, 2.0], [2.0, -1.0]], False),
        # parallel rows: the gradient's jump is of rank one, the intercepts say more
        ([ROWS[0], ROWS[0]], [0.3, -0.2], [[1.0, 2.0], [2.0, -1.0]], True),
        ([ROWS[0], ROWS[0]], [0.3, -0.2], [[1.0, 1.0], [2.0, 2.0]], False),
    ],
)
def test_the_rank_of_a_jump_tells_several_units(form, rows, bias, weights, several):
    victim = network(rows, bias, weights)
    for seed in range(10):
        state = asked(form, TWO, victim, [-1.57, 1.57], seed)
        assert compared(form, victim, state) == (True, several)


def test_points_of_one_cell_do_not_differ(form):
    victim = network(ROWS, [0.3, -0.2], [[1.0, 2.0], [2.0, -1.0]])
    for seed in range(20):
        state = asked(form, TWO, victim, [0.0, 1e-4], seed)
        kinks = kinks_of(victim, state)
        crossed = bool(((kinks > 0) & (kinks < 1e-4)).any())
        assert compared(form, victim, state)[0] == crossed


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_shift_of_the_intercept_alone_is_a_difference(form, size):
    """Two parallel units of opposite weights: the gradient is the same on both sides."""
    victim = network([ROWS[0], ROWS[0]], [0.2, -0.2], [[size, -size], [0.0, 0.0]])
    differences = 0
    for seed in range(10):
        state = asked(form, TWO, victim, [-1.5, 1.5], seed)
        inside = np.abs(kinks_of(victim, state)).max() < 1.5
        if inside:
            assert compared(form, victim, state)[0]
        differences += inside
    assert differences > 0


def test_biases_of_a_bias_free_network_are_exactly_zero(random_truth, attack):
    for seed in range(5):
        found = attack(random_truth(seed, bias=False), seed).network
        assert not found.bias.any()
        assert not found.offset.any()
        assert found.width == 10


@pytest.mark.parametrize("form", [np, jnp])
@pytest.mark.parametrize(("outputs", "units"), [(2, 2), (3, 2), (10, 2), (10, 7), (40, 12)])
def test_the_middle_lies_among_the_kinks(form, outputs, units):
    """For orthogonal rows always, whatever the signs and sizes of the weights."""
    rng = np.random.default_rng(outputs * units)
    for _ in range(50):
        basis, _ = np.linalg.qr(rng.standard_normal((50, units)))
        rows = basis.T * 10 ** rng.uniform(-1, 1, (units, 1))
        weights = rng.standard_normal((outputs, units)) * 10 ** rng.uniform(-1, 1, units)
        u, v = rng.standard_normal((2, 50))
        bias = rng.standard_normal(units)
        jump = weights @ rows
        along = np.stack([jump @ u + weights @ bias, jump @ v], 1)
        t = -(rows @ u + bias) / (rows @ v)
        middle = np.tan(splits.middle(form.asarray(jump[None]), form.asarray(along[None])))[0]
        assert t.min() < middle < t.max()


@pytest.mark.parametrize("outputs", [2, 5])
def test_hardly_a_query_is_wasted_on_several_outputs(random_truth, attack, outputs):
    """One for each cell of the line, where least squares took a quarter more."""
    result = attack(random_truth(3, 96, 48, outputs), width=48)
    assert result.ok
    assert result.cost.queries < 1.45 * 48 + 3  # which told what is answered


def test_outputs_in_proportion_are_one_output():
    """Ranks tell nothing there: what a binary service answers, logits z and -z."""
    with jax.enable_x64(True):
        one = jax.tree.map(np.asarray, victims.random_network(jax.random.key(1), 24, 20))
        two = replace(one, weights=np.concatenate([one.weights, -one.weights]))
        two = replace(two, slope=np.zeros((2, 24)), offset=np.zeros(2))
        both = [
            exact.recover(victims.oracle_of(net), dim=24, key=0, width=20) for net in (one, two)
        ]
    assert all(got.ok for got in both)
    assert both[1].cost.queries < 1.5 * both[0].cost.queries
