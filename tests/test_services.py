"""What is asked of a service: by a seed and a pool alone, fewer among more, and named by rows."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon import data, victims
from recon.distill import LOSSES, Hyper
from recon.distill.hyper import refusal
from recon.experiments import services, students
from recon.experiments.services import QUERIES, RECIPES, REPLIES
from recon.experiments.students import Cell
from recon.explanations import EXPLANATIONS
from recon.victims import Training

DIGITS = data.digits()
CELL = Cell("digits", "mlp", "mlp", "pool", "gradient", "plain", 0, Hyper(budget=5), False, 20)


def pool(n, seed=0):
    """A data set whose pool is n points of five inputs."""
    x = np.random.default_rng(seed).uniform(size=(n, 5))
    return replace(DIGITS, pool=data.Examples(x, np.zeros(n, np.int32)))


# --- queries


@given(st.sampled_from(["pool", "gaussian"]), st.integers(0, 20), st.integers(1, 99))
@settings(max_examples=20)
def test_fewer_queries_are_the_first_of_more(kind, seed, count):
    every = QUERIES[kind](DIGITS, 100, seed)
    np.testing.assert_array_equal(QUERIES[kind](DIGITS, count, seed), every[:count])


def test_drawn_queries_are_images_of_the_pool_none_twice():
    x = services.drawn(DIGITS, 256, 3)
    assert x.dtype == np.float32
    assert len(np.unique(x, axis=0)) == len(np.unique(DIGITS.pool.x, axis=0))
    np.testing.assert_array_equal(
        np.sort(services.order(256, 3)), np.arange(256)
    )  # a permutation: all of the pool


def test_a_seed_s_order_depends_on_nothing_else():
    pinned = {(10, 0): [1, 4, 7, 6, 2, 9, 3, 5, 0, 8]}  # tables rest on it: it must not change
    for (size, seed), rows in pinned.items():
        assert services.order(size, seed).tolist() == rows
    assert services.order(256, 1).tolist() != services.order(256, 0).tolist()
    reordered = replace(DIGITS, train=DIGITS.test, test=DIGITS.train)  # the pool alone is asked
    np.testing.assert_array_equal(services.drawn(reordered, 9, 2), services.drawn(DIGITS, 9, 2))


def test_gaussian_queries_are_standard_normal_and_another_seed_s_are_others():
    x = services.gaussian(DIGITS, 1_000, 0)
    assert (x.shape, x.dtype) == ((1_000, 64), np.float32)
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02
    assert np.abs(np.corrcoef(x[:, 0], services.gaussian(DIGITS, 1_000, 1)[:, 0])[0, 1]) < 0.1


@given(st.integers(1, 12), st.integers(0, 5), st.integers(1, 3))
@settings(max_examples=20)
def test_medoids_are_different_rows_and_the_same_for_a_seed(count, seed, spread):
    x = np.random.default_rng(seed).integers(0, spread, (12, 3)) / 4  # rows repeat
    x = np.column_stack([x, np.arange(12) * 1e-3])  # so that a row has a name
    dataset = replace(DIGITS, pool=data.Examples(x, np.zeros(12, np.int32)))
    rows = services.medoids(dataset, count, seed)
    assert len(np.unique(rows[:, 3])) == count
    assert np.isin(rows[:, 3], x[:, 3].astype(np.float32)).all()
    np.testing.assert_array_equal(rows, services.medoids(dataset, count, seed))
    assert np.isfinite(services.means(dataset, count, seed)).all()


def test_a_medoid_is_the_row_nearest_to_its_mean():
    dataset = pool(60)
    x = dataset.pool.x.astype(np.float32)
    middles = services.means(dataset, 4, 1)
    nearest = [x[np.linalg.norm(x - middle, axis=1).argmin()] for middle in middles]
    np.testing.assert_allclose(services.medoids(dataset, 4, 1), nearest)
    label = np.linalg.norm(x[:, None] - middles, axis=2).argmin(1)  # settled: means of their own
    for k, middle in enumerate(middles):
        np.testing.assert_allclose(x[label == k].mean(0), middle, atol=0.15)
    assert not np.array_equal(middles, services.means(dataset, 4, 2))


# --- replies and recipes


def test_rows_of_services_name_what_there_is():
    for service in REPLIES.values():
        assert service.loss in LOSSES
        assert service.view.explanation in (*EXPLANATIONS, "none")
    for recipe in RECIPES.values():
        assert set(recipe.replies) <= set(REPLIES)
        assert all(not refusal(name, value) for name, value in recipe.fixed.items())


@pytest.mark.parametrize("reply", ["gradient", "smoothgrad", "top", "membership"])
def test_a_reply_is_to_the_same_queries_whatever_it_is(reply):
    cell = replace(CELL, reply=reply)
    bank = students.replies_to(cell, students.victim_of(cell))
    np.testing.assert_array_equal(bank.x, services.drawn(DIGITS, 5, 0))
    shape = {"membership": None, "top": (5, 64)}.get(reply, (5, 10, 64))
    assert (None if bank.gradient is None else bank.gradient.shape) == shape


def test_most_of_a_pool_is_bought_once_for_all_seeds(monkeypatch):
    bought, buy = [], students._buy
    monkeypatch.setattr(students, "_POOL", {})
    monkeypatch.setattr(students, "_buy", lambda *a: bought.append(len(a[2])) or buy(*a))
    every = [replace(CELL, seed=s, hyper=Hyper(budget=200)) for s in range(2)]
    banks = [students.replies_to(cell, students.victim_of(cell)) for cell in every]
    assert bought == [256]
    for cell, bank in zip(every, banks, strict=True):
        np.testing.assert_array_equal(bank.x, services.drawn(DIGITS, 200, cell.seed))
    few = students.replies_to(CELL, students.victim_of(CELL))
    assert bought == [256, 5]
    np.testing.assert_allclose(few.gradient, banks[0].gradient[:5], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "layers", "learnt"), [("mlp", "hidden", {"output"}), ("mlp", "output", {"hidden"})]
)
def test_a_student_that_knows_layers_has_the_victims_and_no_others(model, layers, learnt):
    victim = victims.classifier(DIGITS, model, 0, Training(steps=20))
    cell = replace(CELL, recipe=f"knows {layers}")
    student = students.student_of(cell, victim)
    assert student is students.student_of(cell, victim)  # what was compiled is shared
    variables = student.init(jax.random.key(1))
    assert set(variables["params"]) == learnt
    rest = {"params": {k: v for k, v in victim.variables["params"].items() if k in learnt}}
    x = jnp.asarray(DIGITS.test.x[:5], jnp.float32)
    theirs = victim.f(victim.variables, x)
    np.testing.assert_allclose(student.apply(rest, x), theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(student.surrogate(rest, x, 0.5), theirs, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(student.apply(variables, x) - theirs).max()) > 1e-3


def test_layers_that_a_victim_has_not_are_refused():
    victim = victims.classifier(DIGITS, "mlp", 0, Training(steps=20))
    with pytest.raises(ValueError, match="the victim mlp has no layer 'Conv'"):
        students.student_of(replace(CELL, recipe="knows convolutions"), victim)
