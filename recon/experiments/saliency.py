"""Appendix D of the paper, which is missing from it: how many points and how much noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from recon import data, explanations, victims
from recon.experiments.common import Measured, Row, columns
from recon.experiments.students import load

BRIGHT = 0.5  # a pixel above this is part of what is drawn


@dataclass(frozen=True)
class Saliency(Measured):
    """Saliency maps by SmoothGrad over its points N and its noise sigma.

    Claim:   the paper picked "the hyperparameters for SmoothGrad that produced the best saliency
             maps" (section 5.1) in an appendix that is not printed; the criterion here is ours.
    Time:    1 minute on 2 CPU cores.
    Expect:  more noise moves the maps of the convolutional network to what is drawn, up to
             sigma = 0.2; those of the two-layer network hardly change.

    A map is |g|, the smoothed gradient of the largest logit.  It is good if it lies where the
    image is drawn: `inside` is the share of sum |g| on bright pixels and their eight neighbours,
    `repeat` the cosine of two maps with different noise; both are means over images that are held
    out of the victim's training part, and in no other part.  Chosen: the sigma with the largest
    mean of `inside` over victims, where N is largest; then the least N whose `repeat` is `steady`
    for all victims.  points 0 is the plain gradient.  `map` are the grey levels of the first
    image's map, in hexadecimal, up to its 99th percentile; without a victim, of the image itself.
    """

    shown: ClassVar[tuple[str, ...]] = columns("victim points sigma inside repeat chosen")
    x64: ClassVar[bool] = False
    victims: tuple[str, ...] = ("mlp", "conv")
    """Victims, whose maps are scored."""
    points: tuple[int, ...] = (5, 20, 50)
    """N."""
    sigmas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)
    """Standard deviations, in units of a pixel's range."""
    steady: float = 0.95
    """The least mean cosine of two maps of the same image."""
    images: int = 1_000
    """Images that are explained."""
    dataset: str = "mnist"
    """The data set: mnist or digits."""
    held_out: int = 10_000
    """Training images that the victim does not see; the first are explained."""
    victim_steps: int | None = None
    """Training steps of the victim."""
    seed: int = 0
    """Seed of the victim and the noise."""

    def small(self) -> Saliency:
        """Digits, one victim, a small grid."""
        few = replace(self, victims=("mlp",), dataset="digits", victim_steps=500)
        return replace(few, points=(5, 20), sigmas=(0.1, 0.4), images=50, held_out=200)

    def rows(self) -> Iterator[Row]:
        """One a victim, N and sigma; DataError where the data is missing."""
        dataset = load(self.dataset, self.held_out)
        x = jnp.asarray(dataset.test.x[: self.images], jnp.float32)
        drawn = jnp.asarray(_drawn(np.asarray(x), dataset.shape), jnp.float32)
        rows = [_row(None, None, None, None, None, x[0])]
        for victim in self.victims:
            rows += self._victim(dataset, victim, x, drawn)
        best = choose(rows, self.steady)
        for row in rows:
            chosen = (row["points"], row["sigma"]) == best
            names = {"dataset": dataset.name, "height": dataset.shape[0]}
            yield names | row | {"chosen": chosen}

    def _victim(self, dataset: data.Dataset, name: str, x: Any, drawn: Any) -> list[Row]:
        training = victims.schedule(self.dataset, name)
        training = replace(training, steps=self.victim_steps or training.steps)
        victim = victims.classifier(dataset, name, self.seed, training)
        f = partial(victim.f, victim.variables)
        plain = jax.jit(jax.vmap(lambda x: explanations.top_gradient(f, x)))(x)
        rows = [_row(name, 0, 0.0, _inside(plain, drawn), 1.0, plain[0])]
        split = partial(jax.random.split, num=len(x))
        keys = jax.vmap(split)(jax.random.split(jax.random.key(self.seed)))
        for n in self.points:
            explain = partial(explanations.smooth_top_gradient, f, n=n)
            each = jax.jit(
                lambda keys, sigma, explain=explain: jax.lax.map(
                    lambda at: explain(at[0], at[1], sigma=sigma), (x, keys), batch_size=20
                )
            )
            for sigma in self.sigmas:
                one, two = (each(k, sigma) for k in keys)
                both = jnp.linalg.norm(one, axis=1) * jnp.linalg.norm(two, axis=1)
                cosine = float(jnp.mean(jnp.sum(one * two, axis=1) / both))
                rows.append(_row(name, n, sigma, _inside(one, drawn), cosine, one[0]))
        return rows


def choose(rows: list[Row], steady: float) -> tuple[int, float]:
    """N and sigma by the criterion of `Saliency`; the largest N where none is steady."""
    scored = [row for row in rows if row["points"]]
    most = max(row["points"] for row in scored)
    totals: dict[float, float] = {}
    for row in scored:
        if row["points"] == most:
            totals[row["sigma"]] = totals.get(row["sigma"], 0.0) + row["inside"]
    sigma = max(totals, key=totals.__getitem__)
    least: dict[int, float] = {}
    for row in scored:
        if row["sigma"] == sigma:
            least[row["points"]] = min(row["repeat"], least.get(row["points"], 1.0))
    return min((n for n, cosine in least.items() if cosine >= steady), default=most), sigma


def _drawn(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Whether a pixel of x [n, d] or one of its eight neighbours is bright, [n, d]."""
    height, width = shape[:2]
    bright = np.pad((x.reshape(-1, *shape) > BRIGHT).any(axis=3), ((0, 0), (1, 1), (1, 1)))
    shifts = [bright[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    near = np.any(shifts, axis=0)[..., None]
    return np.broadcast_to(near, (len(x), *shape)).reshape(len(x), -1)


def _inside(maps: jax.Array, drawn: jax.Array) -> float:
    size = jnp.abs(maps)
    return float(jnp.mean(jnp.sum(size * drawn, axis=1) / jnp.sum(size, axis=1)))


def _row(victim: Any, points: Any, sigma: Any, inside: Any, repeat: Any, shown: Any) -> Row:
    """A row without its data set; `shown` [d] is drawn as its map."""
    size = np.abs(np.asarray(shown))
    levels = np.clip(255 * size / max(float(np.quantile(size, 0.99)), 1e-30), 0, 255)
    row = {"victim": victim, "points": points, "sigma": sigma, "inside": inside, "repeat": repeat}
    return row | {"map": levels.astype(np.uint8).tobytes().hex()}
