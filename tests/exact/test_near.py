"""Services that show probabilities, and inputs that must stay in a box: planted networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon import exact, oracles
from recon.exact import Status
from recon.exact.regions import slid, spread
from recon.networks import TwoLayer
from recon.oracles import Cost, View

ODDS = ("probabilities", "log_probabilities")
VIEWS = [
    View(outputs, "jacobian", of)
    for outputs in ("logits", *ODDS)
    for of in ("logits", *ODDS)
    if (outputs, of) != ("logits", "logits")
]


def drawn(seed, dim, width, outputs):
    """A, b, W, c of a random network whose logits part by about ten."""
    rng = np.random.default_rng(seed)
    rows, weights = rng.normal(size=(width, dim)), rng.normal(size=(outputs, width))
    bias, offset = rng.normal(size=width) / 2, rng.normal(size=outputs) / 3
    return rows / dim**0.5, bias, 2 * weights / width**0.5, offset


def logits(parts, x):
    a, b, w, c = parts
    return np.maximum(x @ a.T + b, 0) @ w.T + c


def service(parts, view, asked, inside=None):
    """A host service in NumPy; `asked` gathers the number of rows of every call."""
    a, b, w, _ = parts

    def fn(x):
        asked.append(len(x))
        if inside is not None:
            assert (x >= inside[0]).all()
            assert (x <= inside[1]).all()
        z = logits(parts, x)
        rows = np.einsum("kh,nh,hd->nkd", w, (x @ a.T + b > 0).astype(float), a)
        if z.shape[1] == 1:
            log, off = -np.logaddexp(0, -z), -np.logaddexp(0, z)
            change = np.exp(off)[:, :, None] * rows
        else:
            log = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
            change = rows - np.einsum("nk,nkd->nd", np.exp(log), rows)[:, None]
        odds = np.exp(log)
        shown = {"logits": z, "probabilities": odds, "log_probabilities": log}
        of = {"logits": rows, "log_probabilities": change}
        of["probabilities"] = odds[:, :, None] * change
        return shown[view.outputs], of[view.of]

    return oracles.from_host(fn, view=view)


def error(network, parts, x):
    """Of centred logits, or of a single one, relative to the largest."""
    true, found = logits(parts, x), np.asarray(network(x))
    if true.shape[1] > 1:
        true, found = (a - a.mean(1, keepdims=True) for a in (true, found))
    return np.abs(true - found).max() / np.abs(true).max()


def usual(dim, n=4_000):
    return np.random.default_rng(77).normal(size=(n, dim))


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("outputs", [1, 2, 3, 10])
def test_behind_a_softmax_the_network_is_exact_and_its_queries_are_counted(view, outputs):
    dim, asked = 12, []
    parts = drawn(outputs, dim, 10, outputs)
    got = exact.recover(service(parts, view, asked), dim=dim, key=5)
    assert got.ok, str(got)
    assert got.cost.gradients == sum(asked)
    assert got.cost.rounds == len(asked)
    assert got.cost.numbers == sum(asked) * outputs * (dim + 1)
    assert error(got.network, parts, usual(dim)) < 1e-9


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_jax_victim_behind_a_softmax_is_recovered_too(view):
    parts = drawn(3, 6, 8, 3)
    with jax.enable_x64(True):
        params = tuple(jnp.asarray(a) for a in parts)
        f = lambda p, x: p[2] @ jax.nn.relu(p[0] @ x + p[1]) + p[3]  # noqa: E731
        got = exact.recover(oracles.from_jax(f, params, view), dim=6, key=1)
    assert got.ok, str(got)
    assert error(got.network, parts, usual(6)) < 1e-9


@pytest.mark.parametrize("outputs", [1, 2, 4])
@given(seed=st.integers(0, 10_000))
def test_no_network_behind_a_softmax_is_wrong_and_ok(outputs, seed):
    rng = np.random.default_rng(seed)
    dim, width = int(rng.integers(1, 12)), int(rng.integers(1, 16))
    a, b, w, c = drawn(seed, dim, width, outputs)
    kind = seed % 5
    if kind == 1:
        b = 0 * b
    elif kind == 2:
        a[0], b[0] = a[-1], b[-1]  # twice
    elif kind == 3:
        a[0], b[0] = -a[-1], -b[-1]
    elif kind == 4:
        w[:, 0] *= 1e-3
    parts = a, b, w, c
    got = exact.recover(service(parts, VIEWS[1], []), dim=dim, key=seed, budget=6_000)
    if got.ok:
        x = usual(dim)
        if outputs == 1:  # beyond, p is one to all but a few digits
            x = x[np.abs(logits(parts, x)[:, 0]) < 20]
        assert error(got.network, parts, x) < 1e-6
    else:
        assert len(str(got)) > 20


def test_probabilities_of_many_hidden_units_take_few_queries():
    for seed in range(3):
        parts = drawn(seed, 60, 64, 10)
        got = exact.recover(service(parts, VIEWS[4], []), dim=60, key=seed)
        assert got.ok, str(got)
        assert error(got.network, parts, usual(60)) < 1e-11
        assert got.cost.queries <= 2.1 * 64


@pytest.mark.parametrize("box", [(0, 1), (-1, 1), (0, 255), (np.full(6, -2.0), np.arange(6.0))])
@pytest.mark.parametrize("view", [View(), VIEWS[4]], ids=str)
def test_no_query_leaves_a_box_and_the_network_is_exact_inside(box, view):
    for outputs, width in ((1, 5), (4, 12)):
        asked, low, high = [], *(np.broadcast_to(a, 6) for a in box)
        a, b, w, c = drawn(outputs, 6, width, outputs)
        scale = 2 / (high - low)
        parts = a * scale, b - a * scale @ (low + high) / 2, w, c
        oracle = service(parts, view, asked, (low, high))
        got = exact.recover(oracle, dim=6, key=2, box=box)
        assert got.ok, str(got)
        assert got.cost.gradients == sum(asked)
        x = np.random.default_rng(3).uniform(low, high, (4_000, 6))
        assert error(got.network, parts, x) < 1e-9


def test_an_input_that_may_not_change_is_left_alone():
    parts, asked = drawn(0, 6, 8, 3), []
    low, high = -np.ones(6), np.ones(6)
    low[2] = high[2] = 0.5
    got = exact.recover(service(parts, View(), asked, (low, high)), dim=6, key=2, box=(low, high))
    assert got.ok, str(got)
    x = np.random.default_rng(3).uniform(low, high, (4_000, 6))
    assert error(got.network, parts, x) < 1e-9


@pytest.mark.parametrize(
    "box", [1, (0, 1, 2), (1, 0), (0, np.inf), (np.zeros(3), np.ones(4)), (2, 2), ("a", "b")]
)
def test_a_box_that_is_none_is_refused(box):
    asked = []
    with pytest.raises(ValueError, match="box must be"):
        exact.recover(service(drawn(0, 6, 8, 3), View(), asked), dim=6, key=2, box=box)
    assert asked == []


@pytest.mark.parametrize("budget", [0, 1, 5, 20, 60, 120])
@pytest.mark.parametrize("box", [None, (-1, 1)])
def test_a_budget_is_kept_behind_a_softmax_and_in_a_box(budget, box):
    asked = []
    oracle = service(drawn(1, 12, 10, 4), VIEWS[4], asked)
    got = exact.recover(oracle, dim=12, key=2, budget=budget, box=box)
    assert sum(asked) == got.cost.queries <= budget
    assert got.ok or got.status is Status.BUDGET
    assert got.ok or got.cost.queries < budget or not budget or got.cost != Cost()


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
@pytest.mark.parametrize("box", [None, (0, 1)])
def test_gradients_times_inputs_are_divided(outputs, box):
    view = View(outputs, "input_x_gradient", outputs)
    plain = View(outputs, "jacobian", outputs)
    for count in (1, 4):
        parts, asked = drawn(count, 6, 8, count), []
        inner = service(parts, plain, asked)

        def fn(x, inner=inner):
            value, gradient = inner.fn(x)
            return value, gradient * x[:, None]

        got = exact.recover(oracles.from_host(fn, view=view), dim=6, key=3, box=box)
        assert got.ok, str(got)
        assert got.cost.gradients == sum(asked)
        x = usual(6) if box is None else np.random.default_rng(3).uniform(0, 1, (4_000, 6))
        assert error(got.network, parts, x) < 1e-9


@pytest.mark.parametrize(
    "view",
    [
        View("probabilities", "top"),
        View("probabilities", "top", "probabilities"),
        View("probabilities", "none"),
        View("logits", "none"),
        View("top", "top"),
    ],
    ids=str,
)
def test_one_call_takes_every_service(view):
    parts = drawn(7, 8, 6, 4)
    with jax.enable_x64(True):
        params = tuple(jnp.asarray(a) for a in parts)
        f = lambda p, x: p[2] @ jax.nn.relu(p[0] @ x + p[1]) + p[3]  # noqa: E731
        oracle = oracles.from_jax(f, params, view)
        got = exact.recover(oracle, dim=8, key=1)
    assert got.ok, str(got)
    found, x = np.asarray(got.network(usual(8))), usual(8)
    assert (found.argmax(1) == logits(parts, x).argmax(1)).all()
    with pytest.raises(ValueError, match="box, data, precision and whole"):
        exact.recover(oracle, dim=8, key=1, box=(0, 1))


def test_views_that_no_method_takes_are_refused():
    for view in (View("label", "jacobian"), View("none"), View(explanation="smooth_top")):
        with pytest.raises(oracles.ViewError, match="needs"):
            exact.recover(service(drawn(7, 8, 6, 4), view, []), dim=8, key=1)


def test_half_precision_in_a_box_is_refused_inside():
    low, high = np.full(6, 2.0), np.full(6, 3.0)
    inner = service(drawn(7, 6, 8, 3), View(), [], (low, high))
    oracle = oracles.from_host(lambda x: tuple(np.float16(part) for part in inner.fn(x)))
    got = exact.recover(oracle, dim=6, key=1, box=(2, 3))
    assert got.status is Status.UNCERTIFIED
    assert got.cost.queries == 2


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_points_are_slid_to_where_logits_show_and_stay_far(outputs):
    a, b, w, c = drawn(4, 12, 20, outputs)
    network = TwoLayer(a, b, 300 * w, np.zeros((outputs, 12)), 300 * c)
    x = 50 * np.random.default_rng(0).normal(size=(40, 12))
    far = np.linalg.norm(x, axis=1)
    limit = 300.0
    assert (spread(network(x)) > limit).mean() > 0.9
    moved = slid(network, x, limit)
    shows = spread(network(moved)) <= limit
    assert shows.mean() > 0.6
    assert np.median(np.linalg.norm(moved, axis=1)[shows] / far[shows]) > 0.4
    fine = spread(network(0.01 * x)) <= limit
    np.testing.assert_array_equal(slid(network, 0.01 * x, limit)[fine], 0.01 * x[fine])


def test_points_of_a_network_whose_numbers_overflow_stay_where_they_are():
    rows, none = np.eye(3), np.zeros((2, 3))
    endless = TwoLayer(rows, np.zeros(3), np.full((2, 3), np.inf), none, none[:, 0])
    x = np.ones((2, 3))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(slid(endless, x, 1.0), x)
