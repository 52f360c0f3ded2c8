"""Queries bought once, and what the victim replied; a budget is a number of leading rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from recon import explanations
from recon.oracles import Cost


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "probabilities", "gradient", "label", "unlabelled"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Bank:
    """N queries in the order they were drawn, so that 10 of them are among 100 of them.

    x [N, d]; probabilities [N, K], the victim's; gradient [N, K, d] (a Jacobian of the logits,
    smoothed or not), [N, d] (the gradient of one class's logit) or None (membership queries);
    label [N], the victim's class, and the class an [N, d] gradient belongs to; unlabelled [M, d],
    inputs the victim was not asked about, or None.
    """

    x: Any
    probabilities: Any
    gradient: Any
    label: Any
    unlabelled: Any = None

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def cost(self, budget: int) -> Cost:
        """What the first `budget` rows cost; a smoothed gradient is one query of the service."""
        if not 0 <= budget <= len(self):
            raise ValueError(f"a budget of {budget} queries is not in 0 ... {len(self)}, the bank")
        outputs = self.probabilities.shape[1]
        if self.gradient is None:
            return Cost(values=budget, numbers=budget * outputs, rounds=1)
        size = self.gradient[0].size + outputs
        return Cost(gradients=budget, numbers=budget * size, rounds=1)

    def top(self) -> Bank:
        """The gradient of the victim's class alone, [N, d], from whole Jacobians."""
        if self.gradient is None or self.gradient.ndim != 3:
            raise ValueError("only a bank of whole Jacobians [N, K, d] holds the top class's rows")
        rows = jnp.take_along_axis(self.gradient, self.label[:, None, None], axis=1)
        return replace(self, gradient=rows[:, 0])

    def hard(self) -> Bank:
        """Class labels instead of probabilities: a service that names a class only."""
        outputs = self.probabilities.shape[1]
        hard = jax.nn.one_hot(self.label, outputs, dtype=self.probabilities.dtype)
        return replace(self, probabilities=hard)


def buy(
    f: Callable[[jax.Array], jax.Array],
    x: Any,
    explain: explanations.Explanation | None = explanations.jacobian,
    key: Any = None,
    chunk: int = 100,
) -> Bank:
    """Ask the victim f, x [d] -> logits [K], for every row of x [N, d], `chunk` rows at a time.

    `explain` is a row of EXPLANATIONS, or None for membership queries; its noise is drawn
    from `key`, one key a row, so a row's reply does not depend on how many are bought.
    ValueError where x is not [N, d] with N >= 1, or not of floats, and for a chunk below 1.
    """
    x = jnp.asarray(x)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"queries have shape {x.shape}, expected (N, d) with N >= 1")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"queries are {x.dtype}, expected floats")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    key = jax.random.key(0) if key is None else key

    @jax.jit
    def ask(x: jax.Array, rows: jax.Array) -> tuple[jax.Array, Any]:
        keys = jax.vmap(partial(jax.random.fold_in, key))(rows)
        logits = jax.vmap(f)(x)
        return logits, None if explain is None else jax.vmap(partial(explain, f))(x, keys)

    # A loop, not lax.map: see training.advance on convolutions inside a scan.
    rows = jnp.arange(len(x))
    parts = [ask(x[i : i + chunk], rows[i : i + chunk]) for i in range(0, len(x), chunk)]
    logits = jnp.concatenate([part[0] for part in parts])
    return Bank(
        x=x,
        probabilities=jax.nn.softmax(logits),
        gradient=None if explain is None else jnp.concatenate([part[1] for part in parts]),
        label=jnp.argmax(logits, axis=1),
    )
