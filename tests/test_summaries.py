"""Few rows of many students: means, failures, gains; and ensembles, which answer as one."""

import jax.numpy as jnp
import numpy as np
import pytest

from recon import distill
from recon.distill import ensemble
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
