"""A few queries that tell what a service really answers, before thousands are spent on it.

Two steps beside a generic point, so small that a piecewise linear function hardly ever has a kink
there: the gradient must not change from one to the next, and it must say how the value does.
Where it does not, the replies tell why: values that sum to one, gradients that are never
negative, that stop at one number, that belong to other outputs, that are new at every step.
Digits that are missing are found here too: float64 numbers that are float32's, or decimals.
At a second point too where steps have to be long, as in float32.  Our own construction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

import numpy as np

from recon.replies import Reply

STEP, COARSE_STEP = 2.0**-20, 2.0**-11  # of a point's size; where replies have float32's digits
ROUNDING = 64.0  # eps: what rounding may explain
MOST, FAR = 6, 2.0**20  # queries; times as far out, where nothing shows
FINE = 1e-10  # eps below which steps are short
CLOSE = 1e-3  # relative, of a change that is as said
ALIKE = 0.9  # cosine of two changes that are alike
CHANCE = -6  # the logarithm of how likely numbers are to end there by rounding to 53 bits
DECIMALS = range(1, 11)
TINY = 1e-300
FEW, MANY = 8, 6  # numbers that say nothing yet; outputs whose orders are tried
SMALL, SAFETY = 1e-6, 8.0  # relative noise that is a lack of digits; how much more there may be
BYTE = 255
PART, RULE = 0.03, 0.15  # relative: sums of explanations over the inputs; of integrated ones
SHARE = 0.02  # of gradients that are the largest one, above which they are clipped


class Finding(NamedTuple):
    """What the replies say: a sentence why no attack fits, or nothing; and their rounding unit."""

    sentence: str
    eps: float


def points(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, eps: float) -> np.ndarray:
    """Queries [n, d] from low to high [d]: x, x + e, x + 2 e, y; if coarse, y + e and y + 2 e."""
    x, a = rng.uniform(-1, 1, (2, 2, 1, len(low)))
    fine = eps < FINE
    step = (STEP if fine else COARSE_STEP) * np.arange(3)[None, :, None]
    z = (x + step * (a - x)).reshape(-1, len(low))[: 4 if fine else 6]
    return np.asarray((low + high)[None] / 2 + (high - low)[None] / 2 * z)


def findings(x: np.ndarray, reply: Reply, eps: float, derived: bool = False) -> Finding:
    """What replies to `points` x say, in float64: values [n, K] and gradients [n, K, d].

    derived: from other replies, so that its numbers tell nothing of their digits.
    """
    value, gradient = reply
    eps = eps if derived else max(eps, digits(reply))
    if (noise := _changes(gradient)[1]) <= SMALL:  # as of finite differences: few digits
        eps = max(eps, SAFETY * noise)
    for test in (odds, _clipped_inputs, products, _curved, unlike):
        if sentence := test(x, value, gradient, eps):
            return Finding(sentence, eps)
    return Finding("", eps)


def digits(reply: Reply) -> float:
    """The rounding unit that float64 replies really have, where they are float32's or decimals."""
    value, gradient = (np.asarray(part, np.float64) for part in reply)
    numbers = np.concatenate([value.ravel(), gradient.ravel()])
    numbers = numbers[(numbers != 0) & (np.abs(numbers) < 1e30)]
    if len(numbers) < FEW:
        return 0.0
    eps = 0.0
    if _short(numbers):
        eps = float(np.finfo(np.float32).eps)
    scale = np.linalg.norm(gradient, axis=2).max(initial=0.0)
    if (places := decimals(numbers)) is not None:
        coarse = 10.0**-places * gradient.shape[2] ** 0.5 / 16
        return max(eps, float(coarse / scale) if scale > 0 else eps)
    return eps


def lost(reply: Reply) -> bool:
    """Whether values of few decimals differ where all gradients are zero: these are rounded."""
    values = np.asarray(reply.value, np.float64)
    differ = bool(np.ptp(values, axis=0).any()) and not np.asarray(reply.gradient).any()
    return differ and decimals(values) is not None


def few_digits(value: np.ndarray) -> float:
    """The rounding unit of values that are plainly float32's, or end after few decimals; else 0.

    Probabilities of almost 0 or 1 tell nothing of it.
    """
    numbers = np.unique(value[np.isfinite(value) & (np.abs(value) > SMALL)])
    numbers = numbers[np.abs(numbers - np.round(numbers)) > SMALL]
    if (places := decimals(numbers)) is not None:
        return 10.0**-places
    if len(numbers) < FEW:
        return 0.0
    return float(np.finfo(np.float32).eps) if _short(numbers) else 0.0


