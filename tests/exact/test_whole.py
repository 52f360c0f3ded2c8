"""Services that take whole numbers alone, and inputs that may not change."""

import numpy as np
import pytest

from recon import exact, oracles
from recon.exact import Status
from recon.oracles import View


def drawn(seed, dim, units, outputs, low, high):
    """A network whose kinks lie inside the box."""
    rng = np.random.default_rng(seed)
    size = np.maximum(np.asarray(high, float) - low, 1e-9) * np.ones(dim)
    rows = rng.normal(size=(units, dim)) / size / dim**0.5
    middle = rows @ ((np.asarray(low) + high) / 2 * np.ones(dim))
    bias = 0.2 * rng.normal(size=units) - middle
    return rows, bias, rng.normal(size=(outputs, units)), rng.normal(size=outputs)


class Service:
    """It refuses queries that are not whole or not in the box, and counts the others."""

    def __init__(self, network, low, high, whole=True, probabilities=False):
        self.network, self.asked = network, 0
        self.box, self.whole, self.probabilities = (low, high), whole, probabilities

    def __call__(self, x):
        low, high = self.box
        assert (x >= low).all()
        assert (x <= high).all()
        assert not self.whole or (x == np.rint(x)).all()
        self.asked += len(x)
        return self.answer(x)

    def answer(self, x):
        rows, bias, weights, offset = self.network
        z = x @ rows.T + bias
        value = np.maximum(z, 0) @ weights.T + offset
        if self.probabilities:
            value = np.exp(value - value.max(1, keepdims=True))
            value /= value.sum(1, keepdims=True)
        return value, np.einsum("kh,nh,hd->nkd", weights, (z > 0).astype(float), rows)


def apart(got, service, x):
    """The worst error of centred logits at x, relative to the largest."""
    found, true = got.network(x), service.answer(x)[0]
    true = np.log(true) if service.probabilities else true
    if service.probabilities:
        found, true = (a - a.mean(1, keepdims=True) for a in (found, true))
    return np.abs(found - true).max() / np.abs(true).max()


@pytest.mark.parametrize(("dim", "units", "outputs"), [(6, 8, 3), (16, 20, 10), (8, 12, 1)])
def test_pixels_from_0_to_255_are_enough(dim, units, outputs):
    for seed in range(2):
        service = Service(drawn(seed, dim, units, outputs, 0, 255), 0, 255)
        got = exact.recover(oracles.from_host(service), dim=dim, key=seed, box=(0, 255), whole=True)
        assert got.ok, str(got)
        assert got.cost.queries == service.asked
        x = np.random.default_rng(seed).integers(0, 256, (2_000, dim)).astype(float)
        assert apart(got, service, x) < 1e-9


def test_probabilities_at_whole_numbers_are_enough():
    service = Service(drawn(1, 8, 10, 4, 0, 255), 0, 255, probabilities=True)
    oracle = oracles.from_host(service, view=View("probabilities"))
    got = exact.recover(oracle, dim=8, key=1, box=(0, 255), whole=True)
    assert got.ok, str(got)
    assert got.cost.queries == service.asked
    x = np.random.default_rng(0).integers(0, 256, (2_000, 8)).astype(float)
    assert apart(got, service, x) < 1e-7


@pytest.mark.parametrize(("high", "budget"), [(1, 500), (4, 1_500)])
def test_few_whole_numbers_end_truthfully(high, budget):
    """Most kinks lie between points that may be asked: right at those, or not ok."""
    for seed in range(2):
        service = Service(drawn(seed, 6, 8, 3, 0, high), 0, high)
        got = exact.recover(
            oracles.from_host(service), dim=6, key=seed, box=(0, high), whole=True, budget=budget
        )
        assert got.cost.queries == service.asked <= budget
        if got.ok:
            x = np.random.default_rng(seed).integers(0, high + 1, (4_000, 6)).astype(float)
            assert apart(got, service, x) < 1e-7
        else:
            assert got.status in (Status.UNCERTIFIED, Status.BUDGET, Status.NOISY)


@pytest.mark.parametrize("whole", [False, True])
def test_inputs_that_may_not_change_keep_their_value(whole):
    low, high = np.zeros(9), np.full(9, 255.0)
    low[[2, 5]] = high[[2, 5]] = 7.0, 200.0
    service = Service(drawn(3, 9, 10, 3, 0, 255), low, high, whole)
    got = exact.recover(oracles.from_host(service), dim=9, key=0, box=(low, high), whole=whole)
    assert got.ok, str(got)
    assert got.cost.queries == service.asked
    x = np.random.default_rng(0).integers(low, high + 1, (2_000, 9)).astype(float)
    assert apart(got, service, x) < 1e-9


def test_arguments_that_make_no_sense_are_refused():
    service = Service(drawn(0, 6, 8, 3, 0, 255), 0, 255)
    oracle = oracles.from_host(service)
    for more, sentence in (
        ({}, "whole numbers need a box to be in"),
        ({"box": (0, 0.5)}, "box must be whole numbers"),
        ({"box": (0, 255), "data": np.full((3, 6), 0.5)}, "data must be whole numbers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            exact.recover(oracle, dim=6, key=0, whole=True, **more)
    assert service.asked == 0
