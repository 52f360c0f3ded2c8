"""Few rows of many students: means over seeds, failures counted, gains on the same seeds."""

import pytest

from recon.experiments import Rebuild
from recon.experiments.mnist import Ablation

PLAIN = Rebuild("", panels=())


def test_a_summary_is_the_mean_over_seeds_and_counts_failures():
    of = {"victim": "a", "student": "a", "queries": "pool", "reply": "top", "recipe": "plain"}
    of |= {"budget": 1, "agreement": 0.5, "victim_accuracy": 1.0, "gradient_loss": None}
    of |= {"seconds": 2.0}
    made = [of | {"accuracy": a, "failure": None} for a in (0.1, 0.2, 0.9)]
    made.append(of | {"accuracy": 0.0, "failure": "a sentence"})
    (row,) = PLAIN.summary(made)
    assert (row["runs"], row["failed"], row["lowest"], row["highest"]) == (4, 1, 0.1, 0.9)
    assert row["accuracy"] == pytest.approx(0.4)
    assert row["median"] == 0.2
    assert PLAIN.seconds(made) == 8.0


def test_the_gain_of_a_recipe_is_over_the_same_seeds():
    of = {"victim": "a", "student": "a", "queries": "pool", "reply": "gradient", "budget": 1}
    of |= {"agreement": 0.5, "victim_accuracy": 1.0, "gradient_loss": 0.1, "seconds": 1.0}

    def row(recipe, seed, accuracy, failure=None):
        return of | {"recipe": recipe, "seed": seed, "accuracy": accuracy, "failure": failure}

    made = [row("plain", s, a) for s, a in enumerate((0.1, 0.5, 0.9))]
    made += [row("autodiff", 1, 0.4), row("autodiff", 2, 0.0, "failed")]
    ablation = Ablation("", panels=())
    gains = {few["recipe"]: few["gain"] for few in ablation.summary(made)}
    assert gains == {"plain": 0.0, "autodiff": pytest.approx(-0.1)}
