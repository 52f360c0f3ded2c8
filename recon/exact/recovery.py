"""What every exact method returns: a network with a status, its cost and a certificate."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from recon.networks import TwoLayer
from recon.oracles import Cost


class Status(enum.Enum):
    """How a recovery ended; the value is the sentence a person reads."""

    RECOVERED = "Recovered and certified on fresh queries."
    OTHER_WIDTH = (
        "Recovered and certified on fresh queries, with a number of units other than the "
        "width given (repeated or collinear units count once)."
    )
    BUDGET = "The query budget ran out before the network was recovered; the network is partial."
    UNCERTIFIED = (
        "Not certified: fresh queries do not bear the network out, as where the victim is not a "
        "two-layer ReLU network, has units this search could not see, or answers in too few digits."
    )
    NOISY = (
        "The replies are not piecewise linear along a line to within their rounding error: "
        "the victim is not a two-layer ReLU network, its explanations are noisy, or its values and "
        "gradients do not belong together."
    )
    SEARCH_FAILED = "The binary search found fewer gradient changes on the line than units."
    UNSOLVED = "No points X as Algorithm 1b needs were found: the recovered rows are dependent."

    @property
    def ok(self) -> bool:
        return self in (Status.RECOVERED, Status.OTHER_WIDTH)


@dataclass(frozen=True)
class Recovery:
    """The outcome of a recovery; `ok` is True only for a certified network.

    network: what was found (partial or None where status is not ok); cost: what it
    took, the certificate's own queries included; certificate: the largest relative
    deviation from the victim on fresh queries (inf where it was not reached).
    """

    network: TwoLayer | None
    status: Status
    cost: Cost
    certificate: float = float("inf")
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.status.ok

    def __str__(self) -> str:
        return f"{self.status.value} {self.detail}".strip()
