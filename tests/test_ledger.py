"""A ledger in one process: what it answers, refuses and bears, and that nothing is asked twice."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attacked import DIM, WIDTH, Service, kept, truth

from recon import distill, exact, oracles
from recon.ledger import BudgetError, LedgerError
from recon.networks import TwoLayer
from recon.oracles import ReplyError, View

recover = partial(exact.recover, dim=DIM, key=3, width=WIDTH)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "replies.ledger"


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(5, DIM))


def same(one, other):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one.network), jax.tree.leaves(other.network), strict=True)
    )


def test_an_attack_is_the_same_with_a_ledger_and_again_from_it_alone(path):
    plain, victim, gone = Service(), Service(), Service(fault=None)
    r = recover(plain.oracle)
    for oracle in (kept(victim.oracle, path), kept(gone.oracle, path)):
        again = recover(oracle)
        assert again.ok
        assert again.cost == r.cost
        assert same(r, again)
        assert oracle.tally == (r.cost.queries, r.cost.queries)
    assert not gone.calls
    assert all(map(np.array_equal, victim.calls, plain.calls))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("apart", [1.0, 1e4])
def test_a_jax_victim_is_kept_bit_for_bit(dtype, apart, path, counting_traced):
    scale = np.where(np.arange(DIM) < DIM // 2, apart, 1.0)  # inputs of different scale
    network = replace(truth(), rows=truth().rows * scale[None])
    with jax.enable_x64(True):
        network = jax.tree.map(lambda a: jnp.asarray(a, dtype), network)
        plain, seen = oracles.from_jax(TwoLayer.__call__, network), counting_traced(network)
        r, oracle = recover(plain), kept(seen.oracle, path)
        first = recover(oracle)
        assert r.ok
        assert first.cost == r.cost
        again = recover(oracle)
        assert seen.cost.queries == r.cost.queries  # nothing is asked again
    assert same(r, first)
    assert same(r, again)


def test_every_method_asks_through_a_ledger(path, counting_host):
    random = np.random.default_rng(1)
    rows, weights = random.normal(size=(3, 6)), random.normal(size=(1, 3))
    network = TwoLayer(rows, np.zeros(3), weights, np.zeros((1, 6)), np.zeros(1))
    for name, method in exact.METHODS.items():
        plain, seen = counting_host(network), counting_host(network)
        r = method(plain.oracle, dim=6, key=1, width=3, budget=40)
        oracle = kept(seen.oracle, path.with_suffix(f".{name}"))
        for _ in range(2):
            again = method(oracle, dim=6, key=1, width=3, budget=40)
            assert again.status is r.status
            assert again.cost == r.cost
            assert same(r, again)
        assert seen.cost.queries == oracle.tally.answered <= r.cost.queries


def test_values_alone_are_other_queries_than_gradients(path, x):
    asked = []
    value_fn = lambda x: asked.append(len(x)) or truth()(x) + 1e-9  # noqa: E731
    for _ in range(2):
        oracle = kept(oracles.from_host(Service().reply, value_fn), path)
        assert np.array_equal(oracle.value(x), truth()(x) + 1e-9)
        assert np.array_equal(oracle(x).value, truth()(x))
        assert np.array_equal(oracle.values(x[:2]), truth()(x[:2]) + 1e-9)
    assert asked == [5]
    assert oracle.tally == (10, 10)


@pytest.mark.parametrize(
    "view", [View("none"), View("label", "none"), View("logits", "top"), View(), View("label")]
)
@pytest.mark.parametrize("form", ["jax", "host"])
def test_a_ledger_keeps_what_the_view_has(view, form, path):
    x = np.random.default_rng(0).normal(size=(5, DIM)).astype(np.float32)
    network = jax.tree.map(lambda a: jnp.asarray(a, np.float32), truth())
    victim = oracles.from_jax(TwoLayer.__call__, network, view)
    want = oracles.ask(victim, x, chunk=2)
    if form == "host":
        victim = oracles.from_host(lambda x: oracles.ask(inner, x)[0], view=view)
        inner = oracles.from_jax(TwoLayer.__call__, network, view)
    for _ in range(2):
        got = oracles.ask(kept(victim, path), x, chunk=2)
        assert got[1] == want[1]
        for mine, theirs in zip(got[0], want[0], strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None and form == "jax":
                assert mine.dtype == theirs.dtype
                assert mine.tobytes() == theirs.tobytes()
            elif mine is not None:
                np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_noise_is_drawn_by_the_number_of_a_row_whatever_is_known(path, x):
    x = x.astype(np.float32)
    network = jax.tree.map(lambda a: jnp.asarray(a, np.float32), truth())
    oracle = oracles.from_jax(TwoLayer.__call__, network, View(explanation="smoothgrad"), key=5)
    whole = oracles.ask(oracle, x)[0].gradient
    known = kept(oracle, path)
    oracles.ask(known, x[2:3], first=2)
    np.testing.assert_allclose(oracles.ask(known, x)[0].gradient, whole, rtol=1e-5, atol=1e-6)
    assert known.tally == (5, 5)
    with pytest.raises(LedgerError, match="another victim: its parameters"):
        kept(replace(oracle, key=jax.random.key(6)), path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", ">f8", "int64", "longdouble"])
def test_replies_come_back_in_their_own_dtype(dtype, path, x):
    dtype = np.dtype(jnp.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    fn = lambda x: (x[:, :2].astype(dtype), np.stack([x, 3 * x], 1).astype(dtype))  # noqa: E731
    oracle = kept(oracles.from_host(fn), path)
    for _ in range(2):
        for got, want in zip(oracle(x), fn(x), strict=True):
            assert got.dtype == want.dtype.newbyteorder("=")
            assert np.array_equal(got, want)
            got[...] = 0  # the caller's own


def test_a_point_asked_twice_gets_its_first_reply(path, x):
    random = np.random.default_rng(2)
    noisy = Service(lambda call, x, reply: (reply[0] + random.normal(size=(len(x), 1)), reply[1]))
    oracle = kept(noisy.oracle, path)
    first = oracle(np.concatenate([x, x[:2]])).value
    assert np.array_equal(first[:2], first[5:])
    assert np.array_equal(oracle(x[::-1]).value, first[4::-1])
    assert np.array_equal(oracle(0.0 * x[:1]).value, oracle(-0.0 * x[:1]).value)
    assert [len(rows) for rows in noisy.calls] == [5, 1]


def test_threads_that_ask_the_same_ask_once(path, x):
    victim = Service()
    oracle = kept(victim.oracle, path)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(oracle, [x] * 8))
    assert len(victim.calls) == 1
    assert all(np.array_equal(reply.gradient, truth().gradient(x)) for reply in replies)


def test_a_bank_is_bought_once(path):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(30, DIM)), jnp.float32)
    plain, victim = Service(), Service()
    want = distill.buy(plain.oracle, x, chunk=8, probe=False)
    got = distill.buy(kept(victim.oracle, path), x, chunk=8, probe=False)
    more = distill.buy(kept(victim.oracle, path), x[::-1], chunk=None, probe=False)
    assert got.cost(30) == want.cost(30)
    assert all(map(np.array_equal, victim.calls, plain.calls))
    for a, b, c in zip(*(jax.tree.leaves(bank) for bank in (got, want, more)), strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c[::-1])


def test_the_batch_limit_of_a_service_is_kept_and_every_batch_is(path, x):
    def limited(call, x, reply):
        assert len(x) <= 2
        if call == 3:
            raise ConnectionError("the service is down")
        return reply

    victim = Service(limited)
    oracle = kept(victim.oracle, path, most_rows=2)
    with pytest.raises(ConnectionError, match="the service is down"):
        oracle(x)
    assert oracle.tally == (5, 4)
    np.testing.assert_allclose(oracle(x).value, truth()(x))
    assert [len(rows) for rows in victim.calls] == [2, 2, 1, 1]
    np.testing.assert_allclose(oracle.value(x), truth()(x))
    assert [len(rows) for rows in victim.calls[4:]] == [2, 2, 1]
    assert recover(kept(victim.oracle, path, most_rows=2)).ok


def test_the_budget_holds_over_all_runs(path, x):
    down = Service(lambda call, x, reply: 1 / 0 if call == 1 else reply)
    with pytest.raises(ZeroDivisionError):
        kept(down.oracle, path, budget=30)(x[:3])
    oracle = kept(down.oracle, path, budget=30)
    with pytest.raises(BudgetError, match=r"budget of 30 queries does not cover \d+ more") as error:
        recover(oracle)
    kept_now = oracle.tally.answered
    assert 0 < len(down.rows) == kept_now + 3 <= 30  # the three got no answer, and count
    assert f"{kept_now + 3} were sent, {kept_now} of them answered" in str(error.value)
    with pytest.raises(BudgetError):
        recover(kept(down.oracle, path, budget=30))  # from the file, to the same point
    assert len(down.rows) == kept_now + 3
    r = recover(kept(down.oracle, path))
    assert same(r, recover(Service().oracle))
    assert not Counter(map(bytes, down.rows[3:])).most_common(1)[0][1] > 1
    assert len(down.rows) == r.cost.queries + 3
    assert recover(kept(down.oracle, path, budget=0)).ok  # nothing is left to ask


def flaky(kind):
    random = np.random.default_rng(7)

    def fault(call, x, reply):
        value, gradient = reply
        if kind == "fails" and random.random() < 0.1:
            raise ConnectionError("try again")
        if kind == "hangs" and call % 4 == 2:
            raise TimeoutError("the client's patience is at an end")
        if kind == "wrong shape" and call == 4:
            return value[1:], gradient
        if kind == "nan" and call in (4, 5):
            gradient[len(x) // 2, 0, 1] = np.nan
        if kind == "float16" and call == 4:
            return value.astype(np.float16), gradient.astype(np.float16)
        return value, gradient

    return fault


@pytest.mark.parametrize(
    ("kind", "error", "stops"),
    [
        ("fails", ConnectionError, 10),
        ("hangs", TimeoutError, 10),
        ("wrong shape", ReplyError, 1),
        ("nan", ReplyError, 2),
        ("float16", ReplyError, 1),
    ],
)
def test_an_oracle_that_errs_stops_an_attack_that_then_goes_on(kind, error, stops, path):
    victim, stopped, good, known = Service(flaky(kind)), 0, [], {}
    while stopped <= stops:
        oracle = kept(victim.oracle, path)
        try:
            r = recover(oracle)
        except error:
            stopped += 1
            good += victim.calls[len(good) : -1]
            good.append(victim.calls[-1][:0])
        else:
            break
        finally:
            before, known = known, answered_in(oracle)
            assert before.items() <= known.items()
    assert 0 < stopped <= stops
    good += victim.calls[len(good) :]
    asked = Counter(map(bytes, np.concatenate(good)))
    assert max(asked.values()) == 1  # what was answered well is not asked again
    assert len(asked) == r.cost.queries == oracle.tally.answered
    assert oracle.tally.sent == len(victim.rows)
    assert same(r, recover(Service().oracle))


def test_half_precision_is_no_recovery_and_the_ledger_holds_it(path):
    victim = Service(lambda call, x, reply: tuple(a.astype(np.float16) for a in reply))
    first, again = (recover(kept(victim.oracle, path)) for _ in range(2))
    assert not first.ok
    assert first.cost == again.cost
    assert "answered in float16" in first.detail
    assert len(victim.rows) == first.cost.queries - 1  # which ask the origin twice


def answered_in(oracle):
    rows = oracle.book.db.execute("SELECT x, value, gradient FROM replies WHERE value IS NOT NULL")
    return {x: (value, gradient) for x, value, gradient in rows}
