"""What a service answers: what it declares (`View`), the answer itself, checked, and its cost."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from recon.explanations import EXPLANATIONS, OUTPUTS, SHOWN, Explanation, axes, numbers
from recon.paths import Path

TOLERANCE = 0.05  # of a sum of probabilities: services round, but logits do not sum to one


class Reply(NamedTuple):
    """Answers to n queries: `value` [n, K] and `gradient` [n, K, d] (d value_k / d x).

    Where the view says so, a value is a label [n, 1], a label with its logit [n, 2] or None, and a
    gradient [n, d] or None, in the form that it is shown in.
    """

    value: Any
    gradient: Any

    @property
    def finite(self) -> bool:
        """Whether all numbers are, where both parts are shown."""
        return all(bool(np.isfinite(part).all()) for part in self)


@dataclass(frozen=True)
class Cost:
    """What an attack asked of its oracle.

    gradients: rows answered with value and gradient; values: rows answered with
    the value alone; numbers: floats received; rounds: batched round trips.
    """

    gradients: int = 0
    values: int = 0
    numbers: int = 0
    rounds: int = 0

    @property
    def queries(self) -> int:
        """Rows asked, of either kind."""
        return self.gradients + self.values

    def __mul__(self, times: int) -> Cost:
        """All of it, so many times."""
        return Cost(*(times * getattr(self, f.name) for f in fields(self)))

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class ReplyError(ValueError):
    """A reply that cannot be used; the message names the query row."""


class ViewError(ValueError):
    """A view that makes no sense, or that a method cannot use."""


@dataclass(frozen=True)
class View:
    """What a service declares that it returns for an input.

    outputs: a row of `explanations.OUTPUTS`, "values" for the numbers of a regression;
    explanation: a row of `explanations.EXPLANATIONS`, or "none"; of: what the explanation is of,
    "logits" (which stands for the values of a regression too), "probabilities" or
    "log_probabilities"; path: of integrated gradients, by default Captum's; shown: a row of
    `explanations.SHOWN`, the form that the explanation is shown in.  ViewError for other words, and
    for a service that returns nothing.
    """

    outputs: str = "logits"
    explanation: str = "jacobian"
    of: str = "logits"
    path: Path | None = None
    shown: str = "plain"

    def __post_init__(self) -> None:
        for name, known in (
            ("outputs", [*OUTPUTS]),
            ("explanation", [*EXPLANATIONS, "none"]),
            ("of", ["logits", "probabilities", "log_probabilities"]),
            ("shown", [*SHOWN]),
        ):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise ViewError(f"a view has no {name} {given!r}; there are {', '.join(known)}")
        if self.outputs == self.explanation == "none":
            raise ViewError(
                "a service that returns neither outputs nor an explanation is no victim"
            )
        if self.outputs == "values" and self.of != "logits":
            raise ViewError(f"a regression has no {self.of} to explain; leave `of` as it is")
        if self.explanation == "integrated_gradients":
            object.__setattr__(self, "path", self.path or Path())
        elif self.path is not None:
            raise ViewError(f"{self.explanation} has no path; leave `path` as it is")

    @property
    def explain(self) -> Explanation:
        """The explanation as a function of (f, x, key)."""
        function: Any = EXPLANATIONS[self.explanation]
        explain: Explanation = function if self.path is None else partial(function, path=self.path)
        return explain

    @property
    def axes(self) -> int:
        """Axes of the explanations of n queries: 3 [n, K, d], 2 [n, d], 0 for none."""
        return 0 if self.explanation == "none" else 1 + axes(self.explanation)

    @property
    def gradient(self) -> bool:
        """Whether the explanations are gradients of logits, smoothed or not, rounded or not."""
        averaged = self.explanation in ("jacobian", "top", "smoothgrad", "smooth_top")
        return averaged and self.of == "logits" and SHOWN[self.shown].match is SHOWN["plain"].match

    def __str__(self) -> str:
        shown = "no explanation" if not self.axes else f"{self.explanation} of {self.of}"
        shown += f" by {self.path}" if self.path is not None else ""
        if self.axes and self.shown != "plain":
            shown += f" as {self.shown}"
        return f"{'no outputs' if self.outputs == 'none' else self.outputs}, {shown}"


PLAIN = View()  # logits and their Jacobian


def check(
    reply: Any,
    n: int,
    dim: int,
    known: int | None = None,
    view: View = PLAIN,
    first: int = 0,
) -> Reply:
    """The reply as arrays of the shapes its view has, or a ReplyError that names the row.

    A scalar network may answer [n] or [n, 1] with [n, d].  known: the outputs K of earlier
    replies, if there were any; first: the number of the first row, for the messages.
    """
    if not isinstance(reply, tuple | list) or len(reply) != 2:
        raise ReplyError(f"the view is {view}; a reply must be a pair, not {type(reply).__name__}")
    value, gradient = (None if part is None else np.asarray(part) for part in reply)
    for name, array, shown in (
        ("values", value, view.outputs != "none"),
        ("gradients", gradient, view.axes > 0),
    ):
        if (array is not None) != shown:
            has = "none" if array is None else f"some {array.shape}"
            raise ReplyError(f"the view is {view}; the reply has {name}: {has}")
        if array is not None and not jnp.issubdtype(array.dtype, jnp.number):
            raise ReplyError(f"{name} are {array.dtype}, not numbers")
    outputs = None
    if value is not None:
        value = _columns(value, n)
        outputs = value.shape[1]
        if known not in (None, outputs):
            raise ReplyError(f"{outputs} outputs, where earlier replies had {known}")
    if gradient is not None:
        classes = None if view.outputs in ("label", "top") else outputs
        gradient = _gradients(gradient, n, classes, dim, view)
    if value is not None:
        check_values(value, view, first)
    if gradient is not None:
        bad = ~np.isfinite(gradient).reshape(n, -1).all(axis=1)
        if bad.any():
            raise ReplyError(f"query row {first + int(bad.argmax())}: the gradient is not finite")
    return Reply(value, gradient)


def _columns(value: np.ndarray, n: int) -> np.ndarray:
    """Values [n] or [n, K] as [n, K]."""
    value = value[:, None] if value.ndim == 1 else value
    if value.ndim != 2 or value.shape[0] != n or not value.shape[1]:
        raise ReplyError(f"values have shape {value.shape}, expected ({n}, K) for {n} query rows")
    return value


def _gradients(
    gradient: np.ndarray, n: int, outputs: int | None, dim: int, view: View
) -> np.ndarray:
    try:
        dim = numbers(view.shown, dim)
    except ValueError as error:
        raise ReplyError(f"the view is {view}: {error}") from None
    if view.axes == 3 and gradient.ndim == 2 and outputs == 1:
        gradient = gradient[:, None, :]
    elif view.axes == 2 and gradient.shape == (n, 1, dim):
        gradient = gradient[:, 0]
    classes = gradient.shape[1] if outputs is None and gradient.ndim == 3 else outputs
    want = (n, classes, dim) if view.axes == 3 else (n, dim)
    if gradient.shape != want:
        hint = ""
        if view.axes == 3 and gradient.shape == (n, dim):
            hint = '; the gradient of one class is View(explanation="top")'
        shape = f"({', '.join('K' if a is None else str(a) for a in want)})"
        raise ReplyError(f"gradients have shape {gradient.shape}, expected {shape}{hint}")
    return gradient


def check_values(value: np.ndarray, view: View = PLAIN, first: int = 0) -> np.ndarray:
    """Values [n, K] that are finite and what the view says, or a ReplyError that names the row."""

    def refuse(bad: Any, what: str) -> None:
        if bad.any():
            row = int(bad.argmax())
            raise ReplyError(f"query row {first + row}: {what} ({value[row].tolist()})")

    refuse(~np.isfinite(value).all(axis=1), "the value is not finite")
    if view.outputs == "label":
        odd = (value != np.round(value)) | (value < 0) | (value.shape[1] != 1)
        refuse(odd.any(axis=1), "a label is one whole number from 0 on, not")
    if view.outputs == "top":
        odd = (value[:, 0] != np.round(value[:, 0])) | (value[:, 0] < 0) | (value.shape[1] != 2)
        refuse(odd, "a label, a whole number from 0 on, and its logit are expected, not")
    if view.outputs in ("probabilities", "log_probabilities"):
        odds = value.astype(np.float64)
        odds = np.exp(odds) if view.outputs == "log_probabilities" else odds
        name = view.outputs.replace("_", "-")
        refuse((odds < -1e-6).any(axis=1), f"{name} below 0: are these logits?")
        if value.shape[1] == 1:
            refuse(odds[:, 0] > 1 + TOLERANCE, f"{name} above 1: are these logits?")
        else:
            refuse(abs(odds.sum(axis=1) - 1) > TOLERANCE, f"{name} that do not sum to 1")
    return value
