"""Integrated gradients' paths: from a baseline to an input, by a rule of numerical integration.

The rule averages gradients at baseline + share_i (x - baseline) with weights w_i.  Rules are named
and defined as Captum does (captum/attr/_utils/approximation_methods.py), whose default is 50 steps
of "gausslegendre"; the weights of "riemann_trapezoid" sum to 1 - 1 / steps there.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

# The first and the last share of each Riemann sum of n steps.
RIEMANN = {
    "riemann_left": lambda n: (0.0, 1 - 1 / n),
    "riemann_right": lambda n: (1 / n, 1.0),
    "riemann_middle": lambda n: (1 / (2 * n), 1 - 1 / (2 * n)),
    "riemann_trapezoid": lambda n: (0.0, 1.0),
}
RULES = ("gausslegendre", *RIEMANN)


@dataclass(frozen=True)
class Path:
    """What a service declares of its integrated gradients; ValueError for what is none.

    steps: gradients averaged; rule: of RULES; baseline: one number for all inputs, or [d] of them,
    kept as a tuple.
    """

    steps: int = 50
    rule: str = "gausslegendre"
    baseline: Any = 0.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"there is no rule {self.rule!r}; there are {', '.join(RULES)}")
        least = 2 if self.rule in RIEMANN else 1
        if not isinstance(self.steps, (int, np.integer)) or self.steps < least:
            raise ValueError(f"steps must be a whole number of at least {least}, not {self.steps}")
        baseline = np.asarray(self.baseline, np.float64)
        if baseline.ndim > 1 or not np.isfinite(baseline).all():
            raise ValueError(f"a baseline is a number or d of them, not {self.baseline!r}")
        plain = float(baseline) if baseline.ndim == 0 else tuple(baseline.tolist())
        object.__setattr__(self, "baseline", plain)

    def __str__(self) -> str:
        rule, baseline = f"{self.steps} steps of {self.rule}", self.baseline
        if isinstance(baseline, tuple):
            digest = sha256(np.array(baseline).tobytes()).hexdigest()[:12]
            return f"{rule} from {len(baseline)} numbers ({digest})"
        return f"{rule} from {baseline:g}" if baseline else rule

    @property
    def shares(self) -> np.ndarray:
        """Where on the path gradients are taken, [steps] from 0 to 1."""
        if self.rule in RIEMANN:
            return np.linspace(*RIEMANN[self.rule](self.steps), self.steps)
        return 0.5 * (1 + np.polynomial.legendre.leggauss(self.steps)[0])

    @property
    def weights(self) -> np.ndarray:
        """By what they are weighed, [steps]."""
        if self.rule not in RIEMANN:
            return 0.5 * np.polynomial.legendre.leggauss(self.steps)[1]
        weights = np.full(self.steps, 1 / self.steps)
        if self.rule == "riemann_trapezoid":
            weights[[0, -1]] /= 2
        return weights

    def start(self, dim: int) -> np.ndarray:
        """The baseline [d]; ValueError where it has not d numbers."""
        if np.ndim(self.baseline) and len(self.baseline) != dim:
            raise ValueError(f"the baseline has {len(self.baseline)} numbers, inputs have {dim}")
        return np.broadcast_to(np.asarray(self.baseline, np.float64), (dim,))
