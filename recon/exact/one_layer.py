"""One-layer models from one gradient query: linear (section 1.1) and logistic (footnote 2)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from recon.exact.asking import (
    ask_gradient,
    ask_values,
    check_sizes,
)
from recon.oracles import AnyOracle, Cost


def learn_linear(oracle: AnyOracle, dim: int) -> tuple[np.ndarray, Cost]:
    """w [d] of f(x) = <w, x> from one gradient query (Introduction: w is the gradient anywhere).

    Our addition: one value at a fresh point, counted.  ValueError if it shows another model.
    """
    check_sizes(dim, 1)
    with jax.enable_x64(True):
        x, y = _generic(dim)
        value, w, rounding, cost = ask_gradient(oracle, x)
        (fresh,), _, fresh_cost = ask_values(oracle, y[None])
    for point, found in ((x, value), (y, fresh)):
        wrong = abs(found - w @ point)
        if wrong > 64 * rounding * np.linalg.norm(w) * np.linalg.norm(point):
            raise ValueError(f"the model is not <w, x>: a value is off by {wrong:.3g}")
    return w, cost + fresh_cost


def learn_logistic(
    oracle: AnyOracle, dim: int, x: np.ndarray | None = None
) -> tuple[np.ndarray, Cost]:
    """w [d] of f(x) = sigmoid(<w, x>) as gradient / (f (1 - f)) at x [d] (footnote 2).

    The paper's one gradient and one membership query are at the same point, so one reply
    answers both; the origin, the default, is where the sigmoid is steepest.  Our addition: one
    value at a fresh point, counted.  ValueError if f is saturated at x or is another model.
    """
    check_sizes(dim, 1)
    x = np.zeros(dim) if x is None else np.asarray(x, np.float64)
    if x.shape != (dim,):
        raise ValueError(f"x has shape {x.shape}, expected ({dim},)")
    with jax.enable_x64(True):
        value, gradient, rounding, cost = ask_gradient(oracle, x)
        steepness = value * (1 - value)
        if not steepness > 2 * rounding:
            raise ValueError(f"no gradient to read w from: f = {value!r} at x is saturated")
        w = gradient / steepness
        _, y = _generic(dim)
        if (length := np.linalg.norm(w)) > 0:  # <w, y> about 1, and not along w alone
            y = (w / length + y / np.linalg.norm(y)) / length
        (fresh,), _, fresh_cost = ask_values(oracle, y[None])
    wrong = abs(fresh - 1 / (1 + math.exp(-(w @ y))))
    if wrong > 64 * rounding / steepness:
        raise ValueError(f"the model is not sigmoid(<w, x>): a value is off by {wrong:.3g}")
    return w, cost + fresh_cost


def _generic(dim: int) -> np.ndarray:
    """Two points [2, d] in general position, always the same."""
    return np.asarray(jax.random.normal(jax.random.key(0), (2, dim), jnp.float64))
