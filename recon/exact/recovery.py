"""What every exact method returns: a network with a status, its cost and a certificate."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from recon.networks import Network
from recon.oracles import Cost


class Status(enum.Enum):
    """How a recovery ended; the value is the sentence a person reads."""

    RECOVERED = "Recovered and certified on fresh queries."
    OTHER_WIDTH = (
        "Recovered and certified on fresh queries, with a number of units other than the "
        "width given (repeated or collinear units count once)."
    )
    BUDGET = "The query budget ran out first; the network, if any, is partial."
    CONVOLUTIONS = (
        "The convolutions were recovered, and explain the gradients at fresh inputs; the dense "
        "layers behind them were not."
    )
    UNCERTIFIED = (
        "Not certified: fresh queries do not bear the network out, as where the victim is not a "
        "ReLU network that can be found, has units this search could not see, or answers in too "
        "few digits."
    )
    NOISY = (
        "The replies are not piecewise linear along a line to within their rounding error: "
        "the victim is not a ReLU network, its explanations are noisy, or its values and "
        "gradients do not belong together."
    )
    UNFIT = "The replies do not fit; a few queries tell."
    SEARCH_FAILED = "The binary search found fewer gradient changes on the line than units."
    UNSOLVED = "No points X as Algorithm 1b needs were found: the recovered rows are dependent."

    @property
    def ok(self) -> bool:
        return self in (Status.RECOVERED, Status.OTHER_WIDTH)


CONFIDENCE = 0.95
EVIDENCE = math.log(1 / (1 - CONFIDENCE))  # points met times the share that can yet be wrong
ONCE = 0.7  # of 1 - CONFIDENCE, for the first test; half of what is left for each that follows
COARSE = 1e-4  # eps above which rounding is as large as units: half precision
TOO_COARSE = (
    "Such replies have too few digits to tell units from rounding. Ask the model in float32, its "
    "parameters cast to float32."
)
CONSTANT = (
    "All replies are few digits, without a gradient: what the network says beside them may be lost "
    "in rounding. Ask for more digits, or elsewhere."
)


def promise(eps: float) -> float:
    """Half of the digits of replies with rounding unit eps: what `Recovery.ok` promises."""
    return eps**0.5


@dataclass(frozen=True)
class Recovery:
    """The outcome of a recovery; `ok` is True only for a certified network.

    network: what was found (partial or None where status is not ok); cost: what it took, the
    certificate's own queries included; certificate: the largest error seen on fresh queries
    (inf where it was not reached).  For `exact.recover` that is near the origin and on the
    user's data, and in units of the root mean square (rms) of f there.

    What `ok` promises of `exact.recover`: at standard normal points, and on inputs like the data
    where there were any, f is met to within `promise`(eps) of its rms, 3.5e-4 for replies in
    float32 and 1.5e-8 in float64; and no deviation on any fresh query, near or far, was larger
    than rounding makes it.  Where inputs were told to be of different scale, standard normal
    points are those of the scaled inputs.  Half precision is never `ok`.

    fresh: standard normal points that were asked once the network stood, and met: with 95 %
    confidence it is wrong on at most `share` of such inputs.  With `data`, normal in units of its
    spread; where scales were guessed, in units of these as well; in a box, uniform; behind a
    softmax, those where it does not saturate.  A network of two layers has all of its kinks on
    planes that lines cross, and is known by these: there `share` is what is known of a victim that
    has more layers.
    """

    network: Network | None
    status: Status
    cost: Cost
    certificate: float = float("inf")
    detail: str = ""
    fresh: int = 0

    @property
    def share(self) -> float:
        """Of inputs as `fresh` counts, at most so many are answered wrongly: ln(20) / fresh."""
        return min(1.0, EVIDENCE / max(self.fresh, 1))

    @property
    def ok(self) -> bool:
        return self.status.ok

    def __str__(self) -> str:
        return f"{self.status.value} {self.detail}".strip()


def repeated(fresh: int, failed: int) -> int:
    """How many points a test is to have that follows `failed` ones that were not passed.

    A network that is mended until it passes has several chances to pass wrongly: the points are
    so many that all of them together are as likely as one in a single test of `fresh` points.
    """
    return math.ceil(fresh * _times(failed))


def single(asked: int, failed: int) -> int:
    """How many points `asked` are worth in a test that follows `failed` ones: of a single test."""
    return math.floor(asked / _times(failed))


def _times(failed: int) -> float:
    part = (1 - ONCE) / 2**failed if failed else ONCE
    return 1 - math.log(part) / EVIDENCE
