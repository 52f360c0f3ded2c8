"""The counting oracles hold every attack's returned cost; they themselves are held here."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon import oracles, victims
from recon.oracles import Cost, View

COSTS = st.builds(Cost, *[st.integers(0, 10**9)] * 4)


@pytest.mark.parametrize("chunk", [None, 3, 7, 100])
@pytest.mark.parametrize("explanation", ["jacobian", "none"])
@pytest.mark.parametrize("kind", ["counting_host", "counting_traced"])
def test_the_door_counts_what_the_victim_saw(kind, explanation, chunk, request):
    seen = request.getfixturevalue(kind)(victims.random_network(jax.random.key(0), 4, 3, 2))
    oracle = replace(seen.oracle, view=View(explanation=explanation))
    x = np.asarray(jax.random.normal(jax.random.key(1), (7, 4)), np.float32)
    assert oracles.ask(oracle, x, chunk=chunk)[1] == seen.cost


@given(a=COSTS, b=COSTS)
def test_costs_add_field_by_field(a, b):
    total = a + b
    assert total.queries == a.queries + b.queries == total.gradients + total.values
    assert (total.numbers, total.rounds) == (a.numbers + b.numbers, a.rounds + b.rounds)
    assert a + Cost() == a


def test_the_host_count_is_every_row_of_every_call(counting_host):
    with jax.enable_x64(True):
        seen = counting_host(victims.random_network(jax.random.key(0), 4, 3, 2))
    seen.oracle(np.ones((5, 4)))
    seen.oracle(np.ones((1, 4)))
    seen.oracle.value(np.ones((7, 4)))
    assert seen.cost == Cost(gradients=6, values=7, numbers=6 * 2 * 5 + 7 * 2, rounds=3)


@pytest.mark.parametrize("kind", ["counting_host", "counting_traced"])
def test_counting_does_not_change_the_replies(kind, request):
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        network = victims.random_network(jax.random.key(1), 4, 3, 2, bias=True)
        x = jax.random.normal(jax.random.key(2), (6, 4))
        seen = request.getfixturevalue(kind)(network)
        reply = seen.oracle(x)
        np.testing.assert_allclose(reply.value, network(x), rtol=1e-14)
        np.testing.assert_allclose(reply.gradient, network.gradient(x), rtol=1e-14)
        np.testing.assert_allclose(seen.oracle.value(x), network(x), rtol=1e-14)
        assert (seen.cost.gradients, seen.cost.values) == (6, 6)


def test_the_traced_count_holds_inside_a_compiled_loop(counting_traced):
    """Step i asks i + 1 rows in a batch of 4, padded by zeros, NaN or a row asked before."""
    seen = counting_traced(victims.random_network(jax.random.key(0), 4, 3, 2))
    rows = jax.random.normal(jax.random.key(1), (3, 4, 4))

    @jax.jit
    def attack(oracle, rows):
        padding = jnp.stack([jnp.zeros(4), jnp.full(4, jnp.nan), rows[0, 0]])

        def step(i, total):
            batch = jnp.where((jnp.arange(4) <= i)[:, None], rows[i], padding[i])
            nothing = jnp.zeros((4, 2))
            value = jax.lax.cond(i == 2, oracle.value, lambda _: nothing, batch)
            return total + jnp.nansum(oracle(batch).value) + value.sum()

        return jax.lax.fori_loop(0, 3, step, 0.0)

    assert np.isfinite(attack(seen.oracle, rows))
    # a row asked for its gradient before is a new query when it is asked for its value
    assert seen.cost == Cost(gradients=1 + 2 + 3, values=4, numbers=6 * 2 * 5 + 4 * 2, rounds=4)
    attack(seen.oracle, rows + 1)  # the second run is compiled already, and counted again
    assert seen.cost.gradients == 12


def test_the_caller_says_which_traced_rows_are_queries(counting_traced):
    network = victims.random_network(jax.random.key(0), 2, 3)
    seen = counting_traced(network, real=lambda rows: rows[:, 0] > 0)
    seen.oracle(jnp.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [2.0, 0.0]]))
    assert seen.cost == Cost(gradients=3, numbers=9, rounds=1)
