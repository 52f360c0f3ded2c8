"""Runs that go wrong say at which step and keep their last good variables."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import DIM, MLP, OUTPUTS, N

from recon import distill, oracles
from recon.distill import Hyper, Student, losses
from recon.oracles import View


def explode(variables, x):
    """Logits that overflow as soon as a parameter is 0.3 from its start."""
    w = variables["w"]
    return x @ jnp.where(jnp.abs(w - 1) > 0.3, jnp.inf, w)


EXPLODING = Student(lambda key: {"w": jnp.ones((DIM, OUTPUTS))}, explode)


def test_a_loss_that_turns_nan_stops_its_run_and_keeps_the_last_good_variables(curved):
    hyper = Hyper(budget=N, steps=300, learning_rate=np.array([1e-5, 1e-2]), weight=1.0)
    keys = jax.random.split(jax.random.key(21), 2)
    for mapper in ("vmap", "loop"):
        run = distill.train_many(keys, hyper, curved, EXPLODING, mapper=mapper, chunk=100)
        assert not run.ok
        assert run.failures[0] == ""
        assert "run 1 stopped at step" in run.failures[1]
        bad = int(np.isfinite(run.curves["loss"][1]).sum())
        assert 0 < bad < 300
        assert f"step {bad + 1} of 300" in run.failures[1]
        assert np.isfinite(run.curves["loss"][0]).all()
        assert np.isfinite(run.variables["w"]).all()
        assert not np.array_equal(run.variables["w"][1], np.ones((DIM, OUTPUTS)))


def test_a_failed_run_does_no_more_steps(curved):
    hyper = Hyper(budget=N, steps=10_000, learning_rate=0.1, weight=1.0)
    seen = []
    probe = distill.Probe(curved.x, curved.label, curved.label)
    run = distill.train(
        jax.random.key(22),
        hyper,
        curved,
        EXPLODING,
        probe,
        chunk=10,
        measure=500,
        progress=lambda done, curves: seen.append(done),
    )
    assert not run.ok
    assert seen == list(range(10, 10 * len(seen) + 1, 10))
    assert len(seen) <= 2
    assert run.measured == (5000, 10_000)
    assert run.curves["agreement"].shape == (2,)
    assert run.curves["loss"].shape == (10_000,)


@pytest.mark.parametrize("many", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_reply_that_is_not_finite_fails_the_run(curved, probe, many):
    broken = dataclasses.replace(curved, gradient=curved.gradient.at[3, 1, 2].set(jnp.inf))
    go = distill.train_many if many else distill.train
    keys = jax.random.split(jax.random.key(42), 1) if many else jax.random.key(42)
    run = go(keys, Hyper(budget=N, steps=20), broken, MLP, probe, chunk=5)
    assert run.failures[0].startswith("run 0 stopped at step 1 of 20: a reply,")
    assert np.isnan(run.curves["loss"]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.variables))
    fine = go(
        keys, Hyper(budget=3, steps=20), broken, MLP, probe, chunk=5
    )  # a row that is not in use
    assert fine.ok


def test_probabilities_that_are_not_finite_fail_the_run_whatever_is_drawn(curved):
    odd = curved.probabilities.at[3].set(jnp.nan)
    broken = dataclasses.replace(curved, probabilities=odd)
    for seed in range(5):
        hyper = Hyper(budget=10, batch=1, steps=1)
        run = distill.train(jax.random.key(seed), hyper, broken, MLP)
        assert "stopped at step 1 of 1" in run.failures[0]


@pytest.mark.parametrize("outputs", losses.OUTPUTS)
def test_a_constant_victim_is_no_failure(curved, outputs):
    view = View("values" if outputs == "values" else "logits")
    constant = oracles.from_jax(lambda x: jnp.zeros(OUTPUTS) + 0 * x.sum(), view=view)
    flat = distill.buy(constant, curved.x)
    hyper = Hyper(budget=N, steps=300, learning_rate=1e-2, outputs=outputs)
    run = distill.train(jax.random.key(45), hyper, flat, MLP, chunk=300)
    assert run.ok
    assert run.curves["gradient"][-1] < 0.01 * run.curves["gradient"][0]


def test_a_last_step_that_overflows_fails_the_run(curved):
    hyper = Hyper(budget=N, steps=1, learning_rate=3e38, weight_decay=3e38)
    run = distill.train(jax.random.key(43), hyper, curved, MLP)
    assert "stopped at step 1 of 1" in run.failures[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.variables))


def test_an_answer_that_is_not_finite_names_no_class(probe):
    silent = Student(lambda key: {}, lambda variables, x: jnp.full((len(x), OUTPUTS), jnp.nan))
    right = probe._replace(y=jnp.zeros_like(probe.y), victim=jnp.zeros_like(probe.victim))
    assert distill.evaluate(silent, {}, right) == (0.0, 0.0)