def _short(numbers: np.ndarray) -> bool:
    """Whether all are float32's."""
    with np.errstate(over="ignore"):
        return bool((numbers.astype(np.float32) == numbers).all())


def decimals(numbers: np.ndarray) -> int | None:
    """After how many decimals all numbers end, if they do after few, and not for want of digits.

    They may have been kept in float32 after that.
    """
    numbers = np.asarray(numbers, np.float64)
    numbers = numbers[np.abs(numbers) < 1e300]
    unit = float(np.finfo(np.float32 if _short(numbers) else np.float64).eps)
    for places in DECIMALS:
        shifted = numbers * 10.0**places
        blur = np.maximum(1e-9, 4 * unit * np.abs(shifted))
        chance = np.log10(np.minimum(2 * blur, 1.0)).sum()
        if (np.abs(shifted - np.round(shifted)) <= blur).all() and chance < CHANCE:
            return places
    return None


def odds(x: np.ndarray, value: np.ndarray, gradient: np.ndarray, eps: float) -> str:
    """Values that sum to one as probabilities do, and what the gradients then are of."""
    if value.shape[1] < 2:
        return ""
    with np.errstate(over="ignore"):
        kinds = {"probabilities": value, "log_probabilities": np.exp(value)}
    for name, shares in kinds.items():
        if (shares < 0).any() or np.abs(shares.sum(1) - 1).max() > max(1e-6, ROUNDING * eps):
            continue
        of = name
        change = gradient[0] @ (x[1] - x[0])
        log = np.log(np.maximum(shares, 1e-300))
        ways = {"probabilities": shares, "log_probabilities": log, "logits": log}
        for way, shown in ways.items():
            seen = shown[1] - shown[0]
            here = change
            if way == "logits":
                seen, here = seen - seen.mean(), here - here.mean()
            if np.abs(seen - here).max() <= CLOSE * np.abs(here).max():
                of = way
                break
        return (
            f"The values sum to one, as {name.replace('_', '-')} do. Declare them: "
            f'View(outputs="{name}", of="{of}").'
        )
    return ""


