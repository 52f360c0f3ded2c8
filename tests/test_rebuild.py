"""Classifiers rebuilt by matching replies: what is planned, measured and summed up."""

from dataclasses import replace
from itertools import chain, combinations

import jax
import numpy as np
import pytest

from recon import data
from recon.distill import Hyper
from recon.distill.hyper import refusal
from recon.experiments import EXPERIMENTS, Rebuild, SettingsError, rebuild, students
from recon.experiments.mnist import MNIST, SMALL
from recon.experiments.rebuild import Panel
from recon.experiments.services import RECIPES, REPLIES
from recon.experiments.tune import GRIDS

BASE = replace(SMALL, victim_steps=200, steps=30, recipes=("plain",))
TINY = replace(BASE, panels=(Panel("linear", (1, 20), seeds=2),), replies=("gradient", "top"))
PLANNED = {**{n: e for n, e in EXPERIMENTS.items() if isinstance(e, Rebuild)}, **GRIDS}


# --- what is planned


@pytest.mark.parametrize("name", PLANNED)
def test_every_row_plans_cells_that_can_be_measured(name, monkeypatch):
    digits = data.digits()  # a large pool, in place of MNIST's, which may not be here
    wide = replace(digits, pool=data.Examples(np.zeros((10_000, 1)), np.zeros(10_000)))
    monkeypatch.setattr(students, "load", lambda *_: wide)
    todo = PLANNED[name].plan()
    rebuild.check(todo)
    assert len(set(todo)) == len(todo) > 0  # none twice
    for cell in todo:
        assert cell.reply in RECIPES[cell.recipe].replies
        for field in Hyper.__dataclass_fields__:
            assert not refusal(field, getattr(cell.hyper, field))


@pytest.mark.parametrize("name", PLANNED)
def test_a_small_form_plans_few_cells_of_digits(name):
    todo = PLANNED[name].small().plan()
    rebuild.check(todo)
    assert 0 < len(todo) <= 40
    assert {cell.dataset for cell in todo} == {"digits"}


def test_experiments_share_the_cells_they_have_in_common():
    def ten(name):
        return {
            cell
            for cell in MNIST[name].plan()
            if (cell.victim, cell.student, cell.queries) == ("conv", "conv", "pool")
            and (cell.reply, cell.recipe, cell.hyper.budget) == ("gradient", "plain", 10)
        }

    baseline = ten("fig2-mnist")
    assert {cell.seed for cell in baseline} == set(range(10))  # what varies most has most seeds
    for name in ("ablation-mnist", "selection-mnist"):
        assert ten(name) == baseline
    assert ten("filters-mnist") < baseline  # its rows are others: filters


def test_cells_change_with_what_they_are_and_with_nothing_else():
    few = set(TINY.plan())
    more = replace(TINY, panels=(Panel("linear", (1, 20, 50), seeds=4), Panel("mlp", (10,))))
    assert few < set(more.plan())  # other budgets, seeds and victims change nothing
    assert len(few) == 8
    for one, other in combinations(few, 2):
        assert students.identity(one) != students.identity(other)


def test_runs_are_grouped_by_what_is_compiled(monkeypatch):
    todo = replace(TINY, panels=(Panel("linear", (1, 10, 100, 200), seeds=2),)).plan()
    assert students.groups(todo) == [(cell,) for cell in todo]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = [[(c.reply, c.hyper.budget, c.seed) for c in group] for group in students.groups(todo)]
    assert sorted(chain(*found)) == sorted((c.reply, c.hyper.budget, c.seed) for c in todo)
    assert [("gradient", 100, 0), ("gradient", 200, 0)] in found  # batches of 64 rows
    assert [("gradient", 1, 1)] in found


def test_a_recipe_fixes_what_it_fixes_and_a_grid_does_not_vary_it():
    grid = (("weight_decay", (0.3, 1.0)), ("temperature", (None, 0.5)), ("weight", (0.1, 1.0)))
    panel = Panel("mlp", (10,), tuple(RECIPES), tuple(REPLIES), seeds=1)
    todo = replace(TINY, panels=(panel,), grid=grid).plan()

    def of(reply, recipe, name):
        mine = [c.hyper for c in todo if (c.reply, c.recipe) == (reply, recipe)]
        return len(mine), {getattr(h, name) for h in mine}

    assert of("gradient", "plain", "temperature") == (8, {None, 0.5})
    assert of("gradient", "no decay", "weight_decay") == (4, {0.0})  # once each
    assert of("gradient", "autodiff", "temperature") == (4, {None})
    assert of("smoothgrad", "own SmoothGrad", "points") == (8, {8})
    assert of("membership", "cross-entropy", "outputs") == (2, {"entropy"})
    assert of("membership", "plain", "weight") == (2, {Hyper().weight})  # has no lambda
    assert of("membership", "autodiff", "steps") == (0, set())  # makes no sense for it


# --- what cannot be run


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"panels": (Panel("tree", (1,)),)}, "there is no victim 'tree'; there are linear, mlp"),
        (
            {"panels": (Panel("mlp", (1,), student="tree"),)},
            "there is no student 'tree'",
        ),
        ({"queries": ("uniform",)}, "there is no kind of queries 'uniform'; there are pool"),
        ({"dataset": "letters"}, "there is no data set 'letters'; there are digits, mnist"),
        ({"panels": (Panel("linear", (0,)),)}, "budget must be a whole number of at least 1"),
        ({"panels": (Panel("linear", (1, 257)),)}, "a budget of 257 is not in 1 ... 256"),
        (
            {"recipes": ("knows hidden",), "panels": (Panel("mlp", (1,), student="linear"),)},
            "a student that knows layers is of its victim's class",
        ),
        (
            {"recipes": ("unlabelled",), "queries": ("gaussian",)},
            "unlabelled images are not of the kind of gaussian queries",
        ),
        ({"steps": -1}, "steps must be a whole number of at least 1, got -1"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(change, sentence, monkeypatch):
    monkeypatch.setattr(students, "train", lambda *_: pytest.fail("was trained"))
    with pytest.raises(SettingsError) as caught:
        replace(TINY, **change).run()
    assert sentence in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_more_gaussian_queries_than_images_can_be_asked():
    rebuild.check(replace(TINY, queries=("gaussian",), panels=(Panel("linear", (1_000,)),)).plan())
