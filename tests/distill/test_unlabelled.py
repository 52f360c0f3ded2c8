"""Inputs that were not asked about: how they are bent, named and averaged over."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import MLP, same, start

from recon import distill
from recon.distill import Hyper, Student, unlabelled


def test_a_warp_is_the_identity_on_a_flat_image_and_moves_no_pixel_far():
    shape = (12, 12, 2)
    dot = jnp.zeros(shape).at[6, 6].set(1.0).reshape(1, -1)
    bent = jax.jit(distill.warp(shape))(jax.random.key(1), jnp.tile(dot, (50, 1))).reshape(
        50, *shape
    )
    assert bent.dtype == jnp.float32
    assert np.isfinite(bent).all()
    rows, columns = np.nonzero(np.asarray(bent).max(axis=(0, 3)))
    assert np.abs(np.stack([rows, columns]) - 6).max() <= 3
    np.testing.assert_allclose(bent[..., 0], bent[..., 1], atol=1e-6)
    assert len(np.unique(np.asarray(bent).reshape(50, -1), axis=0)) == 50


def test_only_confident_names_of_unlabelled_inputs_count():
    student = Student(MLP.init, lambda w, x: x @ w, lambda key, x: x)
    x, hyper = jnp.ones((4, 1)), Hyper(unlabelled=8)
    sure, unsure = jnp.array([[9.0, 0.0]]), jnp.array([[0.1, 0.0]])
    inconsistency = jax.jit(unlabelled.inconsistency, static_argnums=2)
    loss = [
        float(inconsistency(sure, w, student, hyper, x, jax.random.key(0))) for w in (sure, unsure)
    ]
    p = np.asarray(jax.nn.softmax(sure[0]))
    # one class alone lacks log 2 of entropy, less what is left of it
    assert loss[0] == pytest.approx(np.log(2), rel=1e-4)
    assert loss[1] == pytest.approx(np.log(2) + (p * np.log(p)).sum(), rel=1e-4)
    balanced = jnp.array([[9.0, 0.0], [0.0, 9.0]])
    even = inconsistency(
        balanced, balanced, student, Hyper(unlabelled=4_000), jnp.eye(2), jax.random.key(0)
    )
    assert even == pytest.approx(-(p * np.log(p)).sum(), rel=0.3)


def test_a_mean_of_weights_forgets_the_first_ones_first():
    mean = jnp.zeros(())
    for done in range(2_000):
        mean = unlabelled.averaged(mean, jnp.ones(()), jnp.int32(done))
    assert mean == pytest.approx(1.0, abs=1e-3)
    assert unlabelled.averaged(jnp.ones(()), jnp.full((), 3.0), jnp.int32(0)) == 3.0


def test_a_run_with_unlabelled_inputs_gives_the_mean_of_its_weights_and_resumes(tmp_path, curved):
    student = Student(MLP.init, MLP.apply, lambda key, x: x)
    bank = dataclasses.replace(curved, unlabelled=100 * curved.x)
    hyper = Hyper(unlabelled=4, budget=4, steps=20)
    whole = distill.train(jax.random.key(3), hyper, bank, student, chunk=10)
    state = start(jax.random.split(jax.random.key(3), 1)[0], hyper, bank, student)
    assert state.average is not None
    plain = distill.train(
        jax.random.key(3), dataclasses.replace(hyper, unlabelled=0), bank, student, chunk=10
    )
    assert np.array_equal(whole.curves["loss"][:8], plain.curves["loss"][:8])  # alone at first
    assert not np.array_equal(whole.curves["loss"][8:], plain.curves["loss"][8:])
    saved = tmp_path / "run"

    class Stop(Exception):
        pass

    def stop(done, losses):
        raise Stop

    with pytest.raises(Stop):
        distill.train(jax.random.key(3), hyper, bank, student, chunk=10, save=saved, progress=stop)
    again = distill.train(jax.random.key(3), hyper, bank, student, chunk=10, save=saved)
    assert same(whole.variables, again.variables)
