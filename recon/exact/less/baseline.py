"""What integrated gradients at a baseline and next to it tell of their path, before all else.

At the baseline itself they vanish.  Beside it, where no unit switches, every term of the path is
the gradient J(x0), so that their mean is J(x0) times the sum of the weights, and by the values

    mean (x - x0) = (sum of weights) (f(x) - f(x0)).

So a false baseline shows, weights with another sum, and whether they were rounded to float32.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact import derived
from recon.exact.less import averages
from recon.exact.less.averages import Average
from recon.paths import Path
from recon.replies import Reply, View

NEAR = 2.0**-10  # steps beside the baseline
ALIKE = 1e-5  # relative: numbers that are the same but for rounding
NOTHING = 1e-3  # of integrated gradients beside the baseline: those in it
ELSEWHERE = (
    "Integrated gradients vanish at their baseline, and these do not at the one that is declared: "
    "View(path=Path(baseline=...))."
)


class Told(NamedTuple):
    """The rule with its weights as the service has them, what its terms at the baseline add
    everywhere [K, d], and a sentence where the replies are of another path.
    """

    average: Average
    constant: np.ndarray
    sentence: str = ""


def points(average: Average, rng: np.random.Generator) -> np.ndarray:
    """The baseline and two points [3, d] next to it, on either side; these are float32 numbers."""
    step = NEAR * rng.standard_normal((1, len(average.start)))
    x = average.start[None] + np.concatenate([step, -step])
    return np.concatenate([average.start[None], x.astype(np.float32).astype(np.float64)])


@np.errstate(all="ignore")  # of probabilities that are zero nothing is told
def told(view: View, path: Path, x: np.ndarray, reply: Reply, eps: float) -> Told:
    """What the replies to `points` x tell."""
    both = averages.declared(path, x.shape[1])
    none = np.zeros(reply.gradient.shape[1:])
    if np.abs(reply.gradient[0]).max() > NOTHING * np.abs(reply.gradient[1:]).max():
        return Told(both[0], none, ELSEWHERE)
    step = x[1:] - x[:1]
    mean = averages.centred(view, reply.gradient[1:] / step[:, None])
    f = derived.values(view, reply.value)
    change, said = f[1:] - f[:1], np.einsum("nkd,nd->nk", mean, step)
    sums = (said * change).sum(1) / np.maximum((change**2).sum(1), 1e-300)
    blur = max(ALIKE, 64 * eps / NEAR)
    total = float(both[0].weights.sum())
    shows = np.abs(change).max() > 1e3 * eps * (1 + np.abs(said).max())
    if shows and np.ptp(sums) <= blur and abs(sums.mean() - total) > 100 * blur:
        sentence = (
            f"The weights of the path sum to {sums.mean():.4g}, those of {path} to {total:.4g}"
        )
        return Told(both[0], none, f"{sentence}: another rule?")
    off = [np.abs(sums - rule.weights.sum()).min() for rule in both]
    average = both[int(off[1] < off[0])]
    if np.abs(mean[0] - mean[1]).max() > blur * np.abs(mean).max():
        return Told(average, none)  # units switch in the baseline itself: there they are off
    share = 1 - average.moving / average.weights.sum()
    return Told(average, share * mean[0])
