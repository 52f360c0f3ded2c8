"""What a service that shows the top class was asked and answered, and what it may yet be asked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recon import oracles, probe
from recon.exact.asking import Spent, roundoff
from recon.exact.less.odds import FEW_DIGITS, ROUGH, Unreadable
from recon.oracles import AnyOracle, Cost

SUMS = 1e-9  # of the largest gradient: what rounding leaves of a sum of rows
SHOWN = 1e-8  # of the largest gradient: a coefficient that is not rounding
ROUNDING = 256.0  # eps of the largest gradient: what a difference must exceed to be one


@dataclass
class Log:
    """All replies in the order asked: x [n, d], label [n], value [n], gradient [n, d]."""

    oracle: AnyOracle
    dim: int
    budget: float = np.inf
    classes: int = 1  # K at least
    cost: Cost = field(default_factory=Cost)
    eps: float = np.finfo(np.float64).eps
    x: np.ndarray = field(init=False)
    label: np.ndarray = field(init=False)
    value: np.ndarray = field(init=False)
    gradient: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.x = self.gradient = np.zeros((0, self.dim))
        self.value, self.label = np.zeros(0), np.zeros(0, int)

    def ask(self, x: np.ndarray) -> np.ndarray:
        """Ask x [n, d] in one round; their numbers [n].  Raises Spent, ReplyError, and Unreadable
        where the first replies have too few digits.
        """
        first = len(self.x)
        if first + len(x) > self.budget:
            raise Spent
        reply, cost = oracles.ask(self.oracle, x, first)
        self.cost = self.cost + cost
        self.eps = max(self.eps, roundoff(reply.value.dtype, reply.gradient.dtype))
        if not first:
            numbers = np.concatenate([reply.value[:, 1].ravel(), reply.gradient.ravel()])
            if max(self.eps, probe.few_digits(numbers)) > ROUGH:
                raise Unreadable(FEW_DIGITS)
        self.x = np.concatenate([self.x, x])
        self.label = np.concatenate([self.label, reply.value[:, 0].astype(int)])
        self.value = np.concatenate([self.value, reply.value[:, 1].astype(float)])
        self.gradient = np.concatenate([self.gradient, reply.gradient.astype(float)])
        return np.arange(first, len(self.x))

    @property
    def scale(self) -> float:
        """The largest norm of a gradient seen."""
        return float(np.linalg.norm(self.gradient, axis=1).max(initial=0.0))

    @property
    def shown(self) -> float:
        """The weight above which a unit has a part in a gradient."""
        return SHOWN * self.scale

    @property
    def tiny(self) -> float:
        """The norm up to which a difference of gradients is rounding."""
        return ROUNDING * self.eps * self.scale

    def parts(self, rows: np.ndarray) -> np.ndarray | None:
        """Coefficients [n, m] of the gradients in independent rows [m, d]; None where they are not
        sums of them.
        """
        if len(rows) > self.dim:
            return None
        parts, _, rank, _ = np.linalg.lstsq(rows.T, self.gradient.T)
        left_over = np.linalg.norm(self.gradient - parts.T @ rows, axis=1).max(initial=0.0)
        return parts.T if rank == len(rows) and left_over <= SUMS * self.scale else None
