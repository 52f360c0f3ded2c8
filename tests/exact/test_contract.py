"""What every exact method must keep: cost, budget, errors, dtypes and keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import oracles
from recon.exact import METHODS, Status
from recon.exact.recovery import COARSE, promise

DIM, WIDTH = 8, 4
every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture
def truth(random_truth):
    return random_truth(0, DIM, WIDTH, bias=False)


def attack(name, oracle, **options):
    given = {"dim": DIM, "key": jax.random.key(1), "width": WIDTH} | options
    return METHODS[name](oracle, **given)


@every_method
def test_the_cost_is_what_the_oracle_saw(name, truth, counting_host, error):
    seen = counting_host(truth)
    found = attack(name, seen.oracle)
    assert found.status is Status.RECOVERED
    assert found.cost == seen.cost
    assert error(found.network, truth) < 1e-9


@every_method
def test_no_budget_is_exceeded(name, truth, counting_host):
    whole = attack(name, counting_host(truth).oracle).cost.queries
    for budget in sorted({0, 1, 2, 3, 10, whole // 2, whole - 1, whole}):
        seen = counting_host(truth)
        found = attack(name, seen.oracle, budget=budget)
        assert seen.cost.queries <= budget
        assert found.cost == seen.cost
        assert found.ok == (budget == whole)
        assert found.ok or found.status is Status.BUDGET


@every_method
@pytest.mark.parametrize("after", [0, 1, 5])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_replies_that_are_not_finite_are_named(name, truth, after, poison):
    asked = 0

    def spoilt(x, *parts):
        nonlocal asked
        bad = asked + np.arange(len(x)) >= after
        asked += len(x)
        return [np.where(bad.reshape(-1, *[1] * (a.ndim - 1)), poison, a) for a in parts]

    oracle = oracles.from_host(
        lambda x: tuple(spoilt(x, truth(x), truth.gradient(x))),
        lambda x: spoilt(x, truth(x))[0],
    )
    with pytest.raises(oracles.ReplyError, match=r"query row .* not finite"):
        attack(name, oracle)


@every_method
def test_an_oracle_that_raises_is_let_through(name, truth):
    def fn(x):
        raise ConnectionError("quota")

    with pytest.raises(ConnectionError, match="quota"):
        attack(name, oracles.from_host(fn, fn))


@every_method
def test_replies_of_the_wrong_shape_are_named(name, truth):
    oracle = oracles.from_host(
        lambda x: (truth(x)[:-1], truth.gradient(x)), lambda x: truth(x)[:-1]
    )
    with pytest.raises(oracles.ReplyError, match="shape"):
        attack(name, oracle)


@every_method
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_what_is_ok_is_right_to_its_dtype(name, truth, error, dtype):
    def cast(a):
        return np.asarray(a).astype(jnp.dtype(dtype))

    oracle = oracles.from_host(
        lambda x: (cast(truth(x)), cast(truth.gradient(x))), lambda x: cast(truth(x))
    )
    found = attack(name, oracle, budget=3000)
    eps = float(jnp.finfo(dtype).eps)
    assert found.ok == (eps < COARSE), found
    if found.ok:
        assert error(found.network, truth) < promise(eps)
    else:
        assert found.status is not Status.NOISY
        assert name != "tangent" or dtype in str(found)


@every_method
def test_a_key_may_be_a_whole_number(name, truth, counting_host):
    one, other = (
        attack(name, counting_host(truth).oracle, key=key) for key in (3, jax.random.key(3))
    )
    assert one.ok
    assert one.cost == other.cost
    np.testing.assert_array_equal(one.network.rows, other.network.rows)
