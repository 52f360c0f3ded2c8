"""A line or segment: what is expected on it, and what a search has seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Known(NamedTuple):
    """Kinks expected on a line, in order: places t [m], unit normals [m, d], jumps [m, K].

    normals point along the line; a jump that was never seen is nan.
    """

    t: np.ndarray
    normal: np.ndarray
    jump: np.ndarray


class Kink(NamedTuple):
    """Where the tangent changes: at x [d] = u + t v, J after - J before = jump normal^T."""

    t: float
    x: np.ndarray
    normal: np.ndarray  # [d], of length one, with normal v > 0
    jump: np.ndarray  # [K]


@dataclass(frozen=True)
class Track:
    """What a search of u + t v has seen: points t [n] in order, the replies there, and the kinks.

    seen: places of expected kinks that the replies bear out.  lost: intervals that hold kinks
    which were not told apart.
    """

    u: np.ndarray
    v: np.ndarray
    ends: tuple[float, float]
    t: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    kinks: tuple[Kink, ...]
    seen: tuple[float, ...]
    lost: int

    @property
    def x(self) -> np.ndarray:
        """Points asked [n, d]."""
        return self.u + self.t[:, None] * self.v
