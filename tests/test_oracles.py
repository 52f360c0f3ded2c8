import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import oracles, victims
from recon.oracles import Reply, ReplyError


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
    column = oracles.from_host(lambda x: (x.sum(1, keepdims=True), np.ones_like(x)))  # PyTorch's
    for oracle in (oracles.from_jax(jnp.sum), host, column):
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
        (np.ones((2, 2)), np.ones((2, 3)), r"expected \(2, 2, 3\); the gradient of one class is"),
        (np.array([["a"], ["b"]]), np.ones((2, 1, 3)), "values are <U1, not numbers"),
        (np.ones((2, 1)), None, "gradients: none"),
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


@pytest.mark.parametrize("shape", [(0, 3), (3,)])
def test_no_rows_are_no_query(shape):
    with pytest.raises(ValueError, match="queries have shape"):
        oracles.ask(oracles.from_host(quadratic_host), np.ones(shape))
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        oracles.ask(oracles.from_host(quadratic_host), np.ones((2, 3)), chunk=0)


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


@pytest.mark.parametrize(("n", "parts"), [(3, [3]), (17, [8, 8, 1]), (21, [8, 8, 5]), (5, [5])])
def test_a_stream_answers_in_parts_of_the_shapes_given(n, parts):
    x = np.random.default_rng(0).normal(size=(n, 3))
    with jax.enable_x64(True):
        victim = victims.random_network(jax.random.key(0), 3, 4)
        got = list(victims.oracle_of(victim).stream(x, (8, 4)))
        whole = Reply(victim(x), victim.gradient(x))
    assert [len(part.value) for part in got] == parts
    for mine, theirs in zip(zip(*got, strict=True), whole, strict=True):
        np.testing.assert_allclose(np.concatenate(mine), theirs, rtol=1e-12)
