"""Victims with the queries they are asked and the replies they sell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recon import data, distill, explanations, victims
from recon.distill import Bank, Probe
from recon.experiments import cells
from recon.experiments.cells import Note, SettingsError
from recon.victims import Classifier, Training


class Kind(NamedTuple):
    """A query: the row of EXPLANATIONS that is bought (None: only f(x)), and the student's loss.

    pool: the images of the pool that are not asked about are used too (`distill.consistency`);
    fixed: fields of the student's `Hyper` that are not chosen by a sweep; members: how many
    students are trained, of which the half that fits best answers (`distill.ensemble`).
    """

    explain: str | None
    loss: str
    pool: bool = False
    fixed: Mapping[str, Any] = MappingProxyType({})
    members: int = 1


KINDS = {
    "gradient": Kind("jacobian", "projection"),
    "gradient-whole": Kind("jacobian", "jacobian"),
    "gradient-autodiff": Kind("jacobian", "projection", fixed={"surrogate": None}),
    "gradient-undecayed": Kind("jacobian", "projection", fixed={"weight_decay": 0.0}),
    "gradient-ensemble": Kind("jacobian", "projection", members=8),
    "gradient+pool": Kind("jacobian", "projection", pool=True),
    "smoothgrad": Kind("smoothgrad", "projection"),
    "smoothgrad-own": Kind("smoothgrad", "projection", fixed={"points": 8}),
    "top": Kind("jacobian", "top"),
    "membership": Kind(None, "membership"),
    "membership-entropy": Kind(None, "membership", fixed={"outputs": "entropy"}),
    "membership-ensemble": Kind(None, "membership", members=8),
    "membership+pool": Kind(None, "membership", pool=True),
}
DISTRIBUTIONS = ("pool", "gaussian")


@dataclass(frozen=True, eq=False)
class Subject:
    """A victim and the queries x [N, d] it is asked; students are scored on dataset.test.

    key: the key of SmoothGrad's noise, which is the service's own; told: layers, by the start of
    their names, that the student has from its victim for no query ("": none).
    """

    victim: Classifier
    dataset: data.Dataset
    x: Any
    key: Any
    told: str = ""
    _held: dict[str, Any] = field(default_factory=dict, repr=False)

    def f(self, x: Any) -> Any:
        """The victim's logits [..., K] at x [..., d]."""
        return self.victim.f(self.victim.variables, x)

    def bank(self, kind: str) -> Bank:
        """All N replies to one kind of query.

        Bought when first asked for; the replies of one explanation are held at a time, so ask
        for the kinds that share it one after the other.
        """
        explain, loss = KINDS[kind][:2]
        if self._held.get("explain", "") != explain:
            self._held.clear()
            row = None if explain is None else explanations.EXPLANATIONS[explain]
            chunk = 10 if explain == "smoothgrad" else 100  # as it asks many points for each query
            bank = distill.buy(self.f, self.x, row, self.key, chunk)
            self._held.update(explain=explain, bank=bank)
        held: Bank = self._held["bank"]
        return held.top() if loss == "top" else held

    @cached_property
    def probe(self) -> Probe:
        """The test images with their labels and the victim's classes."""
        classes = jax.jit(lambda x: jnp.argmax(self.f(x), axis=-1))
        x = np.asarray(self.dataset.test.x, np.float32)
        parts = [classes(x[i : i + 1_000]) for i in range(0, len(x), 1_000)]
        return Probe(x, self.dataset.test.y, np.concatenate(parts))

    @cached_property
    def digest(self) -> str:
        """A name for all that students are trained and scored on."""
        leaves = jax.tree.leaves(self.victim.variables)
        key = jax.random.key_data(self.key)
        return cells.digest([*leaves, self.x, key, self.dataset.pool.x, *self.dataset.test])


def subject_of(
    dataset: data.Dataset, victim: Classifier, distribution: str, most: int, seeds: int, seed: int
) -> Subject:
    """A victim with queries for `seeds` draws of `most`, or as many of them as the pool has.

    The first images of the pool, or x ~ N(0, I_d) as many.
    """
    query_key, noise_key = jax.random.split(jax.random.key(seed))
    pool = dataset.pool.x
    count = max(most, min(len(pool), seeds * most))
    if distribution == "gaussian":
        x = jax.random.normal(query_key, (count, pool.shape[1]), jnp.float32)
    else:  # in the order of the seeded split
        x = jnp.asarray(pool[:count], jnp.float32)
    return Subject(victim, dataset, x, noise_key)


def load(
    name: str, seed: int, download: bool, distribution: str, budgets: Sequence[int]
) -> data.Dataset:
    """The data set; DataError if it is missing, SettingsError where a budget is above its pool."""
    dataset = data.load(name, seed, download=download)
    pool, most = len(dataset.pool.x), max(budgets)
    if distribution == "pool" and most > pool:
        raise SettingsError(
            f"a budget of {most:,} queries is above the pool: {name} has {pool:,} images to ask"
        )
    return dataset


def trained(dataset: data.Dataset, name: str, seed: int, steps: int, note: Note) -> Classifier:
    """The victim, from the cache or trained now."""

    def tell(step: int, of: int, loss: float) -> None:
        note(f"training the victim {name}: step {step:,} of {of:,}, loss {loss:.2g}")

    return victims.classifier(dataset, name, seed, Training(steps=steps), tell)
