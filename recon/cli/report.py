"""recon attack --report: a page for the owner of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax

from recon.exact.recovery import Recovery
from recon.reports import owner


@dataclass(frozen=True)
class Reporting:
    """A report on the attack, for the owner of the model."""

    report: Path | None = None
    """Write a report here: what leaked and what that took, a figure, and the network as files."""
    price: float | None = None
    """Of one query, for the report."""
    compare: bool = False
    """Run the paper's two methods too, for the report, where they are defined for the model."""

    def check(self) -> None:
        """Make the folder; ValueError, before anything is asked, for what makes no sense."""
        given = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        if self.report is None and given:
            raise ValueError(f"--{given[0]} is for the report: give --report")
        if self.price is not None and not (math.isfinite(self.price) and self.price >= 0):
            raise ValueError(f"a price of {self.price} a query makes no sense")
        if self.report is not None:
            owner.check_folder(self.report)

    def write(self, subject: owner.Subject, got: Recovery, seconds: float, seed: int) -> Path:
        """Ask the model once more, openly, and write; the path of the page."""
        assert self.report is not None
        key: Any = jax.random.key(seed) if self.compare else None
        facts = owner.measure(subject, got, seconds, self.price, key)
        return owner.write(self.report, facts | {"seed": seed}, got.network)
