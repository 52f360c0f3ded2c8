"""Image classifiers to attack: the models of recon.models, trained once and kept on disk."""

from __future__ import annotations

import hashlib
import math
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon import data, oracles

Tell = Callable[[int, int, float], None]  # steps done, steps in all, loss of the last batch

FORMAT = 1  # of what is kept: raise it when training changes, so that nothing old is taken
EVERY = 100  # steps between two reports
PINNED = Path(__file__).parents[2] / "results" / "victims"  # in a checkout: those of the tables


@dataclass(frozen=True)
class Training:
    """Adam with a cosine decay to zero, cross-entropy, no augmentation.

    The paper names no training; these settings are our own, the same for every model and data
    set, and were not tuned.  With `batch` above the number of examples, all are a batch.
    """

    steps: int = 4_000
    batch: int = 64
    learning_rate: float = 2e-3


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


def _silent(step: int, steps: int, loss: float) -> None:
    """Tell nobody."""


def classifier(
    dataset: data.Dataset,
    model: str,
    seed: int = 0,
    training: Training | None = None,
    tell: Tell = _silent,
    keep: bool = True,
) -> Classifier:
    """The model `model` of `models.MODELS`, trained on the train part of `dataset`.

    `seed` draws the first weights and the order of the examples.  With `keep` the result is
    looked for in PINNED, and looked for and kept in `data.cache_folder()`: under a digest of the
    examples, the model's sizes, the seed and the training.  `tell` hears of every 100th step.
    ValueError for a model that does not exist; FloatingPointError if the loss is not finite.
    """
    from recon import models  # flax is heavy, and only trained victims need it

    training = training or Training()
    module = models.build(model, dataset.shape, dataset.classes)
    f = models.logits(module)
    with jax.enable_x64(False):
        template = jax.eval_shape(
            module.init, jax.random.key(0), jnp.zeros(math.prod(dataset.shape))
        )
    path = _path(dataset, model, (FORMAT, module, seed, training))
    kept = (_load(PINNED / path.name, template) or _load(path, template)) if keep else None
    if kept is None:
        # The same victim whatever precision is in force; optax mixes its int count with floats.
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
            variables = _train(model, module.init, f, dataset, seed, training, tell)
            kept = variables, accuracy(f, variables, dataset.test)
        if keep:
            _save(path, *kept)
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


def _train(
    model: str,
    init: Callable[..., Any],
    f: Callable[[Any, Any], Any],
    dataset: data.Dataset,
    seed: int,
    training: Training,
    tell: Tell,
) -> Any:
    """A Python loop over a jitted step: on CPU a convolution inside a scan is 10 times slower."""
    import optax

    optimizer = optax.adam(optax.cosine_decay_schedule(training.learning_rate, training.steps))

    @jax.jit
    def step(variables: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        def objective(variables: Any) -> jax.Array:
            log = jax.nn.log_softmax(f(variables, x))
            return -jnp.take_along_axis(log, y[:, None], axis=1).mean()

        loss, gradient = jax.value_and_grad(objective)(variables)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, updates), state, loss

    x, y = dataset.train
    variables = jax.jit(init)(jax.random.key(seed), jnp.zeros(x.shape[1]))
    state = optimizer.init(variables)
    random = np.random.default_rng(seed)
    batch = min(training.batch, len(y))
    order = np.zeros(0, np.int64)
    for done in range(1, training.steps + 1):
        if len(order) < batch:  # a new epoch; the last incomplete batch is left out
            order = random.permutation(len(y))
        rows, order = order[:batch], order[batch:]
        variables, state, loss = step(variables, state, np.asarray(x[rows], np.float32), y[rows])
        if done % EVERY == 0 or done == training.steps:
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the training of {model} on {dataset.name} has loss {float(loss)} after "
                    f"step {done}; a smaller learning rate may help"
                )
            tell(done, training.steps, float(loss))
    return jax.tree.map(np.asarray, variables)


def _path(dataset: data.Dataset, model: str, settings: Any) -> Path:
    digest = hashlib.sha256(repr(settings).encode())
    for part in (dataset.train, dataset.test):
        for array in part:
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    name = f"{dataset.name}-{model}-{digest.hexdigest()[:16]}.npz"
    return data.cache_folder() / "victims" / name


def _named(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _save(path: Path, variables: Any, accuracy: float) -> None:
    """Written whole or not at all; a victim that cannot be kept is still returned, and said so."""
    part = path.with_suffix(".part.npz")
    arrays: dict[str, Any] = _named(variables) | {"accuracy": np.float64(accuracy)}
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


def _load(path: Path, template: Any) -> tuple[Any, float] | None:
    """What is kept at `path`, or None if there is nothing, or nothing of use."""
    try:
        # opened here, as np.load leaves a damaged file open
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            kept = dict(file)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None
    accuracy = kept.pop("accuracy", None)
    expected = _named(template)
    fits = kept.keys() == expected.keys() and all(
        kept[name].shape == leaf.shape for name, leaf in expected.items()
    )
    if accuracy is None or not fits:
        return None
    leaves = [kept[name] for name in expected]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), float(accuracy)
