"""Recovery from the top label, its logit and that logit's gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import exact, oracles
from recon.exact import Status
from recon.exact.less.top_classes import all_on, read
from recon.exact.less.top_line import _confirmed
from recon.exact.less.top_replies import Log
from recon.exact.less.top_touch import Planes, touched
from recon.exact.less.top_unseen import unseen
from recon.networks import TwoLayer
from recon.oracles import Cost, ReplyError, View, ViewError

VIEW = View("top", "top")


def attack(oracle, dim, key, **options):
    return exact.recover(oracle, dim=dim, key=key, **options)


def planted(seed, dim=12, width=8, outputs=3):
    rng = np.random.default_rng(seed)
    return TwoLayer(
        rng.normal(size=(width, dim)) / dim**0.5,
        0.5 * rng.normal(size=width),
        2 * rng.normal(size=(outputs, width)) / width**0.5,
        np.zeros((outputs, dim)),
        0.3 * rng.normal(size=outputs),
    )


@dataclass
class Counting:
    """A service on the host that counts what it is asked."""

    network: TwoLayer
    queries: int = 0
    rounds: int = 0

    def __call__(self, x):
        self.queries += len(x)
        self.rounds += 1
        logits = self.network(x)
        k = logits.argmax(1)
        gradient = self.network.gradient(x)[np.arange(len(x)), k]
        return np.stack([k, logits.max(1)], 1), gradient

    @property
    def oracle(self):
        return oracles.from_host(self, view=VIEW)

    @property
    def cost(self):
        dim = self.network.rows.shape[1]
        return Cost(self.queries, 0, self.queries * (dim + 2), self.rounds)


def wrong(found, truth):
    """Largest error of a logit of a class seen, relative to all, and of the label's own logit."""
    x = np.random.default_rng(7).normal(size=(4000, truth.rows.shape[1]))
    x[::2] *= 5
    logits, got = truth(x), found(x)
    seen = np.flatnonzero(np.isfinite(found.offset))
    scale = np.abs(logits).max()
    lost = logits.max(1) - logits[np.arange(len(x)), got.argmax(1)]
    return max(np.abs(got[:, seen] - logits[:, seen]).max(), lost.max()) / scale


@pytest.mark.parametrize("outputs", [1, 2, 3, 5])
@pytest.mark.parametrize("told", [False, True], ids=["width unknown", "width told"])
def test_every_class_is_recovered_and_every_query_counted(outputs, told):
    for seed in range(4):
        truth = planted(seed, outputs=outputs)
        service = Counting(truth)
        found = attack(service.oracle, 12, seed, width=8 if told else None, classes=outputs)
        assert found.status is Status.RECOVERED
        assert found.network.width == 8
        assert f"Classes seen on top: {np.isfinite(found.network.offset).sum()}" in found.detail
        assert wrong(found.network, truth) < 1e-10
        assert found.cost == service.cost


def test_queries_a_unit():
    asked = []
    for seed in range(6):
        service = Counting(planted(seed, 60, 40, 4))
        assert attack(service.oracle, 60, seed, classes=4).ok
        asked.append(service.queries / 40)
    assert np.mean(asked) < 2.7


@pytest.mark.parametrize("kind", ["no biases", "dead", "repeated", "slope", "square", "wide"])
def test_networks_outside_the_assumptions_are_right_or_not_ok(kind):
    right = 0
    for seed in range(4):
        truth = planted(seed, *{"square": (8, 8), "wide": (8, 12)}.get(kind, (12, 8)))
        weights, rows, bias = (a.copy() for a in (truth.weights, truth.rows, truth.bias))
        weights[:, 0] *= kind != "dead"
        rows[1], bias[1] = (rows[0], bias[0]) if kind == "repeated" else (rows[1], bias[1])
        slope = np.random.default_rng(seed).normal(size=truth.slope.shape) * (kind == "slope")
        offset = truth.offset * (kind != "no biases")
        bias = bias * (kind != "no biases")
        truth = TwoLayer(rows, bias, weights, slope, offset)
        service = Counting(truth)
        found = attack(service.oracle, rows.shape[1], seed, classes=3, budget=800)
        assert found.cost == service.cost
        assert not found.ok or wrong(found.network, truth) < 1e-9
        right += found.ok
    assert right >= 3


