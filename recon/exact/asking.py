"""What attacks share in asking: their arguments, budgets and single replies."""

# ruff: noqa: E741  (l is the paper's name)

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon.exact import arrays
from recon.exact.recovery import Recovery, Status
from recon.networks import Deep, Network, TwoLayer
from recon.oracles import AnyOracle, Cost, HostOracle, check

LARGE = 1e60  # outputs beyond, or below one over it, are asked in another unit


class Spent(Exception):
    """The budget does not cover the next queries; none of them was asked."""


class OffScale(Exception):
    """Outputs so large or small that squares are no numbers; unit: the power of two nearest to
    their size, cost: what it took to see.
    """

    def __init__(self, unit: float, cost: Cost) -> None:
        self.unit, self.cost = unit, cost


def check_scale(numbers: np.ndarray, cost: Cost) -> None:
    """OffScale where the numbers, in float64, are; zeros tell nothing."""
    size = float(np.abs(numbers).max(initial=0.0))
    if 0 < size < np.inf and not 1 / LARGE < size < LARGE:
        raise OffScale(float(2.0 ** np.round(np.log2(size))), cost)


def in_units(oracle: AnyOracle, unit: float) -> AnyOracle:
    """The oracle with its outputs and gradients divided by a power of two."""
    if isinstance(oracle, HostOracle):
        values = None if oracle.value_fn is None else _Divided(oracle.value_fn, unit)
        return replace(oracle, fn=_Divided(oracle.fn, unit), value_fn=values)
    return replace(oracle, f=_Divided(oracle.f, unit))


def of_units(network: Network | None, unit: float) -> Network | None:
    """The network of outputs that were divided by a unit."""
    if isinstance(network, TwoLayer):
        parts = ("weights", "slope", "offset")
        return replace(network, **{name: getattr(network, name) * unit for name in parts})
    if isinstance(network, Deep):
        weights = (*network.weights[:-1], network.weights[-1] * unit)
        return replace(
            network, weights=weights, biases=(*network.biases[:-1], network.biases[-1] * unit)
        )
    return network


@dataclass(frozen=True)
class _Divided:
    """f with what it returns over a unit."""

    f: Any
    unit: float

    def __call__(self, *given: Any) -> Any:
        return jax.tree.map(lambda a: a / self.unit, self.f(*given))


def theorem2_constants(width: int, delta: float, separation: float) -> tuple[float, float]:
    """(eps, l) with which Algorithm 1a succeeds with probability 1 - delta (Theorem 2).

    delta is split evenly between Lemma 2 (close kinks) and Lemma 3 (far kinks).  The printed
    l = h^2 cannot reach a delta below 2 / (pi h), and the printed sum has a sign wrong.
    """
    if not (0 < delta < 1 and 0 < separation <= 1):
        raise ValueError(f"delta {delta} must lie in (0, 1) and separation {separation} in (0, 1]")
    return separation * (delta / 2) ** 1.5 / (9 * width**3), 4 * width / (math.pi * delta)


def settings(
    dim: int,
    width: int,
    delta: float,
    separation: float,
    eps: float | None,
    reach: float | None,
    budget: int | None,
) -> tuple[float, float]:
    """Checked (eps, l), by Theorem 2 where they are not given."""
    check_sizes(dim, width)
    default_eps, default_l = theorem2_constants(width, delta, separation)
    eps, l = default_eps if eps is None else eps, default_l if reach is None else reach
    if not (0 < eps < math.inf and 0 < l < math.inf):
        raise ValueError(f"eps {eps} and reach {l} must be positive and finite")
    if budget is not None and budget < 0:
        raise ValueError(f"budget {budget} must not be negative")
    return eps, l


def check_sizes(dim: int, width: int) -> None:
    """ValueError unless both are at least one."""
    if dim < 1 or width < 1:
        raise ValueError(f"dim {dim} and width {width} must be at least 1")


def check_arguments(dim: int, width: int | None, budget: int | None) -> None:
    """ValueError for numbers that make no sense."""
    check_sizes(dim, 1 if width is None else width)
    if budget is not None and budget < 0:
        raise ValueError(f"budget {budget} must not be negative")


def check_scalar(outputs: int) -> None:
    """ValueError unless K = 1."""
    if outputs != 1:
        raise ValueError(f"the oracle answers K = {outputs} outputs; the paper's networks have one")


def refusal(dim: int, width: int, left: int | None) -> Recovery | None:
    """The outcome where asking anything would be in vain: assumption 3, or no budget."""
    if width > dim:
        detail = f"{width} rows in {dim} dimensions cannot be independent; nothing was asked."
        return Recovery(None, Status.UNSOLVED, Cost(), detail=detail)
    if left is not None and left < 2:
        return Recovery(None, Status.BUDGET, Cost(), detail="Nothing was asked.")
    return None


def seed(key: Any) -> np.ndarray:
    """What seeds NumPy's generators, from a JAX key or a whole number; TypeError for others."""
    return arrays.host_key(jax_key(key))


def jax_key(key: Any) -> jax.Array:
    """The JAX key, made from a whole number where it is one."""
    return jax.random.key(int(key)) if isinstance(key, (int, np.integer)) else key


def ask_values(oracle: AnyOracle, x: np.ndarray) -> tuple[np.ndarray, float, Cost]:
    """Checked values [n] of a scalar oracle at x [n, d], in float64; their roundoff and cost."""
    value = oracle.values(x)
    check_scalar(value.shape[1])
    cost = Cost(values=len(x), numbers=len(x), rounds=1)
    return value[:, 0].astype(np.float64), roundoff(value.dtype), cost


def ask_gradient(oracle: AnyOracle, x: np.ndarray) -> tuple[float, np.ndarray, float, Cost]:
    """Checked value and gradient [d] of a scalar oracle at x [d]; their roundoff and cost."""
    reply = check(oracle(jnp.asarray(x)[None]), 1, len(x))
    check_scalar(reply.value.shape[1])
    rounding = roundoff(reply.value.dtype, reply.gradient.dtype)
    cost = Cost(gradients=1, numbers=1 + len(x), rounds=1)
    return float(reply.value[0, 0]), reply.gradient[0, 0].astype(np.float64), rounding, cost


def roundoff(*dtypes: Any) -> float:
    """The coarsest machine epsilon among the dtypes."""
    return max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
