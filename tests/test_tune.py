"""Hyperparameters: the table is what the committed grids chose, and how it is looked up."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from recon import tables
from recon.distill import Hyper
from recon.distill.hyper import refusal
from recon.experiments import hyper, tune
from recon.experiments.hyper import best
from recon.experiments.services import OTHERS, RECIPES, REPLIES

RESULTS = Path(__file__).parents[1] / "results"


def test_the_table_is_what_the_committed_grids_chose():
    assert hyper.FILE.read_text() == tables.text_of(tune.choose(RESULTS)), "recon tune --choose"


@pytest.mark.parametrize("name", tune.GRIDS)
def test_the_committed_rows_of_a_grid_are_those_it_plans(name):
    rows = tables.rows(RESULTS / "tune" / name.replace("-", "_") / "rows.csv")
    planned = tune.GRIDS[name].plan()
    key = ("student", "queries", "reply", "recipe", "seed", "learning_rate", "weight_decay")

    def of(cell):
        found = vars(cell) | vars(cell.hyper)
        return tuple(found[name] for name in (*key, "budget", "temperature", "outputs"))

    assert len(rows) == len(planned)
    measured = {
        tuple(row[name] for name in (*key, "budget", "temperature", "outputs")) for row in rows
    }
    assert measured == set(map(of, planned))
    assert {cell.held_out for cell in planned} == {10_000}
    assert all(row["held_out"] == 10_000 for row in rows)


def test_every_setting_of_the_table_is_one_that_a_run_takes():
    for by_budget in hyper.table().values():
        for settings in by_budget.values():
            made = Hyper(**settings)
            for f in fields(Hyper):
                assert refusal(f.name, getattr(made, f.name)) == ""


def test_a_budget_has_the_settings_of_the_largest_tuned_one_that_is_not_above_it():
    def steps(budget):
        return hyper.hyper("mnist", "pool", "mlp", "gradient", "plain", budget)

    for budget, like in ((1, 1), (9, 1), (10, 10), (99, 10), (100, 100), (10_000, 100)):
        found, tuned = steps(budget)
        assert tuned
        assert found.budget == budget
        assert (found.steps, found.temperature) == (
            steps(like)[0].steps,
            steps(like)[0].temperature,
        )


def test_what_has_no_settings_of_its_own():
    smooth, _ = hyper.hyper("mnist", "pool", "conv", "smoothgrad")
    plain, _ = hyper.hyper("mnist", "pool", "conv", "gradient")
    assert smooth == plain
    medoids, tuned = hyper.hyper("mnist", "medoids", "conv", "gradient")
    assert (medoids, tuned) == (plain, True)
    digits, tuned = hyper.hyper("digits", "pool", "conv", "gradient")
    assert (digits, tuned) == (plain, False)  # chosen on MNIST, not for digits
    large, tuned = hyper.hyper("cifar10", "pool", "conv-large", "gradient", budget=7)
    assert (large, tuned) == (Hyper(budget=7), False)
    deep = [hyper.hyper("cifar10", "pool", f"vgg11{of}", "gradient") for of in ("", "-quarter")]
    assert deep[0] == deep[1] != (Hyper(), False)  # chosen at a quarter of the width
    entropy, _ = hyper.hyper("mnist", "pool", "mlp", "membership", "cross-entropy", 100)
    odds, _ = hyper.hyper("mnist", "pool", "mlp", "membership", "plain", 100)
    assert (entropy.outputs, odds.outputs) == ("entropy", "odds")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_fixes_what_it_says(recipe):
    reply = RECIPES[recipe].replies[0]
    found, tuned = hyper.hyper("mnist", "pool", "mlp", reply, recipe)
    for name, value in RECIPES[recipe].fixed.items():
        assert getattr(found, name) == value
    assert found.steps >= RECIPES[recipe].steps
    assert tuned == (recipe not in ("unlabelled", "as gradients"))  # not tuned: first choices


@pytest.mark.parametrize("reply", [*OTHERS, "three digits"])
def test_what_was_not_tuned_has_the_settings_of_gradients(reply):
    gradient, tuned = hyper.hyper("mnist", "pool", "mlp", "gradient")
    found, here = hyper.hyper("mnist", "pool", "mlp", reply)
    weight = REPLIES[reply].weight or gradient.weight
    assert tuned
    assert not here
    assert found == replace(gradient, loss=REPLIES[reply].loss, weight=weight)


def test_the_best_setting_has_the_highest_mean_and_no_failure():
    key = dict.fromkeys(hyper.KEY, "a") | dict.fromkeys(hyper.TUNED)

    def row(rate, agreement, budget=1, failure=None):
        of = {"learning_rate": rate, "agreement": agreement, "budget": budget}
        return key | of | {"failure": failure}

    rows = [row(0.1, 0.5), row(0.1, 0.7), row(0.2, 0.9), row(0.2, 0.2), row(0.3, 1.0, failure="x")]
    rows += [row(0.1, 0.1, budget=10), row(0.2, 0.3, budget=10)]
    one, ten = best(rows)
    assert (one["learning_rate"], one["agreement"], one["settings"], one["runs"]) == (
        0.1,
        0.6,
        3,
        5,
    )
    assert (ten["learning_rate"], ten["worst_agreement"]) == (0.2, 0.1)
    assert best([row(0.3, 1.0, failure="x")]) == []


def test_the_top_class_has_the_settings_of_whole_jacobians_where_it_has_none_of_its_own():
    top, tuned = hyper.hyper("cifar10", "pool", "conv", "top", "plain", 10)
    whole, of_its_own = hyper.hyper("cifar10", "pool", "conv", "gradient", "plain", 10)
    assert of_its_own
    assert not tuned
    assert top == replace(whole, loss="top")
    assert hyper.hyper("mnist", "pool", "conv", "top", "plain", 10)[1]