def test_a_class_that_is_never_on_top_is_said_and_never_named():
    truth = planted(1)
    weights, offset = truth.weights.copy(), truth.offset.copy()
    weights[0], offset[0] = weights[1:].min(0) - 0.1, -50.0
    truth = replace(truth, weights=weights, offset=offset)
    found = attack(Counting(truth).oracle, 12, 1)
    assert found.ok
    assert found.detail == "Classes seen on top: 2 (1, 2). Never: 0."
    assert np.isneginf(found.network.offset[0])
    assert wrong(found.network, truth) < 1e-10


def test_the_same_network_from_a_jax_victim():
    truth = planted(2)
    with jax.enable_x64(True):
        victim = jax.tree.map(jnp.asarray, truth)
        traced = attack(oracles.from_jax(TwoLayer.__call__, victim, VIEW), 12, jax.random.key(2))
    host = attack(Counting(truth).oracle, 12, jax.random.key(2))
    assert traced.ok
    assert host.ok
    assert wrong(traced.network, truth) < 1e-10
    assert traced.network.width == host.network.width == 8


def test_no_budget_is_exceeded():
    truth = planted(0)
    whole = attack(Counting(truth).oracle, 12, 0).cost.queries
    for budget in (0, 1, 5, whole // 2, whole - 1, whole):
        service = Counting(truth)
        found = attack(service.oracle, 12, 0, budget=budget)
        assert service.queries <= budget
        assert found.cost == service.cost
        assert found.ok == (budget == whole)
        assert found.ok or found.status is Status.BUDGET


def test_another_kind_of_victim_is_never_ok():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 5)), rng.normal(size=(3, 6))

    def smooth(x):
        hidden = np.tanh(x @ first.T)
        logits = hidden @ second.T
        k = logits.argmax(1)
        return np.stack([k, logits.max(1)], 1), (second[k] * (1 - hidden**2)) @ first

    found = attack(oracles.from_host(smooth, view=VIEW), 5, 0, budget=600)
    assert not found.ok
    assert len(str(found)) > 20


def test_arguments_and_views_that_make_no_sense_are_refused():
    oracle = Counting(planted(0)).oracle
    for words in ({"width": 0}, {"budget": -1}, {"classes": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(words))} must be a whole number"):
            attack(oracle, 12, 0, **words)
    with pytest.raises(ViewError, match="needs outputs logits"):
        attack(oracles.from_host(lambda x: x, view=View("top", "jacobian")), 12, 0)
    with pytest.raises(ValueError, match="box, data, precision and whole"):
        attack(oracle, 12, 0, box=(0, 1))
    with pytest.raises(ReplyError, match="query row 0"):
        attack(oracles.from_host(lambda x: (np.full((len(x), 2), np.nan), x), view=VIEW), 12, 0)


def test_a_touch_tells_a_unit_from_two():
    truth = planted(3)
    size = np.linalg.norm(truth.rows, axis=1)
    rows, bias = truth.rows / size[:, None], truth.bias / size
    both = (rows[0] + rows[1]) / np.linalg.norm(rows[0] + rows[1])
    planes = Planes(np.concatenate([rows[2:], both[None]]), np.append(bias[2:], 0.3))
    log = Log(Counting(truth).oracle, 12)
    log.ask(np.zeros((1, 12)))
    real = touched(log, planes, np.random.default_rng(0))
    assert real.tolist() == [True] * 6 + [False]
    assert log.cost.queries in (3, 5, 7)


def test_where_a_class_never_seen_is_likely_it_mostly_is():
    """Of classes with a tenth of the inputs at least, most answer at the first input proposed."""
    hits = []
    for seed in range(40):
        truth = planted(seed)
        share = np.bincount(
            truth(np.random.default_rng(1).normal(size=(500, 12))).argmax(1), minlength=3
        )
        if share[2] < 50:
            continue
        log = Log(Counting(truth).oracle, 12)
        x = np.random.default_rng(seed).normal(size=(60, 12))
        log.ask(x[truth(x).argmax(1) != 2])
        seen = np.array([True, True, False])
        point, chance = unseen(log, truth, seen, np.random.default_rng(seed))
        assert 0 < chance <= 1
        hits.append(truth(point[None]).argmax() == 2)
    assert len(hits) >= 4
    assert np.mean(hits) > 0.4


