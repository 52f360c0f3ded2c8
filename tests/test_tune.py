"""Hyperparameters: what the committed grids chose, and which a student gets."""

from dataclasses import replace
from pathlib import Path

import pytest

from recon import data, tables
from recon.distill import Hyper
from recon.distill.hyper import refusal
from recon.experiments import hyper as chosen
from recon.experiments import students, tune
from recon.experiments.hyper import hyper, table
from recon.experiments.services import RECIPES, REPLIES

RESULTS = Path(__file__).parents[1] / "results"
PLAIN = ("mnist", "pool", "conv", "gradient")


def test_the_table_is_what_the_committed_grids_chose():
    written = chosen.FILE.read_text(encoding="utf-8")
    assert written == tables.text_of(tune.choose(RESULTS)), "run recon tune --choose"


def test_every_row_of_the_table_can_be_trained_with():
    assert len(table()) > 10
    for (_, queries, _, reply, recipe), by_budget in table().items():
        assert queries in ("pool", "gaussian")
        assert reply in RECIPES[recipe].replies
        assert reply in REPLIES
        for budget, settings in by_budget.items():
            assert budget >= 1
            assert not any(refusal(name, value) for name, value in settings.items())


def test_a_budget_has_the_settings_of_the_largest_tuned_one_that_is_not_above_it():
    by_budget = table()[(*PLAIN, "plain")]
    assert set(by_budget) == {10, 100}
    for budget, of in ((1, 10), (10, 10), (99, 10), (100, 100), (10_000, 100)):
        expected = Hyper(**by_budget[of], budget=budget, loss="projection")
        assert hyper(*PLAIN, budget=budget) == (expected, True)


def test_the_settings_of_another_data_set_are_not_tuned_for_this_one():
    mnist, tuned = hyper(*PLAIN)
    assert tuned
    assert hyper("digits", *PLAIN[1:]) == (mnist, False)
    unknown = replace(Hyper(), budget=10, loss="projection")
    assert hyper("mnist", "pool", "conv_large", "gradient") == (unknown, False)


def test_replies_and_recipes_share_settings():
    gradient, _ = hyper(*PLAIN)
    assert hyper("mnist", "pool", "conv", "smoothgrad") == (gradient, True)
    assert hyper("mnist", "medoids", "conv", "gradient") == (gradient, True)
    pool, noise = (hyper("mnist", q, "mlp", "gradient") for q in ("pool", "gaussian"))
    assert pool != noise
    for recipe, change, tuned in (
        ("whole Jacobian", {"loss": "jacobian"}, True),
        ("autodiff", {"temperature": None}, True),
        ("no decay", {"weight_decay": 0.0}, True),
        ("ensemble", {}, True),
        ("unlabelled", {"unlabelled": 64}, False),  # its own setting was not tuned
    ):
        assert hyper(*PLAIN, recipe) == (replace(gradient, **change), tuned)
    own = hyper("mnist", "pool", "conv", "smoothgrad", "own SmoothGrad")
    assert own == (replace(gradient, points=8), True)
    membership, _ = hyper("mnist", "pool", "conv", "membership")
    longer = replace(membership, steps=4_000, unlabelled=64)
    assert hyper("mnist", "pool", "conv", "membership", "unlabelled") == (longer, False)
    entropy, tuned = hyper("mnist", "pool", "conv", "membership", "cross-entropy")
    assert tuned  # a recipe with a grid of its own
    assert entropy == Hyper(
        **table()["mnist", "pool", "conv", "membership", "cross-entropy"][10],
        budget=10,
        loss="membership",
    )


def row(rate, agreement, failure=None, **more):
    key = dict.fromkeys((*chosen.KEY, *chosen.TUNED)) | {"student": "mlp", "budget": 10}
    return key | {"learning_rate": rate, "agreement": agreement, "failure": failure} | more


def test_the_best_setting_has_the_highest_mean_and_no_failure():
    rows = [row(1, 0.2), row(1, 0.9), row(2, 0.6), row(2, 0.6), row(3, 0.99), row(3, 0.9, "nan")]
    (found,) = chosen.best(rows)
    assert (found["learning_rate"], found["agreement"]) == (2, pytest.approx(0.6))
    assert found["worst_agreement"] == pytest.approx(0.55)
    assert (found["settings"], found["runs"]) == (3, 6)
    assert chosen.best([row(1, 0.5, "nan")]) == []
    best = chosen.best([row(2, 0.6), row(1, 0.7, budget=100), row(3, 0.1, student="conv")])
    assert [(of["student"], of["budget"]) for of in best] == [
        ("mlp", 10),
        ("mlp", 100),
        ("conv", 10),
    ]


def test_students_are_scored_on_images_that_are_not_the_test_part():
    small = tune.GRIDS["first"].small()
    (held, of) = students.place(small.plan()[0])
    digits, scored = data.digits(), students.load(held, of)
    images = {x.tobytes() for x in digits.train.x}
    assert len(scored.test.x) == of == small.held_out == 200
    assert all(x.tobytes() in images for x in scored.test.x)
    assert len(scored.train.x) == len(digits.train.x) - of


def test_a_small_grid_runs_and_the_best_of_it_is_shown():
    small = replace(tune.GRIDS["first"].small(), replies=("gradient",), recipes=("plain",))
    rows = replace(small, victim_steps=100, steps=20).run()
    assert [r["learning_rate"] for r in rows] == [1e-3, 1e-2]
    assert {r["tuned"] for r in rows} == {False}
    (best,) = small.summary(rows)
    assert best["agreement"] == max(r["agreement"] for r in rows)
    assert set(small.shown) - set(chosen.TUNED) <= set(best)
