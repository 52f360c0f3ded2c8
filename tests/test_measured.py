"""Rows of students: what they hold, that they are measured once, and what is made of them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import cells, data, distill
from recon.distill import ensemble
from recon.experiments import SettingsError, rebuild, students
from recon.experiments.mnist import SMALL, Ablation
from recon.experiments.rebuild import Panel

BASE = replace(SMALL, victim_steps=200, steps=30, recipes=("plain",))
REPLIES = ("gradient", "top", "membership")
TINY = replace(BASE, panels=(Panel("linear", (5,), seeds=2),), replies=REPLIES)


@pytest.fixture(scope="module")
def rows():
    return TINY.run()


def test_a_row_for_every_student_with_what_it_cost(rows):
    assert [(r["reply"], r["seed"]) for r in rows] == [(k, s) for k in REPLIES for s in range(2)]
    numbers = {r["reply"]: r["numbers"] for r in rows}
    assert numbers == {"gradient": 5 * 10 * 65, "top": 5 * (64 + 10), "membership": 5 * 10}
    assert len({(r["victim_id"], r["victim_accuracy"]) for r in rows}) == 1
    for row in rows:
        assert 0 <= row["accuracy"] <= 1
        assert (row["gradient_loss"] is None) == (row["reply"] == "membership")
        assert (row["weight"] is None) == (row["reply"] == "membership")
        assert row["victim"] == row["student"] == "linear"
        assert (row["budget"], row["steps"], row["failure"]) == (5, 30, None)
        assert not row["tuned"]  # MNIST's settings


def test_one_gradient_query_rebuilds_a_linear_victim():
    one = replace(
        TINY, replies=("gradient",), panels=(Panel("linear", (1,), seeds=1),), steps=3_000
    )
    (row,) = one.run()
    assert row["agreement"] > 0.95
    assert row["gradient_loss"] < 1e-2


def test_a_row_depends_on_its_own_cell_alone(rows):
    other = replace(TINY, panels=(Panel("linear", (9, 5), seeds=1),), replies=("gradient",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "load", lambda _: None)  # measured anew
        patch.setattr(cells, "save", lambda *_: None)
        again = other.run()[1]
    seconds = {"seconds": None}
    assert again | seconds == rows[0] | seconds


# --- measured once


def test_a_finished_run_is_not_measured_again(rows, monkeypatch):
    monkeypatch.setattr(students, "train", lambda *_: pytest.fail("was measured again"))
    told = []
    assert TINY.run(told.append) == rows == told


def test_a_killed_run_goes_on_where_it_was(rows, monkeypatch):
    other = replace(TINY, panels=(Panel("linear", (5,), seeds=3),), replies=("gradient",))
    train, trained = students.train, []
    monkeypatch.setattr(students, "train", lambda g, note: trained.append(g) or train(g, note))

    def stop(row):
        if row["seed"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.run(stop)
    assert [cell.seed for (cell,) in trained] == [2]  # the others were there
    assert [row["seed"] for row in other.run()] == [0, 1, 2]
    assert len(trained) == 1


class Measured(Exception):
    pass


def test_what_a_row_depends_on_is_measured_anew(rows, monkeypatch):
    def measured(*_):
        raise Measured

    monkeypatch.setattr(students, "train", measured)
    for change in ({"steps": 31}, {"queries": ("gaussian",)}, {"victim_steps": 201}):
        with pytest.raises(Measured):
            replace(TINY, **change).run()
    with jax.default_matmul_precision("float32"), pytest.raises(Measured):
        TINY.run()
    for name, there, row in (
        ("RECIPES", students.RECIPES, {"plain": students.RECIPES["plain"]._replace(members=2)}),
        ("REPLIES", students.REPLIES, {"gradient": students.REPLIES["smoothgrad"]}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(students, name, there | row)
            with pytest.raises(Measured):
                TINY.run()
    monkeypatch.setattr(cells, "code", lambda package: "other code")
    cells._surroundings.cache_clear()
    try:
        with pytest.raises(Measured):
            TINY.run()
    finally:
        cells._surroundings.cache_clear()


# --- only


def test_only_the_cells_named_are_measured(rows):
    assert TINY.run(only={"reply": ("top", "gradient"), "seed": ("1",)}) == [rows[1], rows[3]]


@pytest.mark.parametrize(
    ("only", "sentence"),
    [
        ({"colour": ("red",)}, "there is no column 'colour'; there are dataset, victim, student"),
        ({"reply": ("hessian",)}, "no reply is 'hessian'; there are gradient, top, membership"),
        ({"seed": ("0", "7")}, "no seed is '7'; there are 0, 1"),
    ],
)
def test_only_names_what_there_is(only, sentence):
    with pytest.raises(SettingsError, match=sentence):
        TINY.run(only=only)


def test_only_may_leave_nothing():
    todo = [*TINY.plan()[:1], *TINY.plan()[-1:]]
    with pytest.raises(SettingsError, match="nothing is left to measure"):
        rebuild.chosen(todo, {"reply": ("gradient",), "seed": ("1",)})


# --- ensembles, filters, summaries


def test_an_ensemble_is_the_better_half_of_students_trained_alone():
    panel = Panel("linear", (5,), ("plain", "ensemble"), ("gradient",), seeds=1)
    single, several = replace(TINY, panels=(panel,)).run()
    assert several["numbers"] == single["numbers"]  # no more queries
    cell = replace(TINY, panels=(panel,)).plan()[1]
    key = jax.random.fold_in(jax.random.key(0), 0)
    keys = [key, *(jax.random.fold_in(key, i) for i in range(1, 8))]
    with jax.enable_x64(False):
        victim = students.victim_of(cell)
        bank, student = students.replies_to(cell, victim), students.student_of(cell, victim)
        runs = [distill.train(key, cell.hyper, bank, student) for key in keys]
        best = np.argsort([ensemble.residual(run.curves["loss"]) for run in runs])[:4]
        digits = data.digits()
        x = jnp.asarray(digits.test.x, jnp.float32)
        mean = np.mean([student.apply(runs[r].variables, x) for r in best], axis=0)
    assert several["accuracy"] == pytest.approx((mean.argmax(1) == digits.test.y).mean(), abs=0.01)
    of = np.mean([ensemble.residual(runs[r].curves["gradient"]) for r in best])
    assert several["gradient_loss"] == pytest.approx(of, rel=1e-3)
    alone = ensemble.residual(runs[0].curves["gradient"])
    assert single["gradient_loss"] == pytest.approx(alone, rel=1e-3)


def test_the_members_that_fit_best_answer_by_their_mean_logits():
    logits = jnp.asarray([[[3.0, 0.0, 1.0]], [[0.0, 2.0, 1.5]], [[0.0, 2.0, 1.0]]])  # [R, n, K]
    member = distill.Student(lambda key: None, lambda variables, x: variables + 0 * x[:, :1])
    assert ensemble.mean(member) is ensemble.mean(member)
    mean = ensemble.mean(member).apply(logits, jnp.zeros((1, 4)))
    np.testing.assert_allclose(mean, [[1.0, 4 / 3, 3.5 / 3]], rtol=1e-6)
    losses = np.full((4, 100), 0.5)
    losses[:, -1] = 9.0  # one step is a draw: the mean over the last five decides
    losses[2, -5:], losses[3, -5:] = 0.1, 0.2
    losses[0, 50:] = np.nan  # it failed
    assert ensemble.closest(losses, 2).tolist() == [2, 3]
    assert ensemble.closest(losses, 4).tolist() == [2, 3, 1, 0]


def test_students_trained_at_once_are_those_trained_in_turn(rows, monkeypatch):
    todo = TINY.plan()[:1]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    more = [
        replace(cell, hyper=replace(cell.hyper, learning_rate=r))
        for cell in todo
        for r in (0.03, 0.01)
    ]
    (group,) = students.groups(more)
    one, other = students.measure(group)
    assert one["accuracy"] == pytest.approx(rows[0]["accuracy"], abs=0.02)
    assert one["gradient_loss"] == pytest.approx(rows[0]["gradient_loss"], rel=1e-2)
    assert (one["learning_rate"], other["learning_rate"]) == (0.03, 0.01)
    assert one["gradient_loss"] != other["gradient_loss"]


def planted(recipe, accuracies, failed=()):
    cell = dict.fromkeys(rebuild.SHOWN) | {"victim": "mlp", "student": "mlp", "queries": "pool"}
    cell |= {"reply": "top", "recipe": recipe, "budget": 10, "agreement": 0.5, "seconds": 2.0}
    cell |= {"victim_accuracy": 0.9}
    return [
        cell | {"seed": s, "accuracy": a, "failure": "nan" if s in failed else None}
        for s, a in enumerate(accuracies)
    ]


def test_a_summary_counts_the_failed_and_leaves_them_out():
    rows = planted("plain", (0.1, 0.5, 0.7, 0.99), failed=(3,))
    (row,) = TINY.summary(rows)
    assert set(TINY.shown) <= set(row)
    assert (row["runs"], row["failed"]) == (4, 1)
    assert row["accuracy"] == pytest.approx(1.3 / 3)
    assert (row["median"], row["lowest"], row["highest"]) == (0.5, 0.1, 0.7)
    (none,) = TINY.summary(planted("plain", (0.5,), failed=(0,)))
    assert (none["failed"], none["accuracy"], none["median"]) == (1, None, None)
    assert TINY.seconds(rows) == 8


def test_the_gain_of_a_recipe_is_over_the_same_seeds():
    rows = planted("plain", (0.1, 0.5, 0.7, 0.9), failed=(3,))
    rows += planted("unlabelled", (0.2, 0.7, 0.9, 0.95, 0.99), failed=(0,))
    plain, unlabelled = Ablation("", ()).summary(rows)
    assert set(Ablation.shown) <= set(plain)
    assert plain["gain"] == 0
    assert unlabelled["gain"] == pytest.approx(0.2)  # of seeds 1 and 2
    assert Ablation("", ()).summary(planted("ensemble", (0.2,)))[0]["gain"] is None
