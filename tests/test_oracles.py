import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon import exact, ledger, oracles, victims
from recon.explanations import EXPLANATIONS
from recon.oracles import Cost, Reply, ReplyError, View, ViewError

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


# What a service declares: every view of a JAX victim, and of the same victim on the host.


def victim(p, x):
    return jnp.sin(p @ x) * jnp.arange(1.0, 4.0)


def shown(view, x, outputs=3):
    """Values and explanations of `victim` by hand, in float64 NumPy."""
    p = np.asarray(P, np.float64)[:outputs]
    scale = np.arange(1.0, 4.0)[:outputs]
    logits = np.sin(x @ p.T) * scale
    if outputs == 1:
        odds = 1 / (1 + np.exp(-logits))
        label = (logits > 0).astype(int)
    else:
        odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        label = logits.argmax(1)[:, None]
    rows = (np.cos(x @ p.T) * scale)[..., None] * p
    value = {"logits": logits, "values": logits, "probabilities": odds, "label": label}
    value |= {"log_probabilities": np.log(odds), "none": None}
    if view.of != "logits":  # the chain rule: d log p = J - sum p J, or (1 - p) J of one logit
        mean = odds[..., None] * rows
        change = rows - (mean if outputs == 1 else mean.sum(1, keepdims=True))
        rows = change if view.of == "log_probabilities" else odds[..., None] * change
    top = rows[np.arange(len(x)), {"probabilities": odds}.get(view.of, logits).argmax(1)]
    return value[view.outputs], {"jacobian": rows, "top": top, "none": None}[view.explanation]


P = jax.random.normal(jax.random.key(3), (3, 4))
VIEWS = [
    View(outputs, explanation, of)
    for outputs in ("logits", "probabilities", "log_probabilities", "label", "values", "none")
    for explanation in ("jacobian", "top", "none")
    for of in ("logits", "probabilities", "log_probabilities")
    if (outputs, explanation) != ("none", "none") and not (outputs == "values" and of != "logits")
]


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_every_view_of_a_jax_victim_is_what_it_says_and_passes_the_checks_on_the_host(view):
    x = np.asarray(jax.random.normal(jax.random.key(4), (5, 4)))
    expected = shown(view, x)
    host = oracles.from_host(lambda x: shown(view, x), view=view)
    for oracle in (oracles.from_jax(victim, P, view), host):
        reply, cost = oracles.ask(oracle, x, chunk=2)
        for got, want in zip(reply, expected, strict=True):
            assert (got is None) == (want is None)
            if want is not None:
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        numbers = sum(part.size for part in expected if part is not None)
        kind = (5, 0) if view.axes else (0, 5)
        assert cost == Cost(*kind, numbers, rounds=3)


