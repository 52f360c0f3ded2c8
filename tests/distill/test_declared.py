"""A service that does not show what it declares is named before its replies are bought."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import distill, oracles
from recon.distill import declared
from recon.oracles import Cost, View
from recon.paths import Path

DIM, OUTPUTS = 13, 3
RNG = np.random.default_rng(0)
A, B, W = (RNG.normal(size=s).astype("float32") for s in ((30, DIM), 30, (OUTPUTS, 30)))
X = RNG.normal(size=(10, DIM)).astype("float32")
NOISE = np.random.default_rng(1)


def relu(p, x):
    return jnp.asarray(W) @ jax.nn.relu(jnp.asarray(A) @ x + jnp.asarray(B)) / 10


def gelu(p, x):
    return jnp.asarray(W) @ jax.nn.gelu(jnp.asarray(A) @ x + jnp.asarray(B)) / 10


def one(p, x):
    return relu(p, x)[:1]


def says(shown, declared, f=relu, change=lambda value, rows: (value, rows)):
    """A host service that shows `shown` and declares another view; it counts its rows."""
    inner, asked = oracles.from_jax(f, (), shown, key=0), []

    def fn(x):
        asked.append(len(x))
        return change(*oracles.ask(inner, x)[0])

    return oracles.from_host(fn, view=declared), asked


TRUE = [
    View(),
    View("probabilities"),
    View("log_probabilities", of="probabilities"),
    View("label", "jacobian"),
    View("probabilities", "top", of="probabilities"),
    View("logits", "integrated_gradients"),
    View("probabilities", "input_x_gradient"),
    View("logits", "smoothgrad"),
    View("probabilities", "top", shown="absolute"),
    View("logits", shown="heat_map"),
    View("label", shown="heat_map"),  # whole numbers throughout
    View("logits", "integrated_gradients", path=Path(20, "riemann_middle", 0.5)),
    View("logits", "integrated_gradients", path=Path(2, "riemann_left", 2.0)),
    View("logits", shown="digits_4"),
]


@pytest.mark.parametrize(
    ("f", "views"),
    [
        (relu, TRUE[1::3] + TRUE[2::3]),
        (one, TRUE[::3]),
        (gelu, TRUE[::6]),
        pytest.param(relu, TRUE[::3], marks=pytest.mark.slow),
        pytest.param(gelu, TRUE[3::6], marks=pytest.mark.slow),
    ],
)
def test_what_is_declared_as_it_is_is_bought(f, views):
    for view in views:
        oracle, asked = says(view, view, f)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            bank = distill.buy(oracle, X)
        assert bank.cost(10).queries == sum(asked) == 10 + declared.QUERIES, view
        assert bank.cost(10).gradients - bank.cost(4).gradients == 6
        assert bank.cost(10).rounds == len(asked) == 2


PLAIN = View()
FALSE = {
    "absolute": (View(shown="absolute"), PLAIN, "No gradient is negative: these are absolute"),
    "heat map": (View(shown="heat_map"), PLAIN, "whole numbers, as in a picture"),
    "of probabilities": (View(of="probabilities"), PLAIN, "not those of the values"),
    "probabilities": (View("probabilities", of="probabilities"), PLAIN, "sum to one"),
    "integrated": (View(explanation="integrated_gradients"), PLAIN, '"integrated_gradients"'),
    "products": (View(explanation="input_x_gradient"), PLAIN, '"input_x_gradient"'),
    "absolute, hidden": (
        View("probabilities", shown="absolute"),
        View("probabilities"),
        "these are absolute",
    ),
    "absolute, of the top": (
        View(explanation="top", shown="absolute"),
        View(explanation="top"),
        "these are absolute",
    ),
    "not absolute": (PLAIN, View(shown="absolute"), "not in the form absolute"),
    "not rounded": (PLAIN, View(shown="digits_3"), "not in the form digits_3"),
    "not a map": (View(shown="absolute"), View(shown="heat_map"), "not in the form heat_map"),
    "not integrated": (
        PLAIN,
        View(explanation="integrated_gradients"),
        "do not sum to what the outputs",
    ),
}


@pytest.mark.parametrize("name", FALSE)
def test_what_is_not_as_declared_is_named_in_seven_queries(name):
    shown, view, sentence = FALSE[name]
    oracle, asked = says(shown, view)
    with pytest.raises(oracles.ViewError, match=sentence):
        distill.buy(oracle, X)
    assert asked == [declared.QUERIES]
    assert len(distill.buy(oracle, X, probe=False)) == 10
    assert asked == [declared.QUERIES, 10]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda value, rows: (value, rows[:, [1, 2, 0]]), "another order of the outputs"),
        (lambda value, rows: (value, np.clip(rows, -0.1, 0.1)), "they are clipped"),
        (lambda value, rows: (value, rows / 7), "not those of the values"),
    ],
)
def test_gradients_that_are_changed_are_named(change, sentence):
    oracle, _ = says(PLAIN, PLAIN, change=change)
    with pytest.raises(oracles.ViewError, match=sentence):
        distill.buy(oracle, X)


def test_replies_that_differ_when_asked_again_are_said_to():
    def noisy(value, rows):
        return value, rows + 1e-3 * NOISE.normal(size=rows.shape)

    oracle, _ = says(PLAIN, PLAIN, change=noisy)
    with pytest.warns(UserWarning, match=r"two replies to one query differ by 0\.00\d .*averaged"):
        distill.buy(oracle, X)


def test_what_jax_computes_here_and_values_alone_are_not_questioned():
    bank = distill.buy(oracles.from_jax(relu, (), View(shown="absolute")), X)
    assert bank.cost(10).queries == 10
    oracle, asked = says(View(explanation="none"), View(explanation="none"))
    assert distill.buy(oracle, X).cost(10) == Cost(values=10, numbers=30, rounds=1)
    assert asked == [10]


@pytest.mark.parametrize("x", [X[:1], np.repeat(X[:1], 3, 0), np.zeros((2, DIM), "float32")])
def test_the_questions_are_beside_the_users_inputs_whatever_these_are(x):
    at = declared.points(x)
    assert at.shape == (declared.QUERIES, DIM)
    assert at.dtype == x.dtype
    assert len(np.unique(at, axis=0)) == declared.QUERIES - 1
    assert (at[declared.AGAIN] == at[0]).all()
    if x.any():
        assert (np.abs(at) <= np.abs(x).max(0)).all()


def test_numbers_to_few_decimals_are_not_contradicted():
    view = View("probabilities", of="probabilities", shown="digits_4")
    oracle, _ = says(view, view, change=lambda v, g: (np.round(v.astype(float), 4), g))
    distill.buy(oracle, X)


def test_large_networks_bend_within_a_step_and_are_not_contradicted():
    rng = np.random.default_rng(3)
    a, w = rng.normal(size=(20_000, DIM)), rng.normal(size=(OUTPUTS, 20_000)) / 100
    f = partial(lambda p, x: jnp.asarray(w, x.dtype) @ jax.nn.relu(jnp.asarray(a, x.dtype) @ x))
    for seed in range(5):
        oracle, _ = says(PLAIN, PLAIN, f)
        distill.buy(oracle, np.random.default_rng(seed).normal(size=(4, DIM)).astype("float32"))
