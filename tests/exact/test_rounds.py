"""The drivers, what an attack costs, and how it ends where it cannot succeed."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recon import exact, oracles
from recon.exact import Status, arrays, lines, rounds
from recon.oracles import Cost, ReplyError
from recon.victims import oracle_of, random_network

DIM, WIDTH = 8, 10


def recover(oracle, seed=0, **options):
    return exact.recover(oracle, **{"dim": DIM, "key": jax.random.key(seed)} | options)


# --- One algorithm, two drivers -----------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch):
    """Attacks as on an accelerator: the rounds compiled, the victim traced inside."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize(("bias", "told"), [(False, None), (True, None), (True, WIDTH)])
def test_a_victim_on_the_host_costs_what_a_traced_one_costs(
    random_truth, attack, error, counting_host, bias, told
):
    for seed in range(5):
        truth = random_truth(seed, bias=bias)
        traced = attack(truth, seed, width=told)
        host = recover(counting_host(truth).oracle, seed, width=told)
        assert traced.status is host.status is Status.RECOVERED
        # outside JAX the number of outputs is learned by one query more
        first = Cost(gradients=1, numbers=DIM + 1, rounds=1)
        assert host.cost == traced.cost + first
        assert error(host.network, traced.network) < 1e-12
        np.testing.assert_allclose(host.network.rows, traced.network.rows, atol=1e-12)


@pytest.mark.parametrize(("outputs", "told"), [(1, None), (1, WIDTH), (3, None)])
def test_both_drivers_recover_the_same(random_truth, counting_host, compiled, outputs, told):
    """The line is the same; points off it are drawn by generators of their own."""
    for seed in range(5):
        truth = random_truth(seed, outputs=outputs)
        traced = recover(oracle_of(truth), seed, width=told)
        host = recover(counting_host(truth).oracle, seed, width=told)
        assert traced.status is host.status is Status.RECOVERED
        np.testing.assert_allclose(host.network.rows, traced.network.rows, atol=1e-12)
        np.testing.assert_allclose(host.network.bias, traced.network.bias, atol=1e-11)


@partial(jax.jit, static_argnums=0)
def _asked(s, state, x, reply):
    return rounds.store(s, state, 0, x, reply)


_absorbed = jax.jit(rounds.absorb, static_argnums=0)
_queries = jax.jit(rounds.queries, static_argnums=(0, 3))


@pytest.mark.parametrize(("outputs", "told"), [(1, -1), (3, 40)])
def test_a_round_is_the_same_in_numpy_and_traced(random_truth, outputs, told):
    """Every round of a search from the same state and replies, but for the points drawn.

    JAX may read NumPy's memory, and late: it is given a copy, as NumPy writes in place.
    """
    truth = random_truth(1, 6, 40, outputs)
    s = lines.Settings(6, outputs, 128, "float64", float(np.finfo(np.float64).eps))
    state = lines.begin(s, np.array([0, 1], np.uint32), told, 1000)
    seen = 0
    with jax.enable_x64(True):
        while state.phase == lines.RUNNING:
            assert state.size + 2 * state.touches <= 64
            x = rounds.queries(s, state, 0, 64)
            np.testing.assert_allclose(x, _queries(s, state, 0, 64), rtol=1e-12)
            reply = oracles.Reply(truth(x), truth.gradient(x))
            theirs = _absorbed(s, _asked(s, jax.tree.map(np.copy, state), x, reply))
            state = rounds.absorb(s, rounds.store(s, state, 0, x, reply))
            for name in set(lines.State._fields) - {"key", "points"}:
                mine, other = getattr(state, name), np.asarray(getattr(theirs, name))
                assert mine.dtype == other.dtype or name == "width", name
                assert mine.shape == other.shape, name
                np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-9, err_msg=name)
            seen += int(state.touches)
    assert state.phase == lines.DONE
    assert seen > 0


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_large_victim_costs_the_same_and_gives_the_same(
    random_truth, attack, counting_host, monkeypatch, outputs
):
    """Asked in parts of other sizes, and taken up by several threads."""
    truth = random_truth(0, 12, 40, outputs)
    host = recover(counting_host(truth).oracle, dim=12, width=40)
    usual = attack(truth, width=40)
    monkeypatch.setattr(arrays, "LARGE", 1)
    large = attack(truth, width=40)
    assert recover(counting_host(truth).oracle, dim=12, width=40).cost == host.cost
    assert large.ok
    assert large.cost == usual.cost
    np.testing.assert_allclose(large.network.rows, usual.network.rows, atol=1e-12)


def compiles(attack, caplog):
    """What JAX compiled during attack()."""
    jax.clear_caches()
    caplog.clear()
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        assert attack().ok
    said = [record.getMessage() for record in caplog.records]
    return [line for line in said if line.startswith("Finished XLA compilation")]


def test_an_attack_compiles_nothing_but_a_traced_victim(random_truth, counting_host, caplog):
    truth, key = random_truth(0), jax.random.key(0)
    host, traced = counting_host(truth).oracle, oracle_of(truth)
    assert compiles(lambda: exact.recover(host, dim=DIM, key=key), caplog) == []
    assert len(compiles(lambda: exact.recover(traced, dim=DIM, key=key), caplog)) == 1


# --- Memory -------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_it_is_asked():
    asked = []

    def fn(x):
        asked.append(len(x))
        return np.zeros((len(x), 1000)), np.zeros((len(x), 1000, 10_000))

    with pytest.raises(ValueError, match="1000 outputs and 10000 inputs need 19 GiB"):
        exact.recover(oracles.from_host(fn), dim=10_000, key=0)
    assert asked == [1]  # which told the number of outputs