@pytest.mark.parametrize("outputs", ["probabilities", "log_probabilities", "label"])
def test_one_logit_is_a_binary_classifier(outputs):
    x = np.asarray(jax.random.normal(jax.random.key(4), (5, 4)))
    view = View(outputs, of="probabilities")
    reply, _ = oracles.ask(oracles.from_jax(victim_of_one, P, view), x)
    for got, want in zip(reply, shown(view, x, 1), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def victim_of_one(p, x):
    return victim(p, x)[:1]


def test_the_noise_of_a_row_is_its_own_and_the_services():
    x = jax.random.normal(jax.random.key(4), (7, 4))
    oracle = oracles.from_jax(victim, P, View(explanation="smoothgrad"), key=5)
    whole = oracles.ask(oracle, x)[0].gradient
    for i, row in enumerate(x):
        by_hand = EXPLANATIONS["smoothgrad"](
            partial(victim, P), row, jax.random.fold_in(jax.random.key(5), i)
        )
        np.testing.assert_allclose(whole[i], by_hand, rtol=1e-5, atol=1e-6)
    parts = [oracles.ask(oracle, x[i : i + 2], first=i)[0].gradient for i in range(0, 7, 2)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)
    other = oracles.from_jax(victim, P, View(explanation="smoothgrad"), key=6)
    assert np.abs(oracles.ask(other, x)[0].gradient - whole).max() > 0.01


@pytest.mark.parametrize("chunk", [None, 3, 7, 100])
@pytest.mark.parametrize("explanation", ["jacobian", "none"])
@pytest.mark.parametrize("kind", ["counting_host", "counting_traced"])
def test_the_door_counts_what_the_victim_saw(kind, explanation, chunk, request):
    seen = request.getfixturevalue(kind)(victims.random_network(jax.random.key(0), 4, 3, 2))
    oracle = replace(seen.oracle, view=View(explanation=explanation))
    x = np.asarray(jax.random.normal(jax.random.key(1), (7, 4)), np.float32)
    assert oracles.ask(oracle, x, chunk=chunk)[1] == seen.cost


@pytest.mark.parametrize(
    ("view", "value", "message"),
    [
        (View("probabilities", "none"), [[0.5, 0.5], [2.0, -1.0]], "row 6: .* are these logits"),
        (View("probabilities", "none"), [[0.5, 0.5], [0.9, 0.9]], "row 6: .* do not sum to 1"),
        (View("probabilities", "none"), [[0.5], [1.5]], "row 6: .* above 1"),
        (View("log_probabilities", "none"), [[0.0, -9.0], [0.0, 0.0]], "row 6: .*not sum to 1"),
        (View("label", "none"), [[1], [0.5]], "row 6: a label is one whole number"),
        (View("label", "none"), [[1, 0], [0, 1]], "row 5: a label is one whole number"),
    ],
)
def test_values_that_are_not_what_the_view_says_are_named(view, value, message):
    with pytest.raises(ReplyError, match=message):
        oracles.ask(oracles.from_host(lambda x: value, view=view), np.ones((2, 3)), first=5)


def test_views_that_make_no_sense_and_methods_that_cannot_use_one_say_so():
    for words, message in (
        ({"outputs": "odds"}, "a view has no outputs 'odds'; there are logits, values"),
        ({"explanation": "lime"}, "no explanation 'lime'; there are jacobian"),
        ({"of": "label"}, "no of 'label'; there are logits, probabilities, log_probabilities"),
        ({"outputs": "none", "explanation": "none"}, "neither outputs nor an explanation"),
        ({"outputs": "values", "of": "probabilities"}, "a regression has no probabilities"),
    ):
        with pytest.raises(ViewError, match=message):
            View(**words)
    oracle = oracles.from_jax(victim, P, View("label", "top"))
    oracles.need(oracle, outputs="label", explanation=("jacobian", "top"), of="logits")
    for words, message in (
        (
            {"outputs": ("logits", "values")},
            "this needs outputs logits or values; .* is label, top",
        ),
        ({"explanation": "jacobian"}, "needs explanation jacobian; .* top of logits"),
        ({"of": "probabilities"}, "needs of probabilities"),
    ):
        with pytest.raises(ViewError, match=message):
            oracles.need(oracle, **words)


@pytest.mark.parametrize("shape", [(0, 3), (3,)])
def test_no_rows_are_no_query(shape):
    with pytest.raises(ValueError, match="queries have shape"):
        oracles.ask(oracles.from_host(quadratic_host), np.ones(shape))
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        oracles.ask(oracles.from_host(quadratic_host), np.ones((2, 3)), chunk=0)


@pytest.mark.parametrize("view", [View("none"), View("label", "none"), View("logits", "top")])
def test_a_record_keeps_what_the_view_has(view, tmp_path):
    x = np.asarray(jax.random.normal(jax.random.key(4), (5, 4)))
    asked = []
    host = oracles.from_host(lambda x: asked.append(len(x)) or shown(view, x), view=view)
    for _ in range(2):
        oracle = ledger.recorded(host, tmp_path / "replies")
        reply = oracles.ask(oracle, x)[0]
        for got, want in zip(reply, shown(view, x), strict=True):
            assert (got is None) == (want is None)
            assert want is None or np.array_equal(got, want)
    assert asked == [5]


@given(a=COSTS, b=COSTS)
def test_costs_add_field_by_field(a, b):
    total = a + b
    assert total.queries == a.queries + b.queries == total.gradients + total.values
    assert (total.numbers, total.rounds) == (a.numbers + b.numbers, a.rounds + b.rounds)
    assert a + Cost() == a


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
        recorded = ledger.recorded(oracle, tmp_path / "replies")
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
