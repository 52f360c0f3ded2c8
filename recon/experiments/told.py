"""How much ten Gaussian queries can say: students that are told the victim's convolutions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from recon import data, distill
from recon.distill import Student
from recon.experiments.cells import Note, SettingsError
from recon.experiments.common import Row
from recon.experiments.hyper import hyper
from recon.experiments.matching import Matching
from recon.experiments.students import in_range
from recon.experiments.subjects import KINDS, subject_of, trained
from recon.victims import Classifier

LAST = 200  # steps that a residual is the mean of


@dataclass(frozen=True)
class Told(Matching):
    """What of Figure 4 is the algorithm's fault, and what the queries': ours, not the paper's.

    Claim:   the paper's: ten Gaussian gradient queries rebuild the convolutional network to 84 %
             (section 5.3), where fig4_mnist has 78 %.
    Command: scripts/run.py told_gaussian
    Time:    2 minutes on 1 CPU core.
    Expect:  from ten queries 77 to 83 % with every setting, though both convolutions are told and
             l_G ends below 1 %: ten Gaussian queries leave the dense layers open.

    The student has the victim's convolutional layers, for no query, and learns the dense ones from
    the queries of fig4_mnist.  Every setting is shown: the best of them, chosen on the test
    images as it were, is an estimate from above of what `fig4_mnist` could reach.
    """

    shown: ClassVar[tuple[str, ...]] = (
        *("victim", "student", "kind", "budget", "weight_decay", "surrogate", "runs"),
        *("accuracy", "accuracy_min", "accuracy_max", "agreement", "gradient_loss", "seconds"),
    )
    victims: tuple[str, ...] = ("conv",)
    kinds: tuple[str, ...] = ("gradient",)
    distribution: str = "gaussian"
    budgets: tuple[int, ...] = (10,)
    steps: int | None = 4_000
    weight_decays: tuple[float, ...] = (0.3, 1.0)
    """Of AdamW."""
    surrogates: tuple[float, ...] = (0.5, 2.0, 4.0)
    """Widths of the masks' surrogate derivative."""
    most: int = 10_000
    """Queries a seed of the experiment whose queries are asked, fig4_mnist."""

    def small(self) -> Told:
        """Digits, few steps."""
        few = replace(self, dataset="digits", surrogates=(0.5,), conv_seeds=1)
        return replace(few, victim_steps=1_000, steps=200, most=100)

    def pairs(self) -> list[tuple[str, str]]:
        """As those of `Matching`; a student is of its victim's class, and asks for gradients."""
        pairs = super().pairs()
        if self.kinds != ("gradient",) or any(pair != ("conv", "conv") for pair in pairs):
            raise SettingsError("only a victim conv is told, and its student asks for gradients")
        in_range("a weight decay", self.weight_decays, 0)
        in_range("a surrogate's width", self.surrogates, 0, above=True)
        in_range("most", (self.most,), 1)
        return pairs

    def summary(self, rows: list[Row]) -> list[Row]:
        """The mean over seeds for each setting."""
        settings = dict.fromkeys((row["weight_decay"], row["surrogate"]) for row in rows)
        return [
            mean | {"weight_decay": decay, "surrogate": width}
            for decay, width in settings
            for mean in super(Told, self).summary(
                [r for r in rows if (r["weight_decay"], r["surrogate"]) == (decay, width)]
            )
        ]

    def _pair(self, dataset: data.Dataset, name: str, model: str, note: Note) -> Iterator[Row]:
        victim = trained(dataset, name, self.seed, self.victim_steps, note)
        most, seeds = max(self.most, *self.budgets), self.conv_seeds
        subject = subject_of(dataset, victim, self.distribution, most, seeds, self.seed)
        student = told(victim, dataset.shape, dataset.classes)
        names = {"dataset": dataset.name, "victim": name, "student": f"{model}, told"}
        for budget in sorted(self.budgets):
            base, _ = hyper(model, "gradient", budget, self.distribution)
            base = replace(base, steps=self.steps or base.steps, loss=KINDS["gradient"].loss)
            for seed in range(seeds):
                key = jax.random.fold_in(jax.random.key(self.seed), seed)
                first = seed * len(subject.x) // seeds
                rows = (first + np.arange(budget)) % len(subject.x)
                bank = distill.buy(subject.f, subject.x[rows])
                for decay, width in product(self.weight_decays, self.surrogates):
                    note(f"{name} told, gradient x {budget:,}, seed {seed}, {decay=}, {width=}")
                    settings = replace(base, weight_decay=decay, surrogate=width)
                    start = time.perf_counter()
                    run = distill.train(key, settings, bank, student, subject.probe)
                    yield names | {
                        "kind": "gradient",
                        "budget": budget,
                        "seed": seed,
                        "accuracy": float(run.curves["accuracy"][-1]),
                        "agreement": float(run.curves["agreement"][-1]),
                        "victim_accuracy": victim.accuracy,
                        "gradient_loss": float(np.mean(run.curves["gradient"][-LAST:])),
                        "learning_rate": settings.learning_rate,
                        "weight": settings.weight,
                        "weight_decay": decay,
                        "surrogate": width,
                        "steps": settings.steps,
                        "batch": settings.batch,
                        "seconds": time.perf_counter() - start,
                        "failure": run.failures[0] or None,
                    }


def told(victim: Classifier, shape: tuple[int, ...], classes: int) -> Student:
    """A student of the victim's class whose convolutional layers are the victim's, and fixed."""
    from recon import models  # flax is heavy

    module = models.build(victim.model, shape, classes)
    known = {k: v for k, v in victim.variables["params"].items() if k.startswith("Conv")}

    def init(key: Any) -> Any:
        every = module.init(key, jnp.zeros(int(np.prod(shape))))["params"]
        return {"params": {k: v for k, v in every.items() if k not in known}}

    def whole(variables: Any) -> Any:
        return {"params": {**known, **variables["params"]}}

    plain, masked = models.logits(module), models.surrogate(module)
    return Student(
        init,
        lambda variables, x: plain(whole(variables), x),
        surrogate=lambda variables, x, width: masked(whole(variables), x, width),
    )
