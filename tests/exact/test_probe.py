"""What a service really answers, told from a handful of queries: every cause by its sentence."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from recon import exact, oracles, probe
from recon.exact import Status
from recon.oracles import View
from recon.replies import Reply

DIM, OUTPUTS = 13, 3
RNG = np.random.default_rng(0)
A, B, W = RNG.normal(size=(20, DIM)) / DIM**0.5, RNG.normal(size=20), RNG.normal(size=(OUTPUTS, 20))


def plain(x):
    z = x @ A.T + B
    return np.maximum(z, 0) @ W.T, np.einsum("kh,nh,hd->nkd", W, (z > 0).astype(float), A)


def bent(x):
    z = x @ A.T + B
    return np.tanh(z) @ W.T, np.einsum("kh,nh,hd->nkd", W, 1 / np.cosh(z) ** 2, A)


def softmax(x):
    z, rows = plain(x)
    odds = np.exp(z - z.max(1, keepdims=True))
    odds /= odds.sum(1, keepdims=True)
    change = rows - np.einsum("nk,nkd->nd", odds, rows)[:, None]
    return odds, rows, change, odds[:, :, None] * change


def sigmoid(x):
    z, rows = plain(x)
    odds = 1 / (1 + np.exp(-z[:, :1]))
    return odds, (odds * (1 - odds))[:, :, None] * rows[:, :1]


def heat(x):
    z, rows = plain(x)
    size = np.abs(rows)
    return z, (255 * size / size.max((1, 2), keepdims=True)).astype(np.uint8)


def noisy(x):
    z, rows = plain(x)
    return z, rows + 1e-3 * NOISE.normal(size=rows.shape)


def integrated(x):
    nodes, weights = np.polynomial.legendre.leggauss(50)
    terms = (w / 2 * plain((1 + a) / 2 * x)[1] for a, w in zip(nodes, weights, strict=True))
    return plain(x)[0], sum(terms) * x[:, None]


def clipped(x):
    z, rows = plain(np.clip(x, 0, 1))
    return z, rows * ((x >= 0) & (x <= 1))[:, None]


NOISE = np.random.default_rng(1)
UNFIT = {
    "tanh": (bent, "not piecewise linear"),
    "probabilities": (lambda x: (softmax(x)[0], softmax(x)[3]), 'of="probabilities"'),
    "of logits": (lambda x: softmax(x)[:2], r'outputs="probabilities", of="logits"'),
    "of logarithms": (lambda x: (softmax(x)[0], softmax(x)[2]), 'of="log_probabilities"'),
    "logarithms": (lambda x: (np.log(softmax(x)[0]), softmax(x)[2]), 'outputs="log_probabilities"'),
    "logits, of probabilities": (lambda x: (plain(x)[0], softmax(x)[3]), "of something else"),
    "one probability": (sigmoid, "a probability"),
    "absolute": (lambda x: (plain(x)[0], np.abs(plain(x)[1])), "absolute values"),
    "another order": (lambda x: (plain(x)[0], plain(x)[1][:, [1, 2, 0]]), "in another order"),
    "clipped": (lambda x: (plain(x)[0], np.clip(plain(x)[1], -0.05, 0.05)), "they are clipped"),
    "scaled": (
        lambda x: (plain(x)[0], plain(x)[1] / 7),
        "not those of the values|of something else",
    ),
    "heat map": (heat, "whole numbers"),
    "labels": (lambda x: (plain(x)[0].argmax(1)[:, None], plain(x)[1][:, :1]), "labels"),
    "noise": (noisy, "noise in the explanation"),
    "clipped inputs": (clipped, r"clips.*box="),
    "products": (lambda x: (plain(x)[0], plain(x)[1] * x[:, None]), '"input_x_gradient"'),
    "integrated": (integrated, '"integrated_gradients"'),
    "integrated, float32": (
        lambda x: tuple(part.astype(np.float32) for part in integrated(x)),
        '"integrated_gradients"',
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_named_in_ten_queries(name):
    fn, sentence = UNFIT[name]
    asked = []
    oracle = oracles.from_host(lambda x: asked.append(len(x)) or fn(x))
    for key in range(5):
        got = exact.recover(oracle, dim=DIM, key=key)
        assert got.status is Status.UNFIT, str(got)
        assert not got.ok
        assert got.network is None
        assert got.cost.queries <= 10
        assert re.search(sentence, str(got)), str(got)
    assert sum(asked) == 5 * got.cost.queries


def test_what_fits_is_not_refused():
    for key in range(50):
        rng = np.random.default_rng(key)
        x = probe.points(rng, -np.ones(DIM), np.ones(DIM), 1e-16)
        found = probe.findings(x, Reply(*plain(x)), 2.0**-52)
        assert found == ("", 2.0**-52)


def as_json(x):
    """A float32 model behind JSON, where numbers come back as float64."""
    reply = (part.astype(np.float32).tolist() for part in plain(x))
    return tuple(np.array(json.loads(json.dumps(part))) for part in reply)


def test_float32_behind_json_is_found_out_and_recovered():
    got = exact.recover(oracles.from_host(as_json), dim=DIM, key=0)
    assert got.ok, str(got)
    assert got.cost.queries <= 110
    x = np.random.default_rng(9).normal(size=(2_000, DIM))
    assert np.abs(np.asarray(got.network(x)) - plain(x)[0]).max() < 1e-4


@pytest.mark.parametrize("places", [2, 3, 4, 6])
def test_decimals_are_found_out(places):
    x = probe.points(np.random.default_rng(0), -np.ones(DIM), np.ones(DIM), 1e-16)
    eps = probe.digits(Reply(*(np.round(part, places) for part in plain(x))))
    scale = np.linalg.norm(plain(x)[1], axis=2).max()
    assert eps == pytest.approx(10.0**-places * DIM**0.5 / 16 / scale, rel=0.01)
    assert probe.digits(Reply(*plain(x))) == 0


@pytest.mark.parametrize("places", [3, 4, 5, 6])
def test_rounded_replies_end_truthfully(places):
    fn = lambda x: tuple(np.round(part, places) for part in plain(x))  # noqa: E731
    got = exact.recover(oracles.from_host(fn), dim=DIM, key=0, budget=3_000)
    x = np.random.default_rng(9).normal(size=(2_000, DIM))
    true = plain(x)[0]
    if got.ok:
        assert np.abs(np.asarray(got.network(x)) - true).max() < 10.0 ** (1 - places / 2)
    else:
        assert got.status is not Status.NOISY
        assert len(str(got)) > 20


@pytest.mark.parametrize("shown", ["absolute", "channel_max", "heat_map"])
@pytest.mark.parametrize("explanation", ["jacobian", "top"])
def test_a_form_that_takes_something_away_is_refused_before_anything_is_asked(shown, explanation):
    oracle = oracles.from_host(lambda x: 1 / 0, view=View(explanation=explanation, shown=shown))
    with pytest.raises(oracles.ViewError, match=f"needs shown plain.* as {shown}"):
        exact.recover(oracle, dim=DIM, key=0)


def test_declared_digits_are_recovered_as_those_that_are_found_out():
    fn = lambda x: tuple(np.round(part, 6) for part in plain(x))  # noqa: E731
    known = exact.recover(
        oracles.from_host(fn, view=View(shown="digits_6")), dim=DIM, key=0, budget=3_000
    )
    found = exact.recover(oracles.from_host(fn), dim=DIM, key=0, budget=3_000)
    assert (known.status, known.cost) == (found.status, found.cost)


def test_a_declared_view_that_is_not_true_is_contradicted():
    wrong = oracles.from_host(
        lambda x: softmax(x)[:2], view=View("probabilities", "jacobian", "probabilities")
    )
    got = exact.recover(wrong, dim=DIM, key=0)
    assert got.status is Status.UNFIT
    assert got.cost.queries <= 10


@pytest.mark.parametrize("precision", [None, 1e-8])
def test_finite_differences_are_as_good_as_their_digits(precision):
    def fn(x):
        step = 1e-6 * np.maximum(1, np.abs(x).max(1))[:, None]
        ways = [(plain(x + step * e)[0] - plain(x - step * e)[0]) / (2 * step) for e in np.eye(DIM)]
        return plain(x)[0], np.stack(ways, 2)

    got = exact.recover(oracles.from_host(fn), dim=DIM, key=1, precision=precision)
    assert got.ok, str(got)
    x = np.random.default_rng(9).normal(size=(2_000, DIM))
    assert np.abs(np.asarray(got.network(x)) - plain(x)[0]).max() < 1e-4


@pytest.mark.parametrize("precision", [0.0, -1.0, 1.0, float("nan")])
def test_a_precision_that_is_none_is_refused(precision):
    with pytest.raises(ValueError, match="precision must lie between 0 and 1"):
        exact.recover(oracles.from_host(plain), dim=DIM, key=1, precision=precision)


def test_large_numbers_do_not_pass_for_ones_of_few_decimals():
    rng = np.random.default_rng(0)
    some = rng.normal(size=40)
    assert probe.decimals(np.round(some, 3)) == 3
    assert probe.decimals(some) is None
    assert probe.decimals(1e8 * some) is None  # eight digits are left of a unit
    assert probe.decimals(np.round(np.append(some, 1e8 * some), 3)) == 3
