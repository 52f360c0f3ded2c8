import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon import exact, oracles, victims
from recon.oracles import Cost, Reply, ReplyError

COSTS = st.builds(Cost, *[st.integers(0, 10**9)] * 4)


def quadratic(x):
    """f(x) = (x.x, 3 x0): value and gradient known by hand."""
    return jnp.array([x @ x, 3 * x[0]])


def quadratic_host(x):
    value = np.column_stack([(x * x).sum(1), 3 * x[:, 0]])
    gradient = np.stack([2 * x, np.zeros_like(x)], axis=1)
    gradient[:, 1, 0] = 3
    return value, gradient


@pytest.fixture
def x():
    return np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]])


@pytest.mark.parametrize("form", ["jax", "jax with parameters", "host"])
def test_replies_are_values_and_jacobians(form, x):
    oracle = {
        "jax": oracles.from_jax(quadratic),
        "jax with parameters": oracles.from_jax(lambda p, x: p * quadratic(x), jnp.ones(())),
        "host": oracles.from_host(quadratic_host),
    }[form]
    with jax.enable_x64(True):
        if form == "jax with parameters":
            oracle = oracles.from_jax(oracle.f, jnp.ones(()))
        reply = oracle(jnp.asarray(x))
        value, gradient = quadratic_host(x)
        assert np.array_equal(reply.value, value)
        assert np.array_equal(reply.gradient, gradient)
        assert np.array_equal(oracle.value(jnp.asarray(x)), value)


def test_a_scalar_victim_gets_its_axis(x):
    expected = (x.sum(1)[:, None], np.ones((2, 1, 3)))
    host = oracles.from_host(lambda x: (x.sum(1), np.ones_like(x)))
    for oracle in (oracles.from_jax(jnp.sum), host):
        reply = oracle(jnp.asarray(x, jnp.float32))
        assert np.array_equal(reply.value, expected[0])
        assert np.array_equal(reply.gradient, expected[1])
        assert oracle.value(jnp.asarray(x, jnp.float32)).shape == (2, 1)


def test_a_host_oracle_may_answer_values_apart(x):
    asked = []
    oracle = oracles.from_host(quadratic_host, lambda x: asked.append(len(x)) or x[:, :2])
    assert np.array_equal(oracle.value(x), x[:, :2])
    assert asked == [2]


@pytest.mark.parametrize(
    ("value", "gradient", "message"),
    [
        (np.ones((3, 1)), np.ones((2, 1, 3)), r"values have shape \(3, 1\).* 2 query rows"),
        (np.ones((2, 1, 1)), np.ones((2, 1, 3)), "values have shape"),
        (np.ones(()), np.ones((2, 1, 3)), "values have shape"),
        (np.ones((2, 1)), np.ones((2, 3)), r"gradients have shape \(2, 3\), expected \(2, 1, 3\)"),
        (np.ones((2, 2)), np.ones((2, 1, 3)), r"expected \(2, 2, 3\)"),
        (np.ones(2), np.ones((2, 4)), r"gradients have shape \(2, 1, 4\), expected \(2, 1, 3\)"),
    ],
)
def test_a_reply_of_the_wrong_shape_is_named(value, gradient, message, x):
    with pytest.raises(ReplyError, match=message):
        oracles.from_host(lambda x: (value, gradient))(x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 1])
def test_a_reply_that_is_not_finite_names_its_row(bad, row, x):
    def broken(x, part):
        reply = quadratic_host(x)
        reply[part][row, -1] = bad
        return reply

    with pytest.raises(ReplyError, match=f"query row {row}: the value is not finite"):
        oracles.from_host(lambda x: broken(x, 0))(x)
    with pytest.raises(ReplyError, match=f"query row {row}: the gradient is not finite"):
        oracles.from_host(lambda x: broken(x, 1))(x)
    with pytest.raises(ReplyError, match=f"query row {row}: the value is not finite"):
        oracles.from_host(lambda x: broken(x, 0)).value(x)


def test_values_of_the_wrong_length_are_named(x):
    with pytest.raises(ReplyError, match=r"values have shape \(3, 1\), expected \(2, K\)"):
        oracles.from_host(quadratic_host, lambda x: np.ones(3)).value(x)


def test_what_the_victim_raises_is_not_swallowed(x):
    def down(x):
        raise ConnectionError("service away")

    with pytest.raises(ConnectionError, match="service away"):
        oracles.from_host(down)(x)


def test_checked_replies_are_passed_on(x):
    reply = Reply(*quadratic_host(x))
    checked = oracles.check(reply, 2, 3)
    assert checked.value is reply.value
    assert checked.gradient is reply.gradient


@given(a=COSTS, b=COSTS)
def test_costs_add_field_by_field(a, b):
    total = a + b
    assert total.queries == a.queries + b.queries == total.gradients + total.values
    assert (total.numbers, total.rounds) == (a.numbers + b.numbers, a.rounds + b.rounds)
    assert a + Cost() == a


def test_one_compiled_attack_serves_victims_of_one_shape():
    compiled = []

    @jax.jit
    def attack(oracle, x):
        compiled.append(1)  # runs while tracing only
        return oracle(x).value

    x = jnp.ones((1, 4))
    networks = [victims.random_network(jax.random.key(seed), 4, 3) for seed in range(3)]
    values = [attack(victims.oracle_of(network), x) for network in networks]
    assert compiled == [1]
    for network, value in zip(networks, values, strict=True):
        np.testing.assert_allclose(value[0], network(x[0]), rtol=1e-6)
    for _ in range(2):  # the same function wrapped twice
        attack(oracles.from_jax(jnp.sum), x)
    assert compiled == [1, 1]


# The counting oracles hold every attack's returned cost; they themselves are held here.


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


def test_a_record_serves_an_attack_that_was_cut_off(tmp_path):
    with jax.enable_x64(True):
        truth = jax.tree.map(np.asarray, victims.random_network(jax.random.key(0), 6, 5, bias=True))
    asked: list[np.ndarray] = []

    def service(x: np.ndarray, most: float) -> tuple[np.ndarray, np.ndarray]:
        if sum(map(len, asked)) + len(x) > most:
            raise ConnectionError("the service is down")
        asked.append(x)
        return truth(x), truth.gradient(x)

    def attack(most: float) -> exact.Recovery:
        oracle = oracles.from_host(partial(service, most=most))
        recorded = oracles.recorded(oracle, tmp_path / "replies")
        return exact.recover(recorded, dim=6, key=jax.random.key(1), width=5)

    with pytest.raises(ConnectionError, match="the service is down"):
        attack(most=12)
    before = sum(map(len, asked))
    assert 0 < before <= 12
    r = attack(most=math.inf)
    assert r.ok
    assert sum(map(len, asked)) == r.cost.queries == len(np.unique(np.concatenate(asked), axis=0))
    with np.load(tmp_path / "replies.npz") as file:
        assert len(file["x"]) == r.cost.queries
