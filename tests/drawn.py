"""Random arrays and variables by NumPy: JAX's generators compile for seconds, for each shape."""

import math

import jax
import numpy as np


def normal(random, *shape):
    """Standard normal float32."""
    return random.normal(size=shape).astype(np.float32)


def variables(module, x):
    """Random variables of a flax module for an input; kernels scaled, biases well above zero."""
    random = np.random.default_rng(0)

    def draw(leaf):
        if len(leaf.shape) == 1:  # biases and scales
            return random.uniform(0.5, 1.0, leaf.shape).astype(np.float32)
        return normal(random, *leaf.shape) / np.float32(math.prod(leaf.shape[:-1]) ** 0.5)

    return jax.tree.map(draw, jax.eval_shape(module.init, jax.random.key(0), x))