@pytest.mark.slow
def test_a_thousand_outputs_fit_in_memory(random_truth, tmp_path):
    """In a process of its own, whose peak is then that of the attack."""
    program = f"""
import resource, jax
from recon import exact, networks, oracles
victim = networks.load({str(tmp_path / "victim.npz")!r})
oracle = oracles.from_host(lambda x: (victim(x), victim.gradient(x)))
assert exact.recover(oracle, dim=784, key=0).ok
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20
"""
    random_truth(0, 784, 32, 1000).save(tmp_path / "victim.npz")
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_vmapped_search_is_one_search_for_each_victim():
    s = lines.Settings(4, 1, 64, "float64", float(np.finfo(np.float64).eps))

    def search(victim, key):
        state = lines.begin(s, key, jnp.asarray(-1), jnp.asarray(200))
        return rounds.in_jax(s, oracle_of(victim), state)

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        victims = jax.vmap(lambda key: random_network(key, 4, 5, bias=True))(keys)
        batch = jax.jit(jax.vmap(search))(victims, keys)
        one = jax.jit(search)
        for i in range(3):
            alone = one(jax.tree.map(lambda a, i=i: a[i], victims), keys[i])
            together = jax.tree.map(lambda a, i=i: a[i], batch)
            assert alone.phase == together.phase == lines.DONE
            for name in ("filled", "queries", "rounds", "jump", "single", "multi"):
                np.testing.assert_array_equal(getattr(alone, name), getattr(together, name), name)
            for name in ("angle", "gradient", "offset"):
                mine, theirs = getattr(alone, name), getattr(together, name)
                np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12, err_msg=name)


def test_the_same_key_gives_the_same_network_and_another_key_another_line(random_truth, attack):
    truth = random_truth(0)
    first, again, other = attack(truth, 1), attack(truth, 1), attack(truth, 2)
    assert first.cost == again.cost
    np.testing.assert_array_equal(first.network.rows, again.network.rows)
    assert not np.array_equal(first.network.rows, other.network.rows)


# --- Cost and budget ----------------------------------------------------------------------------


def test_the_cost_is_what_a_host_oracle_saw(random_truth, counting_host):
    for seed in range(5):
        for told, budget in ((None, None), (WIDTH, None), (3, None), (None, 45)):
            seen = counting_host(random_truth(seed))
            found = recover(seen.oracle, seed, width=told, budget=budget)
            assert found.cost == seen.cost
            assert found.cost.values == 0
            assert found.cost.numbers == found.cost.gradients * (DIM + 1)


def test_the_cost_is_what_a_traced_oracle_saw(random_truth, counting_traced):
    for seed in range(3):
        seen = counting_traced(random_truth(seed))
        found = recover(seen.oracle, seed, budget=None if seed else 45)
        assert found.ok == (seed > 0)
        assert replace(found.cost, rounds=0) == replace(seen.cost, rounds=0)
        assert 0 < found.cost.rounds <= seen.cost.rounds


def test_more_outputs_cost_more_numbers(random_truth, attack):
    cost = attack(random_truth(0, outputs=10)).cost
    assert cost.numbers == cost.queries * 10 * (DIM + 1)


@settings(max_examples=40)
@given(
    budget=st.integers(0, 100),
    told=st.sampled_from([None, 1, WIDTH, 30]),
    seed=st.integers(0, 3),
)
@example(budget=34, told=None, seed=0)  # the last points settled make no interval
def test_a_budget_is_never_exceeded(random_truth, error, counting_host, budget, told, seed):
    truth = random_truth(seed)
    seen = counting_host(truth)
    found = recover(seen.oracle, seed, width=told, budget=budget)
    assert found.cost == seen.cost
    assert found.cost.queries <= budget
    if found.ok:
        assert error(found.network, truth) < 1e-11
    else:
        assert found.status in (Status.BUDGET, Status.UNCERTIFIED)
        assert found.certificate > 1e-11


def test_a_budget_of_just_what_it_takes_is_enough(random_truth, attack):
    truth = random_truth(0)
    takes = attack(truth).cost
    assert attack(truth, budget=takes.queries).cost == takes
    short = attack(truth, budget=takes.queries - 1)
    assert short.status is Status.BUDGET
    assert short.network.width == WIDTH
    assert "The certificate needs" in str(short)


@pytest.mark.parametrize("budget", [0, 1, 2, 3, 10])
def test_a_small_budget_leaves_a_partial_network(random_truth, attack, budget):
    found = attack(random_truth(0), budget=budget)
    assert found.status is Status.BUDGET
    assert not found.ok
    assert found.cost.queries <= budget
    assert found.certificate == np.inf
    assert (found.network is None) == (budget == 0)
    if budget == 10:
        assert 0 < found.network.width < WIDTH
        assert np.isfinite(found.network.rows).all()


@pytest.mark.slow
def test_a_full_array_grows_and_the_answer_stays(random_truth, attack, error):
    """Told 20 units, the arrays hold 128 points: they must grow for eight times more units."""
    truth = random_truth(0, 2, 160)
    found = attack(truth, width=20)
    assert found.status is Status.OTHER_WIDTH
    assert found.network.width == 160
    assert found.cost.queries > 128
    assert error(found.network, truth) < 1e-11


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
        if call == 1:
            (value if what == "value" else gradient)[20] = bad
        return value, gradient

    with pytest.raises(ReplyError, match=f"query row 20: the {what} is not finite"):
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
    asked = np.concatenate(seen.log.gradients)
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
        found = recover(oracle, seed, budget=250)
        assert not found.ok, found
        assert found.cost.queries <= 250
        assert found.status in (Status.UNCERTIFIED, Status.BUDGET, Status.NOISY)
