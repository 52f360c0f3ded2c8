"""Where nothing vouches for a network without all gradients: what its certificate must see, and
replies with which a search should not begin.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon import exact, oracles
from recon.exact import asking
from recon.exact.less import (
    biases,
    by_values,
    chords,
    fresh,
    top_classes,
    top_line,
    top_probability,
)
from recon.exact.less.odds import FEW_DIGITS, Log
from recon.exact.recovery import Status
from recon.networks import TwoLayer
from recon.replies import ReplyError, View


def planted(seed, dim=10, width=6, outputs=3):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(width, dim)) / dim**0.5
    weights = 2 * rng.normal(size=(outputs, width))
    bias, none = 0.5 * rng.normal(size=width), np.zeros((outputs, dim))
    return TwoLayer(rows, bias, weights, none, none[:, 0])


def shown(network, x):
    """Log-probabilities, and the gradient of the top probability."""
    z, gradient = network(x), network.gradient(x)
    z = z - z.max(1, keepdims=True)
    log = z - np.log(np.exp(z).sum(1, keepdims=True))
    top, at = log.argmax(1), np.arange(len(x))
    mean = np.einsum("nk,nkd->nd", np.exp(log), gradient)
    return log, np.exp(log[at, top])[:, None] * (gradient[at, top] - mean)


def test_the_certificate_sees_a_unit_that_is_rarely_on():
    view = View("log_probabilities", "top", "probabilities")
    missed = 0
    for seed in range(40):
        truth = planted(seed)
        bias = truth.bias.copy()
        bias[0] = -2.0 * np.linalg.norm(truth.rows[0])  # on at 2 % of normal points
        truth = replace(truth, bias=bias)
        kept = [getattr(truth, name)[1:] for name in ("rows", "bias")]
        network = replace(truth, rows=kept[0], bias=kept[1], weights=truth.weights[:, 1:])
        oracle = oracles.from_host(lambda x, truth=truth: shown(truth, x), view=view)
        log = Log(oracle, 10, flat=top_probability.FLAT)
        key = asking.seed(seed)
        log.ask(np.random.default_rng(seed).normal(size=(4, 10)))
        number = log.ask(fresh.points(log, network, key))
        missed += fresh.judge(log, network, number, key, None).error <= by_values.PROMISE
    assert missed <= 1


@pytest.mark.parametrize("digits", [lambda a: a.astype(np.float32), lambda a: a.round(6)])
def test_too_few_digits_are_said_after_the_first_round(digits):
    truth = planted(0)
    oracle = oracles.from_host(lambda x: digits(truth(x)), view=View("values", "none"))
    found = exact.recover(oracle, dim=10, key=0)
    assert not found.ok
    assert found.detail == FEW_DIGITS
    assert found.cost.queries < 10


@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_the_gradient_of_the_only_output_is_that_of_all(of):
    truth, asked = planted(1, outputs=1), []

    def fn(x):
        asked.append(len(x))
        p = 1 / (1 + np.exp(-truth(x)))
        return p, (p * (1 - p) if of == "probabilities" else 1) * truth.gradient(x)[:, 0]

    top = oracles.from_host(fn, view=View("probabilities", "top", of))
    found = exact.recover(top, dim=10, key=0)
    assert found.ok, str(found)
    assert found.cost.queries == sum(asked)
    x = np.random.default_rng(3).normal(size=(1000, 10))
    np.testing.assert_allclose(found.network(x), truth(x), atol=1e-8)
    left = exact.recover(top, dim=10, key=0, budget=9)
    assert left.status is Status.BUDGET
    assert left.cost.queries <= 9


def test_noise_ends_a_search_along_its_first_line(monkeypatch):
    monkeypatch.setattr(chords, "MANY", 200)
    rng, truth = np.random.default_rng(0), planted(2)

    def fn(x):
        return truth(x) * (1 + 1e-9 * rng.normal(size=(len(x), 3)))

    found = exact.recover(oracles.from_host(fn, view=View("values", "none")), dim=10, key=0)
    assert found.status is Status.NOISY
    assert found.cost.queries < 500


def test_biases_without_a_usable_value_have_no_equations():
    assert biases.system(np.zeros((0, 4), bool), np.ones((2, 4))).shape == (0, 6)


def test_open_units_are_moved_to_where_they_are_wanted():
    rng = np.random.default_rng(3)
    rows, bias, x = rng.normal(size=(7, 3)), rng.normal(size=7), rng.normal(size=(5, 3))
    moved = np.zeros((5, 7), bool)
    moved[np.arange(5), rng.integers(7, size=5)] = True  # one of more units than inputs
    after = top_classes._moved(x, moved, np.ones(7), rows, bias)
    assert ((after @ rows.T + bias)[moved] > 0).all()


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_service_that_is_sure_everywhere_is_said_to_be(outputs):
    truth = planted(4, outputs=outputs)
    truth = replace(truth, offset=truth.offset + 2000 * np.eye(outputs)[0])

    def fn(x):
        z = truth(x)
        p = 1 / (1 + np.exp(-z)) if outputs == 1 else np.exp(z - z.max(1, keepdims=True))
        return p, np.zeros((len(x), outputs, 10))

    service = oracles.from_host(fn, view=View("probabilities", of="probabilities"))
    found = exact.recover(service, dim=10, key=0)
    assert found.status is Status.UNCERTIFIED
    assert "one class alone" in found.detail
    assert found.cost.queries <= 3


def test_values_of_no_output_are_refused():
    nothing = oracles.from_host(lambda x: np.zeros((len(x), 0)), view=View("values", "none"))
    with pytest.raises(ReplyError, match="shape"):
        exact.recover(nothing, dim=3, key=0)


def noisy(truth, rng):
    """The label and its logit, with noise, and the gradient of that."""

    def fn(x):
        z, at = truth(x), np.arange(len(x))
        top = z.argmax(1)
        value = np.stack([top, z[at, top] * (1 + 1e-6 * rng.normal(size=len(x)))], 1)
        rows = truth.gradient(x)[at, top]
        return value, rows * (1 + 1e-6 * rng.normal(size=rows.shape))

    return fn


def test_noise_in_what_is_shown_of_the_top_class_ends_too(monkeypatch):
    monkeypatch.setattr(top_line, "MANY", 300)
    oracle = oracles.from_host(noisy(planted(5), np.random.default_rng(0)), view=View("top", "top"))
    found = exact.recover(oracle, dim=10, key=0)
    assert found.status is Status.NOISY
    assert found.cost.queries <= 300


def test_values_that_lose_an_output_are_refused():
    calls = []

    def fn(x):
        calls.append(len(x))
        return planted(6)(x)[:, : 3 if len(calls) < 3 else 2]

    with pytest.raises(ReplyError, match="2 outputs, where earlier replies had 3"):
        exact.recover(oracles.from_host(fn, view=View("values", "none")), dim=10, key=0)
