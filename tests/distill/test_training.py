"""Steps of training: what they see, what they do, and runs at once and in turn."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import DIM, LINEAR, MLP, OUTPUTS, N, for_loss, same, start, step

from recon import distill
from recon.distill import Hyper, losses, training
from recon.distill.steps import OPTIMIZERS


def test_one_step_is_what_it_was():
    """Golden numbers: if they move, so do all results."""
    weights = jnp.cos(jnp.arange(OUTPUTS * DIM, dtype=jnp.float32)).reshape(OUTPUTS, DIM)
    x = jnp.sin(jnp.arange(4 * DIM, dtype=jnp.float32)).reshape(4, DIM)
    bank = distill.buy(lambda x: jnp.tanh(weights @ x), x)
    variables = {
        "params": {
            "hidden": {
                "kernel": weights.T @ jnp.ones((OUTPUTS, 8)) / 9,
                "bias": jnp.zeros(8) + 0.1,
            },
            "output": {"kernel": jnp.tile(weights[:, :1].T, (8, 1)), "bias": jnp.zeros(OUTPUTS)},
        }
    }
    student = dataclasses.replace(MLP, init=lambda key: variables)
    hyper = Hyper(loss="jacobian", budget=4, steps=2, weight_decay=0.1, temperature=0.5)
    state = start(jax.random.key(0), hyper, bank, student)
    seen = []
    for _ in range(2):
        state, losses_ = step(state, hyper, bank, student, None)
        seen.append([float(losses_[name]) for name in ("loss", "gradient", "membership")])
    np.testing.assert_allclose(seen, GOLDEN, rtol=1e-6)


GOLDEN = [[5.165556, 5.0525312, 1.1302493], [5.0542054, 4.941361, 1.1284449]]


def test_one_gradient_query_rebuilds_a_linear_victim(weights, bank, probe):
    run = distill.train(
        jax.random.key(15),
        Hyper(budget=1, steps=1000, learning_rate=0.05, loss="jacobian"),
        bank,
        LINEAR,
        probe,
        measure=2,
    )
    assert run.ok
    assert run.failures == ("",)
    kernel = np.asarray(run.variables["params"]["output"]["kernel"])
    np.testing.assert_allclose(kernel.T, weights, atol=0.05)
    assert run.measured == (500, 1000)
    assert run.curves["agreement"].shape == (2,)
    assert run.curves["agreement"][-1] >= 0.9
    assert run.curves["accuracy"][-1] <= 0.1  # the labels of `probe` are never the victim's
    assert all(run.curves[name].shape == (1000,) for name in ("loss", "gradient", "membership"))
    assert run.curves["gradient"][-1] < 1e-3 < run.curves["gradient"][0]


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_every_loss_goes_down(curved, loss):
    hyper = Hyper(budget=N, steps=200, learning_rate=0.02, loss=loss)
    run = distill.train(jax.random.key(16), hyper, for_loss(curved, loss), MLP)
    loss = run.curves["loss"]
    if hyper.loss == "membership":  # the cross-entropy cannot go below the victim's own
        own = np.asarray(curved.probabilities)
        loss = loss + (own * np.log(own)).sum(1).mean()
    assert np.median(loss[-20:]) < 0.8 * np.median(loss[:20])


def test_only_the_budget_is_seen(curved):
    """Rows beyond the budget may hold anything."""
    spoiled = jax.tree.map(lambda v: v.at[5:].set(jnp.nan) if v.dtype == jnp.float32 else v, curved)
    for batch in (3, 64):
        hyper = Hyper(budget=5, steps=5, batch=batch)
        clean, dirty = (distill.train(jax.random.key(17), hyper, b, MLP) for b in (curved, spoiled))
        assert dirty.ok
        assert same(clean.variables, dirty.variables)


def test_only_the_budget_is_seen_beside_a_run_that_sees_the_whole_bank(curved):
    spoiled = dataclasses.replace(curved, gradient=curved.gradient.at[-1].set(jnp.nan))
    budgets, keys = np.array([5, len(curved)]), jax.random.split(jax.random.key(17), 2)
    hypers = Hyper(budget=budgets, steps=5)
    clean, dirty = (distill.train_many(keys, hypers, b, MLP) for b in (curved, spoiled))
    assert clean.ok
    assert not dirty.failures[0]
    assert dirty.failures[1]
    first = [jax.tree.map(lambda v: v[0], run.variables) for run in (clean, dirty)]
    assert same(*first)


def test_a_whole_bank_is_used_as_rows_of_its_number_are(curved):
    hyper = Hyper(budget=len(curved), outputs="odds")
    state = start(jax.random.key(18), hyper, curved, MLP)
    steps = [step(state, hyper, curved, MLP, rows) for rows in (None, len(curved))]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), *(losses for _, losses in steps))


def test_a_budget_within_the_batch_is_used_whole(curved):
    state = start(jax.random.key(18), Hyper(budget=4), curved, MLP)
    wide = step(state, Hyper(budget=4, loss="jacobian"), curved, MLP, rows=9)[1]
    exact = step(state, Hyper(budget=4, loss="jacobian"), curved, MLP, rows=4)[1]
    np.testing.assert_allclose(wide["loss"], exact["loss"], rtol=1e-5)
    gradients = np.asarray(curved.gradient[:4])
    np.testing.assert_allclose(state.scales.gradient, (gradients**2).sum((1, 2)).mean(), rtol=1e-5)


def test_runs_at_once_and_in_turn_agree_and_budgets_share_a_compile(curved, probe):
    keys = jax.random.split(jax.random.key(19), 3)
    hypers = Hyper(
        budget=np.array([4, 6, 9]), learning_rate=np.array([0.01, 0.02, 0.03]), steps=40, batch=4
    )
    more = {"weight_decay": np.array([0.0, 0.1, 1.0]), "temperature": np.array([0.1, 0.5, 1.0])}
    hypers = dataclasses.replace(hypers, weight=jnp.array([0.0, 0.1, 1.0]), **more)
    runs = {
        mapper: distill.train_many(keys, hypers, curved, MLP, probe, mapper=mapper)
        for mapper in ("vmap", "loop")
    }
    single = distill.train(
        keys[2],
        dataclasses.replace(
            hypers, budget=9, learning_rate=0.03, weight=1.0, weight_decay=1.0, temperature=1.0
        ),
        curved,
        MLP,
        probe,
    )
    assert runs["vmap"].curves["loss"].shape == (3, 40)
    assert runs["vmap"].curves["accuracy"].shape == (3, 1)
    for a, b in zip(*(jax.tree.leaves(r.variables) for r in runs.values()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for a, b in zip(*map(jax.tree.leaves, (runs["loop"].variables, single.variables)), strict=True):
        np.testing.assert_allclose(a[2], b, rtol=1e-5, atol=1e-6)
    assert runs["loop"].curves["loss"].shape == (3, 40)
    assert runs["loop"].failures == ("", "", "")

    before = training._scan._cache_size()
    for budget, rate, weight in ((5, 0.1, 0.2), (7, 0.2, 0.3), (12, 0.3, 0.4)):
        hyper = Hyper(budget=budget, learning_rate=rate, weight=weight, steps=2, batch=4)
        distill.train(keys[0], hyper, curved, MLP)
    assert training._scan._cache_size() <= before + 2  # the first step's arrays are not committed


def test_a_scan_and_a_loop_take_the_same_steps(curved, monkeypatch):
    hyper = Hyper(budget=N, steps=30, batch=4)
    state = start(jax.random.key(20), hyper, curved, MLP)
    scan = distill.advance(state, hyper, curved, MLP, 4, False, 30)
    monkeypatch.setattr(training, "_convolves", lambda *_: True)
    loop = distill.advance(state, hyper, curved, MLP, 4, False, 30)
    np.testing.assert_allclose(loop[1]["loss"], scan[1]["loss"], rtol=1e-3)
    assert int(loop[0].done) == int(scan[0].done) == 30


@pytest.mark.parametrize(
    ("model", "convolves"), [("mlp", False), ("conv", False), ("vgg11", False)]
)
def test_only_models_with_convolutions_of_xla_are_kept_out_of_a_scan(model, convolves):
    assert (
        training._convolves(distill.student(model, (32, 32, 3), 10), 32 * 32 * 3, jnp.float32)
        is convolves
    )


def test_an_own_convolution_is_kept_out_of_a_scan():
    def apply(kernel, x):
        images, layout = x.reshape(-1, 4, 4, 1), ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return y.sum(axis=(1, 2))

    own = distill.Student(lambda key: jax.random.normal(key, (3, 3, 1, 2)), apply)
    assert training._convolves(own, 16, jnp.float32)


def test_without_a_budget_the_whole_bank_is_used(curved):
    runs = [
        distill.train(jax.random.key(23), Hyper(budget=budget, steps=5), curved, MLP)
        for budget in (None, len(curved), 3)
    ]
    assert same(runs[0].variables, runs[1].variables)
    assert not same(runs[0].variables, runs[2].variables)


def test_weight_decay_is_decoupled_from_the_loss(curved):
    free, held = (Hyper(budget=N, weight_decay=decay) for decay in (0.0, 0.5))
    state = start(jax.random.key(3), free, curved, MLP)
    steps = [step(state, hyper, curved, MLP, rows=N)[0].variables for hyper in (free, held)]
    for before, a, b in zip(*map(jax.tree.leaves, (state.variables, *steps)), strict=True):
        np.testing.assert_allclose(b, a - free.learning_rate * 0.5 * before, atol=1e-7)


def test_a_surrogate_cools_and_fits_what_autodiff_does_not(curved):
    """The same student, start and steps; only what a mask's derivative is taken to be differs."""
    left = {}
    for temperature in (None, 0.5):
        hyper = Hyper(1e-2, 0.1, budget=N, steps=2000, outputs="odds", temperature=temperature)
        run = distill.train(jax.random.key(40), hyper, curved, MLP)
        left[temperature] = run.curves["gradient"][-100:].mean()
    assert left[0.5] < 0.5 * left[None]


