"""How every trained victim is trained."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon import data

Tell = Callable[[int, int, float], None]  # steps done, steps in all, loss of the last batch

EVERY, SAVED = 100, 500  # steps between two reports, and between two states on disk
MOVED = 4  # pixels that an augmented image is moved by, at most


@dataclass(frozen=True)
class Training:
    """Steps of an optimizer with a cosine decay to zero.

    The paper names no training: all settings are our own.  With `batch` above the number of
    examples, all are a batch.  weight_decay: decoupled; warmup: the share of the steps in which
    the rate rises; augmented: images are moved and flipped at random (`moved`), at every step
    anew; optimizer: a row of `optimizers.OPTIMIZERS`.
    """

    steps: int = 4_000
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.0
    augmented: bool = False
    optimizer: str = "adam"


# 312 steps of 128 images are one pass over the 40,000 of CIFAR-10.
_COLOUR = Training(batch=128, weight_decay=0.05, warmup=0.1, augmented=True)
_EPOCHS = {"vgg11": 8, "vgg11-quarter": 8, "resnet18": 8, "resnet18-half": 5}
TRAININGS: Mapping[tuple[str, str], Training] = MappingProxyType(
    {
        ("cifar10", "conv"): replace(_COLOUR, steps=80 * 312, learning_rate=6e-3, weight_decay=0.0),
    }
    | {
        ("cifar10", deep): replace(
            _COLOUR, steps=epochs * 312, learning_rate=1e-2, optimizer="muon"
        )
        for deep, epochs in _EPOCHS.items()
    }
)


def schedule(dataset: str, model: str) -> Training:
    """How the victims of the experiments are trained: a row of TRAININGS, or the defaults."""
    return TRAININGS.get((dataset, model), Training())


def silent(step: int, steps: int, loss: float) -> None:
    """Tell nobody."""


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """The mean over rows of -log softmax(logits [n, K]) at the labels y [n]."""
    log = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log, y[:, None], axis=1).mean()


def moved(key: Any, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Images x [n, d] of `shape`, each moved by up to MOVED pixels and, by chance, mirrored.

    The usual augmentation of CIFAR-10: what comes in at the sides is black.
    """
    n, (height, width, _) = len(x), shape
    at_key, flip_key = jax.random.split(key)
    around = [(0, 0), (MOVED, MOVED), (MOVED, MOVED), (0, 0)]
    images = jnp.pad(x.reshape(n, *shape), around)
    down, right = jax.random.randint(at_key, (2, n, 1), 0, 2 * MOVED + 1)
    rows, columns = (
        first + jnp.arange(side)[None] for first, side in ((down, height), (right, width))
    )
    mirrored = jax.random.bernoulli(flip_key, shape=(n, 1))
    columns = jnp.where(mirrored, columns[:, ::-1], columns)
    one = jax.vmap(lambda image, rows, columns: image[rows[:, None], columns[None]])
    return one(images, rows, columns).reshape(x.shape)


def fit(
    init: Callable[..., Any],
    f: Callable[[Any, Any], Any],
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    examples: data.Examples,
    training: Training,
    key: Any,
    seed: int | None = None,
    tell: Tell = silent,
    name: str = "the victim",
    shape: tuple[int, ...] = (),
    save: Path | None = None,
) -> Any:
    """Variables, in float32 NumPy arrays, with which loss(f(variables, x), y) is small.

    `key` draws the first weights; `seed`, or the key's own bits, the order of the examples.
    `tell` hears of every 100th step.  `shape` of the images, to augment them.  save: a file for
    the state of every 500th step; if one is there, the training goes on from it, to the same
    bits.  FloatingPointError if the loss is not finite.  A Python loop over a jitted step: on a
    CPU a convolution inside a scan is 10 times slower.
    """
    import optax

    from recon.optimizers import OPTIMIZERS

    rise = int(training.warmup * training.steps)
    rate = optax.warmup_cosine_decay_schedule(
        0.0 if rise else training.learning_rate, training.learning_rate, rise, training.steps
    )
    optimizer = optax.chain(
        OPTIMIZERS[training.optimizer],
        optax.add_decayed_weights(training.weight_decay),
        optax.scale_by_learning_rate(rate),
    )

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(variables: Any, state: Any, x: jax.Array, y: jax.Array, key: Any) -> Any:
        if training.augmented:
            x = moved(key, x, shape)
        value, gradient = jax.value_and_grad(lambda variables: loss(f(variables, x), y))(variables)
        updates, state = optimizer.update(gradient, state, variables)
        return optax.apply_updates(variables, updates), state, value

    x, y = examples
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)) if seed is None else seed)
    batch, order = min(training.batch, len(y)), np.zeros(0, np.int64)
    # The same victim whatever precision is in force; optax mixes its int count with floats.
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        variables = jax.jit(init)(key, jnp.zeros(x.shape[1]))
        start, (variables, state) = _resumed(save, (variables, optimizer.init(variables)))
        for done in range(1, training.steps + 1):
            if len(order) < batch:  # a new epoch; the last incomplete batch is left out
                order = random.permutation(len(y))
            rows, order = order[:batch], order[batch:]
            if done <= start:
                continue
            part = np.asarray(x[rows], np.float32)
            fold = jax.random.fold_in(key, done)
            variables, state, value = step(variables, state, part, y[rows], fold)
            if done % EVERY == 0 or done == training.steps:
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the training of {name} has loss {float(value)} after step {done}; a "
                        "smaller learning rate may help"
                    )
                tell(done, training.steps, float(value))
            if save is not None and done % SAVED == 0 and done < training.steps:
                store(save, {"done": np.int64(done)} | leaves((variables, state)))
    return jax.tree.map(np.asarray, variables)


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def store(path: Path, arrays: Mapping[str, Any]) -> None:
    """An .npz file, written whole or not at all; where that fails a warning says what follows."""
    part = path.with_suffix(".part.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(part, **arrays)
        part.replace(path)
    except OSError as error:
        warnings.warn(
            f"{path} cannot be written ({error.strerror}): this victim is trained again next "
            "time; set RECON_CACHE to a folder with room",
            stacklevel=3,
        )


def stored(path: Path | None, template: Any) -> tuple[dict[str, Any], Any] | None:
    """What `store` wrote beside a tree's leaves, and the tree shaped as the template.

    None if there is nothing, or nothing of use.
    """
    if path is None:
        return None
    try:
        # opened here, as np.load leaves a damaged file open
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            found = dict(file)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None
    expected = leaves(template)
    fits = expected.keys() <= found.keys() and all(
        found[name].shape == leaf.shape for name, leaf in expected.items()
    )
    if not fits:
        return None
    tree = jax.tree.unflatten(jax.tree.structure(template), [found.pop(name) for name in expected])
    return found, tree


def _resumed(save: Path | None, fresh: Any) -> tuple[int, Any]:
    """The steps done and the state after them: those on disk, or none and the fresh one."""
    found = stored(save, fresh)
    if found is None or "done" not in found[0]:
        return 0, fresh
    return int(found[0]["done"]), jax.tree.map(jnp.asarray, found[1])
