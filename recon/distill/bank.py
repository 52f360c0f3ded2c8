"""Queries bought once, and what the victim replied; a budget is a number of leading rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon import explanations, oracles
from recon.distill import declared
from recon.oracles import AnyOracle, Cost, HostOracle, Oracle, View

NOTHING = Cost()
OF_ONE = {"jacobian": "top", "smoothgrad": "smooth_top"}  # explanations of the class alone


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "probabilities", "gradient", "label", "unlabelled", "values"],
    meta_fields=["chunk", "told", "view", "before", "repeats"],
)
@dataclass(frozen=True, repr=False)
class Bank:
    """N queries in the order they were drawn, so that 10 of them are among 100 of them.

    x [N, d]; probabilities [N, K], the victim's, of which one, K = 1, is a binary classifier's for
    class 1; gradient [N, K, d] (a Jacobian of the logits, smoothed or not), [N, d] (the gradient of
    one class's logit) or None (membership queries); label [N], the victim's class, and the class an
    [N, d] gradient belongs to; unlabelled [M, d], inputs the victim was not asked about, or None.
    Of a regression the values [N, K] stand in place of probabilities and labels, which are None.
    chunk: rows asked together, None: all; told: numbers of a reply beside its gradient, None: K;
    view: what the service shows, where that is known: `gradient` is then what it says, [N, K, d']
    or [N, d']; before: what was asked before the first row;
    repeats: how often each row was asked for.
    """

    x: Any
    probabilities: Any
    gradient: Any
    label: Any
    unlabelled: Any = None
    values: Any = None
    chunk: int | None = None
    told: int | None = None
    view: View | None = None
    before: Cost = NOTHING
    repeats: int = 1

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def __repr__(self) -> str:
        parts = {
            f.name: np.shape(getattr(self, f.name))
            for f in fields(self)
            if f.name not in ("view", "before", "repeats")
        }
        return (
            f"Bank({', '.join(f'{name} {list(shape)}' for name, shape in parts.items() if shape)})"
        )

    @property
    def outputs(self) -> Any:
        """What the student's outputs are held against: probabilities, or a regression's values."""
        return self.probabilities if self.values is None else self.values

    def cost(self, budget: int) -> Cost:
        """What the first `budget` rows cost, and what was asked before them; a smoothed gradient is
        one query of the service.
        """
        if not 0 <= budget <= len(self):
            raise ValueError(f"a budget of {budget} queries is not in 0 ... {len(self)}, the bank")
        said = self.outputs.shape[1] if self.told is None else self.told
        rounds = -(-budget // (self.chunk or max(1, budget)))
        if self.gradient is None:
            rows = Cost(values=budget, numbers=budget * said, rounds=rounds)
            return self.before + rows * self.repeats
        numbers = budget * (self.gradient[0].size + said)
        rows = Cost(gradients=budget, numbers=numbers, rounds=rounds)
        return self.before + rows * self.repeats

    def top(self) -> Bank:
        """The gradient of the victim's class alone, [N, d], from whole Jacobians."""
        if self.gradient is None or self.gradient.ndim != 3 or self.label is None:
            raise ValueError("only a bank of whole Jacobians [N, K, d] holds the top class's rows")
        if self.view is not None and self.view.explanation not in OF_ONE:
            raise ValueError(f"of one class {self.view.explanation} are not bought")
        named = jnp.minimum(self.label, self.gradient.shape[1] - 1)  # of one logit, the one
        rows = jnp.take_along_axis(self.gradient, named[:, None, None], axis=1)
        view = self.view and replace(self.view, explanation=OF_ONE[self.view.explanation])
        return replace(self, gradient=rows[:, 0], view=view)

    def hard(self) -> Bank:
        """Class labels instead of probabilities: a service that names a class only."""
        if self.label is None:
            raise ValueError("a regression names no class")
        return replace(self, probabilities=_named(self.label, self.probabilities), told=1)


def _named(label: Any, like: Any) -> Any:
    """Probabilities 0 and 1 [N, K], shaped as `like`."""
    if like.shape[1] == 1:
        return label[:, None].astype(like.dtype)
    return jax.nn.one_hot(label, like.shape[1], dtype=like.dtype)


def buy(
    oracle: AnyOracle | Callable[[jax.Array], jax.Array],
    x: Any,
    chunk: int | None = 100,
    probe: bool = True,
) -> Bank:
    """Ask the victim for every row of x [N, d], `chunk` rows at a time (None: all at once).

    oracle: `oracles.from_jax` or `oracles.from_host`, whose view says what is bought: gradients
    [N, K, d] or [N, d], smoothed or not, any other explanation in any form, or none (membership
    queries), beside logits, probabilities, their logarithms, labels (with explanations of all
    classes, which say how many there are) or the values of a regression.  A function
    f(x [d]) -> logits [K] stands for from_jax(f).  With `probe` a service of
    `from_host` that explains is first asked seven questions: ViewError, a sentence, where what it
    shows is not what its view says (`declared`); they are in the bank's cost.  What JAX computes
    here is what it is said to be.  Raises
    ReplyError; ViewError for another view; ValueError where x is not [N, d] with N >= 1, or not of
    floats, and for a chunk below 1.
    """
    if not isinstance(oracle, Oracle | HostOracle):
        oracle = oracles.from_jax(oracle)
    view = oracle.view
    oracles.need(oracle, outputs=[*_PROBABILITIES, "label", "values"])
    if view.outputs == "label" and view.axes != 3:
        raise oracles.ViewError("labels alone do not say how many classes there are")
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"queries are {x.dtype}, expected floats")
    before = NOTHING
    if probe and not oracle.traced:
        before = declared.hold(oracle, np.asarray(x), chunk)
    try:
        reply, cost = oracles.ask(oracle, x, chunk=chunk)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise ValueError(
            "JAX cannot trace the victim: give it through oracles.from_host"
        ) from error
    gradient = None if reply.gradient is None else jnp.asarray(reply.gradient, x.dtype)
    if view.outputs == "label":
        assert gradient is not None
        label = jnp.asarray(reply.value[:, 0], jnp.int32)
        probabilities = _named(label, gradient[..., 0])
        bank = Bank(x, probabilities, gradient, label, chunk=chunk, told=1, view=view)
    elif view.outputs == "values":
        values = jnp.asarray(reply.value, x.dtype)
        bank = Bank(x, None, gradient, None, values=values, chunk=chunk, view=view)
    else:
        value = jnp.asarray(reply.value, x.dtype)
        probabilities, even = _PROBABILITIES[view.outputs]
        label = explanations.label(value - even if value.shape[1] == 1 else value)
        probabilities = probabilities(value)
        bank = Bank(x, probabilities, gradient, label, chunk=chunk, view=view)
    bank = replace(bank, repeats=oracle.repeats)
    assert bank.cost(len(bank)) == cost  # the rows of a budget cost what the door counted
    return replace(bank, before=before)


# How outputs become probabilities, and the output of a binary classifier that is undecided.
_PROBABILITIES: dict[str, tuple[Callable[[jax.Array], jax.Array], float]] = {
    "logits": (explanations.probabilities, 0.0),
    "probabilities": (lambda p: p, 0.5),
    "log_probabilities": (jnp.exp, math.log(0.5)),
}
