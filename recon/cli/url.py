"""recon attack --url: one attack on a service over HTTP."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recon import ledger, service
from recon.cli.model import attacked
from recon.exact.recovery import Recovery
from recon.oracles import AnyOracle
from recon.replies import View
from recon.reports.owner import Subject
from recon.victims.brought import Brought, web


@dataclass(frozen=True)
class FromUrl:
    """A service over HTTP, in place of a random network."""

    url: str | None = None
    """Recover the model of the service at this address; say its inputs with --dim."""
    shows: str = "logits"
    """What the values of the service are: logits, values, probabilities, log_probabilities, ..."""
    of: str = "logits"
    """What the service explains: logits, probabilities, log_probabilities."""
    explains: str = "jacobian"
    """How it does: jacobian, top (of the largest class), input_x_gradient, smoothgrad, ...;
    integrated_gradients are Captum's 50 steps from zero."""
    shown: str = "plain"
    """In which form: plain, absolute, digits_4, heat_map, ...: the words are those of `View`."""
    contract: Literal["recon", "torchserve", "vertex"] = "recon"
    """How its requests and replies look (recon.victims.brought.web)."""
    ledger: Path | None = None
    """Keep every reply in this file; run again, the attack goes on and asks nothing twice."""
    most_rows: int | None = None
    """Most queries in a request."""
    timeout: float = 30.0
    """Seconds to wait for a reply; what fails in passing is tried five times."""
    box: tuple[float, float] | None = None
    """Ask only where every input is between these two."""
    whole: bool = False
    """Ask at whole numbers alone, as where inputs are pixels: with --box 0 255."""
    check: int = 0
    """Ask about so many inputs more, after the attack, to hold the network against the service."""

    @property
    def given(self) -> list[str]:
        """The options that were set."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]

    def run(
        self, dim: int, seed: int, budget: int | None, data: np.ndarray | None
    ) -> tuple[dict[str, Any], Recovery, Subject]:
        """`attacked`; ValueError for what cannot be attacked, OSError for no service or ledger."""
        assert self.url is not None
        if self.check < 0:
            raise ValueError(f"--check must be at least 0, not {self.check}")
        most_rows = None if self.ledger is not None else self.most_rows
        view = View(self.shows, self.explains, self.of, shown=self.shown)
        with web.connections(self.url, self.timeout) as client:
            oracle: AnyOracle = service.patient(
                web.oracle(
                    self.url,
                    view=view,
                    contract=self.contract,
                    most_rows=most_rows,
                    client=client,
                )
            )
            if self.ledger is not None:
                oracle = ledger.kept(
                    oracle, self.ledger, service=self.url, most_rows=self.most_rows
                )
            victim = Brought(oracle, dim, f"the service at {self.url}")
            return attacked(victim, self.url, seed, budget, data, self.box, self.check, self.whole)