def _ways(gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How the gradient changes in the two steps of each place [places, 2, K, d], and by how much
    [places, 2], relative to its own size.
    """
    ways = gradient[: len(gradient) // 3 * 3].reshape(-1, 3, *gradient.shape[1:])
    steps = ways[:, 1:] - ways[:, :-1]
    scale = max(np.linalg.norm(gradient, axis=(1, 2)).max(), TINY)
    return steps, np.linalg.norm(steps, axis=(2, 3)) / scale


def _changes(gradient: np.ndarray) -> tuple[np.ndarray, float]:
    """Whether the two changes of each place are alike [places], and the size of those by chance:
    zero unless every step changes the gradient and no two do alike.
    """
    steps, sizes = _ways(gradient)
    norms = np.linalg.norm(steps, axis=(2, 3))
    alike = (steps[:, 0] * steps[:, 1]).sum((1, 2)) >= ALIKE * norms[:, 0] * norms[:, 1]
    return alike, 0.0 if alike.any() or not sizes.all() else float(sizes.max())


def products(x: np.ndarray, value: np.ndarray, gradient: np.ndarray, eps: float) -> str:
    """Explanations that add up over the inputs to how the values change: gradients times inputs do
    from step to step, integrated gradients do between points far apart, by as much as their rule
    is exact.
    """
    steady = _ways(gradient)[1].min() <= ROUNDING * eps
    if steady or mismatch(x, value, gradient, eps) <= 1:
        return ""
    total = gradient.sum(2)

    def off(i: int) -> float:
        change = value[i] - value[0]
        size = float(np.linalg.norm(change))
        return float(np.linalg.norm(total[i] - total[0] - change)) / size if size > 0 else np.inf

    if off(2) < PART:
        return (
            "The explanations are gradients times inputs. Declare them: "
            'View(explanation="input_x_gradient").'
        )
    several = value.shape[1] > 1 or _changes(gradient[:3])[0].all()
    if off(3) < RULE and several:
        return (
            "The explanations add up to the change of the values: integrated gradients? Declare "
            'them: View(explanation="integrated_gradients", path=Path(steps, rule, baseline)).'
        )
    return ""


def _curved(x: np.ndarray, value: np.ndarray, gradient: np.ndarray, eps: float) -> str:
    """Gradients that change from step to step: alike, where a function bends, or by chance."""
    alike, noise = _changes(gradient)
    if not alike.any() and noise > ROUNDING * eps:
        return (
            f"Every step changes the gradient, by up to {noise:.1g} of its size, and no two alike: "
            'noise in the explanation, as View(explanation="smoothgrad") has, or dropout left on. '
            "The mean of n replies, service.averaged(oracle, n), has enough digits from "
            f"n = {_rounded((2 * noise / SMALL) ** 2):,} on."
        )
    if not alike.any() or _ways(gradient)[1].min() <= ROUNDING * eps:
        return ""
    if not alike.all():
        return ""
    if mismatch(x, value, gradient, eps) > 1:
        return (
            "The gradient changes with every step, and not as the values do: it is of something "
            "else, as of probabilities (declare View(of=...)), or smoothed."
        )
    if value.shape[1] == 1 and ((value > 0) & (value < 1)).all():
        return (
            "One value between 0 and 1 that bends with every step: a probability? Declare it: "
            'View(outputs="probabilities", of="probabilities").'
        )
    return (
        "The gradient changes with every step, however small: the model is not piecewise linear "
        "(GELU, tanh or sigmoid units?), or it smooths its explanations."
    )


def _rounded(number: float) -> int:
    """The number to one digit, from above."""
    unit = 10 ** max(0, math.floor(math.log10(number)))
    return math.ceil(number / unit) * unit


def _steps(
    x: np.ndarray, value: np.ndarray, gradient: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each step: how the values change [K], and how the gradients say they do."""
    steps = [(i, i + 1) for first in range(0, len(x) - 2, 3) for i in (first, first + 1)]
    for i, j in steps:
        said = (gradient[i] + gradient[j]) / 2 @ (x[j] - x[i])
        yield value[j] - value[i], said


def mismatch(
    x: np.ndarray, value: np.ndarray, gradient: np.ndarray, eps: float, close: float = CLOSE
) -> float:
    """The least deviation of a step's change from what the gradients say, over what rounding is,
    and a share `close` of the change.
    """
    scale = np.linalg.norm(gradient, axis=2).max()
    size = np.abs(value).max() + scale * np.linalg.norm(x, axis=1).max()
    return float(
        min(
            np.abs(seen - said).max() / (ROUNDING * eps * size + close * np.abs(said).max() + TINY)
            for seen, said in _steps(x, value, gradient)
        )
    )


def unlike(
    x: np.ndarray, value: np.ndarray, gradient: np.ndarray, eps: float, close: float = CLOSE
) -> str:
    """Gradients that are not those of the values, and what they may be instead."""
    if mismatch(x, value, gradient, eps, close) <= 1:
        return ""
    if gradient.any() and (gradient == np.round(gradient)).all() and np.abs(gradient).max() <= BYTE:
        return (
            "The gradients are whole numbers, as in a picture of an explanation: their scale is "
            "lost, and most of their digits. Ask the service for the numbers."
        )
    if (value == np.round(value)).all():
        return 'The values are whole numbers: labels? Declare them, View(outputs="label").'
    if (gradient >= 0).all() and gradient[0].size > FEW:
        return (
            "No gradient is negative: these are absolute values. The signs are lost; ask for the "
            "gradients themselves."
        )
    largest = np.abs(gradient[0]).max()
    if np.mean(np.abs(gradient[0]) >= largest * (1 - 1e-6)) > max(SHARE, 2 / gradient[0].size):
        return f"Many gradients are {largest:.3g} in size and none is larger: they are clipped."
    outputs = value.shape[1]
    if 1 < outputs <= MANY:
        for order in map(list, permutations(range(outputs))):
            if mismatch(x, value[:, order], gradient, eps, close) <= 1:
                return "The gradients are those of the values in another order of the outputs."
    return (
        "The gradients are not those of the values: a step along them changes the values by "
        "something else. Are they of the same output, of logits, scaled or normalized?"
    )


def _clipped_inputs(x: np.ndarray, value: np.ndarray, gradient: np.ndarray, eps: float) -> str:
    """A service that clips its inputs has no gradient where these are out of range."""
    shown = gradient.any((1, 2))
    x, still = x[shown], (gradient[shown] == 0).all(1)  # [n, d]
    varies = still.any(0) & ~still.all(0)  # inputs that no unit reads are still everywhere
    if varies.sum() < min(FEW, max(3, still.shape[1] // 4)):
        return ""
    low, high = x[~still].min(), x[~still].max()
    seen = x[:, varies][still[:, varies]]
    if not ((seen < low) | (seen > high)).all():
        return ""
    return (
        f"Inputs outside of about {low:.2g} to {high:.2g} make no difference: the service clips "
        "them. Say where it may be asked: box=(low, high)."
    )
