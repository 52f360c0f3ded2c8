"""Bad numbers, bad replies, and victims that are not two-layer networks."""

from __future__ import annotations

import warnings
from dataclasses import replace

import jax
import numpy as np
import pytest
from planted import DIM, WIDTH, recover

from recon import exact, oracles
from recon.exact import Status
from recon.oracles import Cost, ReplyError
from recon.victims import oracle_of

# --- Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dim", "width", "budget"])
@pytest.mark.parametrize("number", [-1, 2.5, float("nan")])
def test_a_number_that_makes_no_sense_is_named(random_truth, counting_host, name, number):
    seen = counting_host(random_truth(0))
    options = {"dim": DIM, "key": jax.random.key(0), name: number}
    with pytest.raises(ValueError, match=f"{name} must be a whole|NaN"):
        exact.recover(seen.oracle, **options)
    assert seen.cost == Cost()


@pytest.mark.parametrize("name", ["dim", "width"])
def test_none_at_all_is_refused(random_truth, name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, not 0"):
        exact.recover(oracle_of(random_truth(0)), **{"dim": DIM, "key": jax.random.key(0), name: 0})


def host(truth, spoil):
    """A host oracle of the truth whose reply to call i is spoil(i, value, gradient)."""
    calls = []

    def fn(x):
        calls.append(len(x))
        active = (x @ truth.rows.T + truth.bias > 0).astype(float)
        hidden = active * (x @ truth.rows.T + truth.bias)
        gradient = np.einsum("nh,kh,hd->nkd", active, truth.weights, truth.rows)
        return spoil(len(calls) - 1, hidden @ truth.weights.T + truth.offset, gradient)

    return oracles.from_host(fn)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["value", "gradient"])
def test_a_reply_that_is_not_finite_is_named_by_its_row(random_truth, bad, what):
    def spoil(call, value, gradient):
        if call == 2:
            (value if what == "value" else gradient)[12] = bad
        return value, gradient

    with pytest.raises(ReplyError, match=f"query row 12: the {what} is not finite"):
        recover(host(random_truth(0), spoil))


def test_a_traced_reply_that_is_not_finite_is_named_by_its_row(
    random_truth, counting_traced, values
):
    truth = random_truth(0)
    weights = np.where(np.arange(WIDTH) == 2, 1e305, truth.weights)  # overflows far out only
    truth = replace(truth, weights=weights)
    seen = counting_traced(truth)
    with pytest.raises(ReplyError, match="query row") as raised:
        recover(seen.oracle)
    jax.effects_barrier()
    asked = np.concatenate(seen.log.gradients[1:])  # the first are to tell what is answered
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        fine = np.isfinite(values(truth, asked)).all(1)
    assert f"query row {int(np.argmin(fine))} of " in str(raised.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda call, value, gradient: (value, gradient[:, :, :-1]), r"gradients have shape"),
        (lambda call, value, gradient: (value, gradient[:, 0, 0]), r"gradients have shape"),
        (lambda call, value, gradient: (value[:-1], gradient), r"values have shape"),
        (lambda call, value, gradient: (value[..., None], gradient), r"values have shape"),
        (lambda call, value, gradient: (0.0, gradient), r"values have shape \(\)"),
    ],
)
def test_a_reply_of_the_wrong_shape_is_refused(random_truth, spoil, message):
    with pytest.raises(ReplyError, match=message):
        recover(host(random_truth(0), spoil))


class Unreachable(RuntimeError):
    pass


@pytest.mark.parametrize("when", [0, 1, 2])
def test_an_oracle_that_raises_is_heard(random_truth, when):
    error = Unreachable("the service is down")

    def spoil(call, value, gradient):
        if call == when:
            raise error
        return value, gradient

    with pytest.raises(Unreachable) as raised:
        recover(host(random_truth(0), spoil))
    assert raised.value is error

    def f(x):
        raise error

    with pytest.raises(Unreachable) as raised:
        recover(oracles.from_jax(f))
    assert raised.value is error


def test_a_dim_that_is_not_the_victims_is_refused(random_truth, counting_host):
    truth = random_truth(0)
    for oracle in (counting_host(truth).oracle, oracle_of(truth)):
        with pytest.raises((ReplyError, ValueError, TypeError)):
            exact.recover(oracle, dim=DIM + 1, key=jax.random.key(0))


# --- Victims that are not two-layer networks ----------------------------------------------------


def not_two_layer(seed):
    """NumPy functions [n, d] -> values [n], gradients [n, d] that no two-layer network is."""
    rng = np.random.default_rng(seed)
    a, b, w = rng.normal(size=(WIDTH, DIM)), rng.normal(size=WIDTH), rng.normal(size=WIDTH)
    inner, shift = rng.normal(size=(WIDTH, WIDTH)), rng.normal(size=WIDTH)

    def tanh(x):
        z = np.tanh(x @ a.T + b)
        return z @ w, ((1 - z**2) * w) @ a

    def three_layers(x):
        first = x @ a.T + b
        second = np.maximum(first, 0) @ inner.T + shift
        gradient = (((second > 0) * w) @ inner * (first > 0)) @ a
        return np.maximum(second, 0) @ w, gradient

    def largest(x):
        z = x @ a.T + b
        return z.max(1), a[z.argmax(1)]

    def square(x):
        return np.sum(x**2, 1), 2 * x

    def noisy(x):
        z = x @ a.T + b
        noise = rng.normal(size=(2, *x.shape)) * 1e-6
        return np.maximum(z, 0) @ w, ((z > 0) * w) @ a + noise[0]

    def rounded(x):
        z = x @ a.T + b
        value, gradient = np.maximum(z, 0) @ w, ((z > 0) * w) @ a
        return np.round(value, 3), np.round(gradient, 3)

    def step(x):
        return (x @ a.T + b > 0) @ w, np.zeros_like(x)

    def wrong_gradient(x):
        z = x @ a.T + b
        return np.maximum(z, 0) @ w, -((z > 0) * w) @ a

    functions = (tanh, three_layers, largest, square, noisy, rounded, step, wrong_gradient)
    return {f.__name__: f for f in functions}


@pytest.mark.parametrize("name", not_two_layer(0))
def test_what_is_not_a_two_layer_network_is_not_ok(name):
    for seed in range(2):
        oracle = oracles.from_host(not_two_layer(seed)[name])
        found = recover(oracle, seed, budget=250, depth=1)
        assert not found.ok, found
        assert found.cost.queries <= 250
        assert found.status in (Status.UNCERTIFIED, Status.BUDGET, Status.UNFIT)