def test_gradients_of_other_classes_tell_units_from_two_taken_for_one():
    truth = planted(3, dim=12, width=6, outputs=3)
    log = Log(Counting(truth).oracle, 12, classes=3)
    log.ask(3 * np.random.default_rng(0).normal(size=(60, 12)))
    units = Planes(truth.rows, truth.bias)
    none = Planes(np.zeros((0, 12)), np.zeros(0))
    label = np.zeros(6, int)
    assert _confirmed(log, none, units, label).all()
    both = truth.weights[0, 0] * truth.rows[0] + truth.weights[0, 1] * truth.rows[1]
    false = Planes(np.concatenate([both[None], truth.rows[2:]]), truth.bias[1:])
    assert not _confirmed(log, none, false, label[1:]).any()
    one = log.label == 0  # which confirms nothing of its own rows
    for name in ("x", "label", "value", "gradient"):
        setattr(log, name, getattr(log, name)[one])
    assert not _confirmed(log, none, units, label).any()


@pytest.mark.parametrize("seed", range(4))
def test_points_where_all_units_are_barely_on_leave_the_class_on_top(seed):
    truth = planted(seed, dim=60, width=24, outputs=6)
    log, rng = Log(Counting(truth).oracle, 60, classes=6), np.random.default_rng(seed)
    log.ask(rng.normal(size=(80, 60)))
    reading = read(log, Planes(truth.rows, truth.bias))
    assert reading.plain
    x = 3 * rng.normal(size=(50, 60))
    moved = all_on(reading, x)
    assert (moved @ truth.rows.T + truth.bias > 0).all()
    assert (truth(moved).argmax(1) == truth(x).argmax(1)).mean() > 0.95
    turned = reading._replace(plain=False)
    np.testing.assert_array_equal(all_on(turned, x), x)


def bump(seed, width=0.4, at=1.0):
    """Class 2 is on top far out, and in a bump beside the origin at two inputs of a hundred."""
    rng = np.random.default_rng(seed)
    dim, hill = int(rng.integers(3, 6)), 40.0
    a, b = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:2]
    some = rng.normal(size=(4, dim)) / dim**0.5, 0.5 * rng.normal(size=4)
    rows = np.concatenate([some[0], [a] * 3, [b] * 3, [-a]])
    steps = width * np.array([1.0, 0.0, -1.0])
    bias = np.concatenate([some[1], steps - at, steps, [-6.0]])
    weights = np.zeros((3, 11))
    weights[:2] = rng.normal(size=(2, 11)) / 11**0.5
    weights[:2, -1] *= 0.1
    weights[2, 4:] = *(hill * np.array([1, -2, 1, 1, -2, 1])), 60.0
    offset = 0.3 * rng.normal(size=3)
    offset[2] = -1.15 * hill * width
    return TwoLayer(rows, bias, weights, np.zeros((3, dim)), offset)


@pytest.mark.parametrize(("seed", "width"), [(1, 0.6), (2, 0.4), (3, 0.4)])
def test_a_class_on_top_in_two_places_is_right_or_not_ok(seed, width):
    truth = bump(seed, width)  # its far place once told of the near one, by rounding at 1e15
    got = attack(Counting(truth).oracle, truth.rows.shape[1], seed)
    x = np.random.default_rng(5).standard_normal((10_000, truth.rows.shape[1]))
    label = truth(x).argmax(1)
    assert not got.ok or np.mean(got.network(x).argmax(1) != label) < 1e-3


def test_a_victim_that_is_nothing_ends_without_a_warning():
    truth = planted(0, dim=6, width=1, outputs=2)
    for size in (0.0, 1e-300):
        nothing = replace(truth, weights=size * truth.weights, offset=size * truth.offset)
        got = attack(Counting(nothing).oracle, 6, 0, budget=3000)
        assert not got.ok or np.abs(got.network(np.ones((1, 6)))[0, 0]) < 1e-290
