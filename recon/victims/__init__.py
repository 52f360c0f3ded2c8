"""Victims to attack: random networks with a planted truth, and networks trained on images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recon import data, oracles
from recon.networks import TwoLayer
from recon.victims.classifiers import Classifier, Training, classifier, sizes

__all__ = [
    "KINDS",
    "Classifier",
    "Trained",
    "Training",
    "TwoLayer",
    "classifier",
    "digits_classifier",
    "digits_scalar",
    "oracle_of",
    "random_network",
    "random_outside",
    "sizes",
]


def random_network(
    key: Any, dim: int, width: int, outputs: int = 1, bias: bool = False
) -> TwoLayer:
    """A random two-layer network that meets the paper's assumptions (1-3) almost surely.

    Rows are uniform on the unit sphere (assumption 1), weights standard normal; with
    `bias`, hidden and output biases are standard normal too.  The distributions are our
    own choice, the paper names none.  Float64 under `jax.enable_x64(True)`.
    """
    row_key, weight_key, bias_key, offset_key = jax.random.split(key, 4)
    rows = jax.random.normal(row_key, (width, dim))
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    return TwoLayer(
        rows=rows,
        bias=jax.random.normal(bias_key, (width,)) if bias else jnp.zeros(width),
        weights=jax.random.normal(weight_key, (outputs, width)),
        slope=jnp.zeros((outputs, dim)),
        offset=jax.random.normal(offset_key, (outputs,)) if bias else jnp.zeros(outputs),
    )


def oracle_of(network: TwoLayer) -> oracles.Oracle:
    """The oracle of a recorded network; all of one shape share a compiled attack."""
    return oracles.from_jax(TwoLayer.__call__, network)


def _biases(key: Any, dim: int, width: int) -> TwoLayer:
    return random_network(key, dim, width, bias=True)


def _wide(key: Any, dim: int, width: int) -> TwoLayer:
    return random_network(key, dim, 3 * dim)


def _outputs(key: Any, dim: int, width: int) -> TwoLayer:
    return random_network(key, dim, width, outputs=10)


def _faint(key: Any, dim: int, width: int) -> TwoLayer:
    network = random_network(key, dim, width)
    return replace(network, weights=network.weights.at[:, 0].set(1e-9))


def _far(key: Any, dim: int, width: int) -> TwoLayer:
    network = random_network(key, dim, width)
    return replace(network, bias=network.bias.at[0].set(-1e6))


def _paired(key: Any, dim: int, width: int, sign: float) -> TwoLayer:
    """Every odd unit's row is `sign` times the row before it.

    The first, third, ... pair share their hyperplane, the others are parallel.
    """
    network = random_network(key, dim, width, bias=True)
    first = np.arange(0, width - 1, 2)
    same = first[::2]
    return replace(
        network,
        rows=network.rows.at[first + 1].set(sign * network.rows[first]),
        bias=network.bias.at[same + 1].set(sign * network.bias[same]),
    )


KINDS: dict[str, Callable[[Any, int, int], TwoLayer]] = {
    "biases": _biases,
    "wide": _wide,
    "antiparallel": partial(_paired, sign=-1.0),
    "repeated": partial(_paired, sign=1.0),
    "faint": _faint,
    "far": _far,
    "outputs": _outputs,
}


def random_outside(key: Any, kind: str, dim: int, width: int) -> TwoLayer:
    """A random two-layer network outside the paper's assumptions; the kinds are our own choice.

    biases: hidden and output biases; wide: 3 `dim` units, whatever `width` says;
    antiparallel, repeated: units in pairs whose rows are negatives or copies, the pairs
    in turn on one hyperplane and on two parallel ones; faint: unit 0 has weight 1e-9;
    far: unit 0 is off within 1e6 of the origin; outputs: 10 outputs.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind](key, dim, width)


class Trained(NamedTuple):
    """A trained victim in float64 NumPy arrays, and its accuracy on the test part in [0, 1]."""

    network: TwoLayer
    accuracy: float


def digits_classifier(key: Any, width: int = 32, split: int = 0) -> Trained:
    """A one-hidden-layer ReLU classifier with biases: 64 pixels to 10 logits.

    `split` is the seed of `data.digits`.  Trained in float32 and recorded in float64,
    so an attack at float64 sees an exactly piecewise linear function.  The width and
    the training are our own choices.
    """
    digits = data.digits(split)

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()

    network = _train(key, digits.train, width, digits.classes, bias=True, loss=loss)
    return Trained(network, float(np.mean(_logits(network, digits).argmax(1) == digits.test.y)))


def digits_scalar(key: Any, width: int = 32, split: int = 0) -> Trained:
    """Equation 1 of the paper, trained to be positive on the digits 5 to 9, negative on 0 to 4.

    No biases, one output, rows of unit length (assumption 1).  The task, the width and
    the training are our own choices; `split` is the seed of `data.digits`.
    """
    digits = data.digits(split)

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        margin = jnp.where(y >= 5, logits[:, 0], -logits[:, 0])
        return jax.nn.softplus(-margin).mean()

    network = _train(key, digits.train, width, 1, bias=False, loss=loss)
    length = np.linalg.norm(network.rows, axis=1)
    network = replace(
        network, rows=network.rows / length[:, None], weights=network.weights * length
    )
    large = _logits(network, digits)[:, 0] > 0
    return Trained(network, float(np.mean(large == (digits.test.y >= 5))))


def _logits(network: TwoLayer, digits: data.Dataset) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(jax.vmap(network)(digits.test.x))


def _train(
    key: Any,
    train: data.Examples,
    width: int,
    outputs: int,
    bias: bool,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    steps: int = 3000,
    batch: int = 64,
) -> TwoLayer:
    """Adam with a cosine decay on random batches, in one scan; a second or two on a CPU."""
    import optax

    from recon import models  # flax is heavy, and only trained victims need it

    model = models.mlp(width, outputs, bias)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    @jax.jit
    def fit(key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        init_key, batch_key = jax.random.split(key)
        params: Any = model.init(init_key, x[:1])["params"]

        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, state = carry
            rows = jax.random.randint(key, (batch,), 0, len(x))

            def objective(params: Any) -> jax.Array:
                logits: Any = model.apply({"params": params}, x[rows])
                return loss(logits, y[rows])

            gradient = jax.grad(objective)(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(batch_key, steps)
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
        return params

    # The same victim whatever precision is in force; optax mixes its int count with floats.
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        params = fit(key, jnp.asarray(train.x, jnp.float32), train.y)
    arrays = {k: np.asarray(v, np.float64) for k, v in models.mlp_arrays(params).items()}
    return TwoLayer(**arrays)
