"""Networks trained on images, recorded in float64, to be recovered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recon import data
from recon.networks import Deep, TwoLayer
from recon.victims.planted import random_deep
from recon.victims.training import Training, cross_entropy, fit

TRAINING = Training(steps=3_000, learning_rate=3e-3)


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
    return image_classifier(key, data.digits(split), width)


def image_classifier(key: Any, images: data.Dataset, width: int) -> Trained:
    """The same for any images."""
    network = _trained(key, images, width, images.classes, True, cross_entropy)
    return Trained(network, float(np.mean(_logits(network, images).argmax(1) == images.test.y)))


def deep_classifier(
    key: Any, images: data.Dataset, hidden: Sequence[int], training: Training = TRAINING
) -> tuple[Deep, float]:
    """The same with several hidden layers, and its accuracy on the test part."""
    sizes = (images.train.x.shape[1], *hidden, images.classes)
    first = lambda key, _: random_deep(key, sizes, 0.0)  # noqa: E731
    net = fit(first, Deep.__call__, cross_entropy, images.train, training, key)
    network = jax.tree.map(lambda a: np.asarray(a, np.float64), net)
    right = network(np.asarray(images.test.x, np.float64)).argmax(1) == images.test.y
    return network, float(right.mean())


def digits_scalar(key: Any, width: int = 32, split: int = 0) -> Trained:
    """Equation 1 of the paper, trained to be positive on the digits 5 to 9, negative on 0 to 4.

    No biases, one output, rows of unit length (assumption 1).  The task, the width and
    the training are our own choices; `split` is the seed of `data.digits`.
    """
    digits = data.digits(split)

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        margin = jnp.where(y >= 5, logits[:, 0], -logits[:, 0])
        return jax.nn.softplus(-margin).mean()

    network = _trained(key, digits, width, 1, False, loss)
    length = np.linalg.norm(network.rows, axis=1)
    network = replace(
        network, rows=network.rows / length[:, None], weights=network.weights * length
    )
    large = _logits(network, digits)[:, 0] > 0
    return Trained(network, float(np.mean(large == (digits.test.y >= 5))))


def _logits(network: TwoLayer, digits: data.Dataset) -> np.ndarray:
    return np.asarray(network(digits.test.x))


def _trained(
    key: Any, digits: data.Dataset, width: int, outputs: int, bias: bool, loss: Callable[..., Any]
) -> TwoLayer:
    from recon import models  # flax is heavy, and only trained victims need it

    model = models.mlp(width, outputs, bias)
    variables = fit(model.init, model.apply, loss, digits.train, TRAINING, key)
    arrays = models.mlp_arrays(variables["params"])
    return TwoLayer(**{name: np.asarray(v, np.float64) for name, v in arrays.items()})
