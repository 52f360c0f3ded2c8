"""Image classifiers to attack: the models of recon.models, trained once and kept on disk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon import data, oracles
from recon.victims.training import (
    Tell,
    Training,
    cross_entropy,
    fit,
    leaves,
    schedule,
    silent,
    store,
    stored,
)

FORMAT = 1  # of what is kept: raise it when training changes, so that nothing old is taken
PINNED = Path(__file__).parents[2] / "results" / "victims"  # in a checkout: those of the tables


@dataclass(frozen=True)
class Classifier:
    """A trained victim: x [d] -> logits [K].

    variables: flax variables in float32 NumPy arrays; accuracy: on the test part of its data set,
    in [0, 1]; f: (variables, x [..., d]) -> logits [..., K].
    """

    dataset: str
    model: str
    seed: int
    f: Callable[[Any, Any], Any]
    variables: Any
    accuracy: float

    @property
    def oracle(self) -> oracles.Oracle:
        """The victim as attacks see it: logits and their Jacobian."""
        return oracles.from_jax(self.f, self.variables)


def classifier(
    dataset: data.Dataset,
    model: str,
    seed: int = 0,
    training: Training | None = None,
    tell: Tell = silent,
    keep: bool = True,
) -> Classifier:
    """The model `model` of `models.MODELS`, trained on the train part of `dataset`.

    `seed` draws the first weights and the order of the examples.  With `keep` the result is
    looked for in PINNED, and looked for and kept in `data.cache_folder()`: under a digest of the
    examples, the model's sizes, the seed and the training.  `tell` hears of every 100th step.
    ValueError for a model that does not exist; FloatingPointError if the loss is not finite.
    """
    from recon import models  # flax is heavy, and only trained victims need it

    training = training or schedule(dataset.name, model)
    module = models.build(model, dataset.shape, dataset.classes)
    f = models.logits(module)
    with jax.enable_x64(False):
        template = jax.eval_shape(
            module.init, jax.random.key(0), jnp.zeros(math.prod(dataset.shape))
        )
    path = _path(dataset, model, (FORMAT, module, seed, training))
    kept = (_load(PINNED / path.name, template) or _load(path, template)) if keep else None
    if kept is None:
        name, key = f"{model} on {dataset.name}", jax.random.key(seed)
        part = dataset.train
        half = path.with_suffix(".state.npz") if keep else None
        run = training, key, seed, tell, name, dataset.shape, half
        variables = fit(module.init, f, cross_entropy, part, *run)
        kept = variables, accuracy(f, variables, dataset.test)
        if half is not None:
            store(path, leaves(variables) | {"accuracy": np.float64(kept[1])})
            if half.is_file():
                half.unlink()
    return Classifier(dataset.name, model, seed, f, *kept)


def accuracy(
    f: Callable[[Any, Any], Any], variables: Any, examples: data.Examples, chunk: int = 1_000
) -> float:
    """The share of `examples` whose largest logit is the label's; `chunk` are held at once."""
    right = 0
    predict = jax.jit(lambda variables, x: f(variables, x).argmax(axis=-1))
    with jax.enable_x64(False):
        for start in range(0, len(examples.y), chunk):
            rows = slice(start, start + chunk)
            label = predict(variables, jnp.asarray(examples.x[rows], jnp.float32))
            right += int(np.sum(np.asarray(label) == examples.y[rows]))
    return right / len(examples.y)


def sizes() -> list[dict[str, Any]]:
    """A row for each model: its name and how many parameters it has for each data set."""
    from recon import models

    return [
        {"model": name}
        | {kind: models.parameters(name, shape, 10) for kind, shape in data.SHAPES.items()}
        for name in models.MODELS
    ]


def _path(dataset: data.Dataset, model: str, settings: Any) -> Path:
    digest = hashlib.sha256(repr(settings).encode())
    for part in (dataset.train, dataset.test):
        for array in part:
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    name = f"{dataset.name}-{model}-{digest.hexdigest()[:16]}.npz"
    return data.cache_folder() / "victims" / name


def _load(path: Path, template: Any) -> tuple[Any, float] | None:
    """What is kept at `path`, or None if there is nothing, or nothing of use."""
    found = stored(path, template)
    if found is None or found[0].keys() != {"accuracy"}:
        return None
    return found[1], float(found[0]["accuracy"])