def test_muon_steps_along_the_nearest_orthogonal_matrix_and_vectors_have_adam():
    """Singular values of one size; that of the whole step is Adam's, 0.2 an entry."""
    slope = {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 2, 12)), "bias": jnp.ones(12)}
    muon = OPTIMIZERS["muon"]
    with jax.numpy_dtype_promotion("standard"):
        step, _ = muon.update(slope, muon.init(slope), slope)
    left, _, right = np.linalg.svd(np.reshape(slope["kernel"], (18, 12)), full_matrices=False)
    step_of = np.reshape(step["kernel"], (18, 12))
    along = np.diag(left.T @ step_of @ right.T)
    np.testing.assert_allclose(along / along.mean(), 1, atol=0.35)  # five Newton-Schulz steps
    assert np.sum(step_of * (left @ right)) > 0.95 * np.linalg.norm(step_of) * np.sqrt(12)
    assert 0.1 < np.sqrt(np.mean(step_of**2)) < 0.3
    assert (step["bias"] > 0).all()


@pytest.mark.parametrize(
    "optimizer",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "adam")) for name in OPTIMIZERS],
)
def test_many_runs_agree_whatever_the_optimizer(bank, optimizer):
    keys = jax.random.split(jax.random.key(50), 2)
    rates = np.array([1e-2, 3e-3])
    hyper = Hyper(loss="jacobian", steps=8, optimizer=optimizer, learning_rate=rates)
    both = [distill.train_many(keys, hyper, bank, MLP, mapper=m) for m in ("vmap", "loop")]
    assert both[0].ok
    np.testing.assert_allclose(both[0].curves["loss"], both[1].curves["loss"], rtol=1e-4)
    assert (both[0].curves["loss"][:, -1] < both[0].curves["loss"][:, 0]).all()
