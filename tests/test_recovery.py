"""What the experiments on recovery and `recon attack` count, whatever a status says."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from recon import exact, oracles, victims
from recon.cli.attack import Attack
from recon.exact.recovery import Recovery, Status
from recon.experiments import EXACT
from recon.experiments.recovery import Queries, Robust
from recon.networks import TwoLayer
from recon.oracles import Cost
from recon.victims import draws, odd


@pytest.fixture(autouse=True)
def _cells_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))


def _and_a_far_unit(net):
    """The network with one unit more, which is off within a million of the origin."""
    row = np.eye(1, net.rows.shape[1])
    return replace(
        net,
        rows=np.concatenate([net.rows, row]),
        bias=np.append(net.bias, -1e6),
        weights=np.append(net.weights, [[1.0]], axis=1),
    )


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (lambda net: (net, Status.RECOVERED), "exact"),
        (lambda net: (replace(net, weights=net.weights * 1.001), Status.RECOVERED), "wrong"),
        (lambda net: (replace(net, offset=net.offset * np.nan), Status.RECOVERED), "wrong"),
        (lambda net: (_and_a_far_unit(net), Status.RECOVERED), "near_only"),
        (lambda net: (net, Status.BUDGET), "failed"),
        (lambda net: (None, Status.NOISY), "failed"),
    ],
)
def test_robust_believes_no_status(answer, counted, monkeypatch):
    def recover(oracle, **_):
        network, status = answer(oracle.params)
        return Recovery(network, status, Cost(gradients=12))

    monkeypatch.setattr(exact, "recover", recover)
    for row in replace(Robust().small(), inside_runs=3, outside_runs=3, services=0, told=0).run():
        assert row[counted] == row["victims"] == 3
        assert row["queries_per_unit"] == 2
        assert sum(row[name] for name in ("exact", "near_only", "failed", "wrong")) == 3
        assert (row["failures"] is None) == (counted != "failed")


def test_robust_holds_victims_of_all_sorts_to_their_own_values(monkeypatch):
    def recover(oracle, dim, **_):
        none = np.zeros((0, dim))
        zero = TwoLayer(none, none[:, 0], np.zeros((2, 0)), np.zeros((2, dim)), np.ones(2))
        return Recovery(zero, Status.RECOVERED, Cost(gradients=12))

    monkeypatch.setattr(exact, "recover", recover)
    few = replace(Robust().small(), inside=(), outside=(), services=96, told=8)
    rows = list(few.run())
    assert sum(row["victims"] for row in rows) == 104
    assert sum(row["wrong"] for row in rows) > 90


def test_a_victim_of_any_sort_shows_what_its_view_says():
    for view in odd.VIEWS[1:21:3]:
        victim = draws.random_odd(7, view)._replace(kind="relu", dtype="float64", decimals=None)
        assert isinstance(victim.value, TwoLayer)
        x = np.random.default_rng(0).normal(size=(4, victim.dim))
        with jax.enable_x64(True):
            service = oracles.from_jax(TwoLayer.__call__, victim.value, view)
            for got, want in zip(victim.oracle()(x), service.asked(x, 0, 4), strict=True):
                assert (got is None) == (want is None)
                if want is not None:
                    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_queries_counts_an_uncertified_network_as_not_ok(monkeypatch):
    def recover(oracle, **_):
        return Recovery(oracle.params, Status.UNCERTIFIED, Cost(gradients=7), 0.5)

    monkeypatch.setattr(exact, "recover", recover)
    for row in Queries().small().run():
        assert (row["ok"], row["exact"], row["worst_error"]) == (0, 0, None)
        assert row["worst_certificate"] == 0.5


@pytest.mark.parametrize("method", ["tangent", "bisect", "membership"])
def test_attack_summary_is_what_the_recovery_says(method):
    summary, got, _ = Attack(dim=12, width=6, method=method, delta=0.01).run()
    assert got.ok
    assert (summary["status"], summary["ok"]) == ("RECOVERED", True)
    assert summary["queries"] == got.cost.queries == got.cost.gradients + got.cost.values
    assert (summary["numbers"], summary["rounds"]) == (got.cost.numbers, got.cost.rounds)
    assert (summary["gradients"] == 0) == (method == "membership")
    assert summary["max_error"] <= EXACT
    assert summary["found_width"] == got.network.width == 6
    victim = victims.random_network
    with jax.enable_x64(True):
        planted = victim(jax.random.split(jax.random.key(0), 3)[0], 12, 6)
        x = jax.random.normal(jax.random.key(9), (5, 12))
        np.testing.assert_allclose(jax.vmap(got.network)(x), jax.vmap(planted)(x), rtol=1e-9)


def test_attack_refuses_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="has to know the width"):
        Attack(dim=4, width=2, method="bisect", width_known=False).run()
    with pytest.raises(ValueError, match="at least 1"):
        Attack(dim=0).run()
