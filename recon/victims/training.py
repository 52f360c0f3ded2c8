"""How every trained victim is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon import data

Tell = Callable[[int, int, float], None]  # steps done, steps in all, loss of the last batch

EVERY = 100  # steps between two reports


@dataclass(frozen=True)
class Training:
    """Adam with a cosine decay to zero, no augmentation.

    The paper names no training; these settings are our own, the same for every classifier and
    data set, and were not tuned.  With `batch` above the number of examples, all are a batch.
    """

    steps: int = 4_000
    batch: int = 64
    learning_rate: float = 2e-3


def silent(step: int, steps: int, loss: float) -> None:
    """Tell nobody."""


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """The mean over rows of -log softmax(logits [n, K]) at the labels y [n]."""
    log = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log, y[:, None], axis=1).mean()


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
) -> Any:
    """Variables, in float32 NumPy arrays, with which loss(f(variables, x), y) is small.

    `key` draws the first weights; `seed`, or the key's own bits, the order of the examples.
    `tell` hears of every 100th step.  FloatingPointError if the loss is not finite.  A Python loop
    over a jitted step: on a CPU a convolution inside a scan is 10 times slower.
    """
    import optax

    optimizer = optax.adam(optax.cosine_decay_schedule(training.learning_rate, training.steps))

    @jax.jit
    def step(variables: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        value, gradient = jax.value_and_grad(lambda variables: loss(f(variables, x), y))(variables)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, updates), state, value

    x, y = examples
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)) if seed is None else seed)
    batch, order = min(training.batch, len(y)), np.zeros(0, np.int64)
    # The same victim whatever precision is in force; optax mixes its int count with floats.
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        variables = jax.jit(init)(key, jnp.zeros(x.shape[1]))
        state = optimizer.init(variables)
        for done in range(1, training.steps + 1):
            if len(order) < batch:  # a new epoch; the last incomplete batch is left out
                order = random.permutation(len(y))
            rows, order = order[:batch], order[batch:]
            part = np.asarray(x[rows], np.float32)
            variables, state, value = step(variables, state, part, y[rows])
            if done % EVERY == 0 or done == training.steps:
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the training of {name} has loss {float(value)} after step {done}; a "
                        "smaller learning rate may help"
                    )
                tell(done, training.steps, float(value))
    return jax.tree.map(np.asarray, variables)
