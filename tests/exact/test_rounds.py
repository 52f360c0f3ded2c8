"""The drivers: one algorithm on the host and traced, and what fits in memory."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest
from planted import DIM, WIDTH, recover

from recon import exact, oracles
from recon.exact import Status, arrays, lines, rounds, two_layer
from recon.oracles import Cost
from recon.victims import oracle_of, random_network

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


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        *((1, None), (3, WIDTH)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, WIDTH), (3, None))),
    ],
)
def test_both_drivers_recover_the_same(random_truth, counting_host, compiled, outputs, told):
    """The line is the same; points off it are drawn by generators of their own."""
    for seed in range(5):
        truth = random_truth(seed, outputs=outputs)
        traced = recover(oracle_of(truth), seed, width=told)
        host = recover(counting_host(truth).oracle, seed, width=told)
        assert traced.status is host.status is Status.RECOVERED
        np.testing.assert_allclose(host.network.rows, traced.network.rows, atol=1e-12)
        np.testing.assert_allclose(host.network.bias, traced.network.bias, atol=1e-11)


def test_a_vmapped_search_is_one_search_for_each_victim():
    """With the settings and the shape of the first case above, whose compile is used again."""
    s = lines.Settings(DIM, 1, 256, "float64", float(np.finfo(np.float64).eps))

    def begun(seed):
        return lines.begin(s, np.array([0, seed], np.uint32), -1, 1000)

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        victims = jax.vmap(lambda key: random_network(key, DIM, WIDTH, bias=True))(keys)
        states = jax.tree.map(lambda *each: np.stack(each), *map(begun, range(3)))
        batch = jax.jit(jax.vmap(partial(rounds.in_jax, s)))(oracle_of(victims), states)
        for i in range(3):
            one = jax.tree.map(lambda a, i=i: np.asarray(a[i]), victims)
            alone = two_layer._search(s, oracle_of(one), begun(i))
            together = jax.tree.map(lambda a, i=i: a[i], batch)
            assert alone.phase == together.phase == lines.DONE
            for name in ("filled", "queries", "rounds", "jump", "single", "multi"):
                np.testing.assert_array_equal(getattr(alone, name), getattr(together, name), name)
            for name in ("angle", "gradient", "offset"):
                mine, theirs = getattr(alone, name), getattr(together, name)
                np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12, err_msg=name)


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
    assert (seen > 0) == s.touches


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


def test_the_same_key_gives_the_same_network_and_another_key_another_line(random_truth, attack):
    truth = random_truth(0)
    first, again, other = attack(truth, 1), attack(truth, 1), attack(truth, 2)
    assert first.cost == again.cost
    np.testing.assert_array_equal(first.network.rows, again.network.rows)
    assert not np.array_equal(first.network.rows, other.network.rows)
