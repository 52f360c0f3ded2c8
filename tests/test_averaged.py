"""Services that answer differently each time: told, averaged, counted, and promised truthfully."""

import jax
import numpy as np
import pytest

from recon import distill, exact, ledger, oracles, service
from recon.exact import Status
from recon.oracles import Cost, View

DIM, OUTPUTS, UNITS = 8, 3, 12
RNG = np.random.default_rng(0)
A, B, W = (RNG.normal(size=s) for s in ((UNITS, DIM), UNITS, (OUTPUTS, UNITS)))


def truth(x, mask=1.0):
    z = x @ A.T + B
    rows = np.einsum("kh,nh,hd->nkd", W, mask * (z > 0), A)
    return (mask * np.maximum(z, 0)) @ W.T, rows


class Dropout:
    """Units are scaled by chance each time, by a share `noise`; it counts its rows."""

    def __init__(self, noise, dtype=np.float64):
        self.rng, self.noise, self.dtype, self.asked = np.random.default_rng(1), noise, dtype, []

    def __call__(self, x):
        self.asked.append(len(x))
        mask = 1 + self.noise * self.rng.normal(size=(len(x), UNITS))
        return tuple(part.astype(self.dtype) for part in truth(x.astype(float), mask))


def recover(oracle, **more):
    return exact.recover(oracle, dim=DIM, key=0, **more)


def test_noise_is_named_and_how_many_replies_to_average():
    fn = Dropout(1e-5)
    got = recover(oracles.from_host(fn))
    assert got.status is Status.UNFIT
    assert "no two alike" in str(got)
    assert "service.averaged(oracle, n), has enough digits from n = " in str(got)
    n = int(str(got).split("n = ")[1].split(" ")[0].replace(",", ""))
    assert 100 <= n <= 2_000
    assert recover(service.averaged(oracles.from_host(Dropout(1e-5)), n)).ok


def test_the_mean_is_recovered_counted_and_promised_to_half_of_its_digits():
    fn = Dropout(1e-6)
    got = recover(service.averaged(oracles.from_host(fn), 100))
    assert got.ok, str(got)
    assert got.cost.queries == sum(fn.asked)
    assert got.cost.rounds == len(fn.asked)
    x = np.random.default_rng(2).normal(size=(2_000, DIM))
    error = np.abs(got.network(x) - truth(x)[0]).max() / np.sqrt(np.mean(truth(x)[0] ** 2))
    assert 1e-9 < error < 1e-3  # noise of 1e-7, half of whose digits are promised
    assert got.certificate > 1e-9


def test_a_budget_is_of_all_repeats():
    for budget in (99, 100, 1_234):
        fn = Dropout(1e-6)
        got = recover(service.averaged(oracles.from_host(fn), 100), budget=budget)
        assert got.status is Status.BUDGET
        assert got.cost.queries == sum(fn.asked) <= budget


def test_what_is_said_of_the_network_is_said_of_the_mean_too():
    oracle = service.averaged(oracles.from_host(Dropout(0.0)), 2)
    for name, wrong in (("depth", 0), ("share", 2.0), ("precision", 2.0), ("classes", 0)):
        with pytest.raises(ValueError, match=f"{name} must"):
            recover(oracle, **{name: wrong})
    with pytest.raises(ValueError, match="whole numbers need a box"):
        recover(oracle, whole=True)


def test_without_noise_the_mean_is_the_reply():
    for dtype in (np.float32, np.float64):
        fn = Dropout(0.0, dtype)
        oracle = oracles.from_host(fn)
        x = RNG.normal(size=(5, DIM))
        for a, b in zip(service.averaged(oracle, 3)(x), oracle(x), strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, b, rtol=1e-15 if dtype is np.float64 else 0)


@pytest.mark.parametrize("explanation", ["jacobian", "none"])
def test_a_bank_holds_means_and_counts_every_repeat(explanation):
    fn = Dropout(0.1)
    view = View(explanation=explanation)
    oracle = oracles.from_host(lambda x: fn(x) if view.axes else fn(x)[0], view=view)
    x = RNG.normal(size=(6, DIM)).astype(np.float32)
    bank = distill.buy(service.averaged(oracle, 400), x, chunk=4, probe=False)
    assert bank.cost(6).queries == sum(fn.asked) == 2_400
    assert bank.cost(6).rounds == len(fn.asked) == 800
    if view.axes:
        error = np.abs(np.asarray(bank.gradient) - truth(x)[1]).max()
        assert 1e-4 < error < 0.3 * np.abs(fn(x)[1] - truth(x)[1]).max()
    run = distill.train(
        jax.random.key(0),
        distill.Hyper(steps=2, loss="projection" if view.axes else "membership"),
        bank,
        distill.student("mlp", DIM, OUTPUTS),
    )
    assert run.ok


def test_a_ledger_keeps_means_and_its_budget_is_of_repeats(tmp_path):
    fn, x = Dropout(0.1), RNG.normal(size=(4, DIM))
    oracle = service.averaged(oracles.from_host(fn), 10)
    kept = ledger.kept(oracle, tmp_path / "l", service="dropout", budget=45)
    first, cost = oracles.ask(kept, x)
    assert cost == Cost(40, 0, 40 * OUTPUTS * (DIM + 1), 10)
    np.testing.assert_array_equal(kept(x).gradient, first.gradient)
    assert sum(fn.asked) == kept.tally.sent == 40
    with pytest.raises(ledger.BudgetError):
        kept(x + 1)
    assert sum(fn.asked) == 40


def test_what_has_no_mean_is_refused():
    plain = oracles.from_host(truth)
    for n in (0, -1, 2.5):
        with pytest.raises(ValueError, match="n must be a whole number of at least 1"):
            service.averaged(plain, n)
    for other in (oracles.from_jax(lambda x: x), service.averaged(plain, 2)):
        with pytest.raises(ValueError, match="a ledger goes around it"):
            service.averaged(other, 2)
    with pytest.raises(oracles.ViewError, match="labels have no mean"):
        service.averaged(oracles.from_host(truth, view=View("label")), 2)
