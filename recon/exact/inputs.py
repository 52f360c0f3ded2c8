"""Inputs as the attack sees them: z with x = shift + scale z, for features of any scale.

Random points must move every input by as much as the victim's units are wide in it, or units go
unseen: with one feature in the thousands and one in the thousandths, a standard normal x moves
neither as it should.  The user's own inputs say where they lie and how far they spread; without
them the victim's gradients do, as an input that is measured in small units has large ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from recon.networks import Deep, Network, TwoLayer

INSIDE = 1 - 2.0**-20  # of a box's half side, for queries
FARTHER = 8.0  # times standard normal, beyond which units are of inputs that lie farther
NOTHING = 1e-12  # of the largest weight of an input: what rounding leaves of one that is not used
SPREAD = 64.0  # between the gradients of inputs, above which these are of different scale
LIKELY = 0.05  # probability that inputs of one scale are taken for others, where these are many
LARGEST = 3.2  # of many normal numbers
ALIKE = 1e-3  # of the largest entry: a difference between outputs


@dataclass(frozen=True)
class Inputs:
    """shift [d] and scale [d], powers of two, so that scaling rounds nothing."""

    shift: np.ndarray
    scale: np.ndarray

    def seen(self, x: np.ndarray) -> np.ndarray:
        """z [n, d] of the user's x [n, d]."""
        return (x - self.shift[None]) / self.scale[None]

    @overload
    def restored(self, network: TwoLayer) -> TwoLayer: ...

    @overload
    def restored(self, network: Deep) -> Deep: ...

    def restored(self, network: Network) -> Network:
        """The network as a function of x, the rows of its first layer of length one."""
        if isinstance(network, Deep):
            (first, second, *rest), (start, *biases) = network.weights, network.biases
            rows, bias, after = self._units(first, start, second)
            return Deep((rows, after, *rest), (bias, *biases))
        rows, bias, weights = self._units(network.rows, network.bias, network.weights)
        slope = network.slope / self.scale[None]
        return TwoLayer(rows, bias, weights, slope, network.offset - slope @ self.shift)

    def _units(
        self, rows: np.ndarray, bias: np.ndarray, after: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """rows [h, d], bias [h] of units, and the weights [k, h] after them, as functions of x."""
        rows = rows / self.scale[None]
        length = np.linalg.norm(rows, axis=1)
        length = np.where(length > 0, length, 1.0)
        return rows / length[:, None], (bias - rows @ self.shift) / length, after * length[None]

    def inside(self, network: TwoLayer) -> TwoLayer:
        """The network of x as one of z, its rows of length one: what `restored` undoes."""
        rows = network.rows * self.scale[None]
        length = np.linalg.norm(rows, axis=1)
        length = np.where(length > 0, length, 1.0)
        return TwoLayer(
            rows=rows / length[:, None],
            bias=(network.bias + network.rows @ self.shift) / length,
            weights=network.weights * length[None],
            slope=network.slope * self.scale[None],
            offset=network.offset + network.slope @ self.shift,
        )

    @property
    def blur(self) -> float:
        """How much rounding grows where inputs lie far from zero beside their spread."""
        return float(np.sqrt(1 + np.mean((self.shift / self.scale) ** 2)))


def of_data(data: Any, dim: int) -> tuple[Inputs, np.ndarray]:
    """Means and spreads of the user's inputs [n, d], and these as z; ValueError if they are none.

    An input that never varies gets the median spread.
    """
    x = np.asarray(data)
    if x.ndim != 2 or x.shape[1] != dim or not len(x) or x.dtype.kind not in "biuf":
        raise ValueError(f"data must be numbers of shape [n, {dim}], not {x.dtype} {x.shape}")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError("data must be finite")
    spread = x.std(0)
    varies = spread > 1e-12 * np.abs(x).max(0)
    common = np.median(spread[varies]) if varies.any() else 1.0
    inputs = Inputs(x.mean(0), _power(np.where(varies, spread, common)))
    return inputs, inputs.seen(x)


def of_box(box: Any, dim: int) -> tuple[Inputs, np.ndarray, np.ndarray]:
    """The box as [-1, 1]^d, about, and its lowest and highest z [d]; ValueError if it is none.

    box: (low, high), numbers or [d] each; an input with low = high may not change.
    """
    try:
        low, high = (np.broadcast_to(np.asarray(a, np.float64), (dim,)) for a in box)
    except (TypeError, ValueError):
        raise ValueError(f"box must be (low, high), numbers or {dim} each, not {box!r}") from None
    half = (high - low) / 2
    if not (np.isfinite(half).all() and (half >= 0).all() and half.any()):
        raise ValueError("box must be finite with low <= high, and low < high for some input")
    inputs = Inputs((low + high) / 2, _power(np.where(half > 0, half, 1.0)))
    inside = INSIDE * half / inputs.scale  # so that rounding stays in the box
    return inputs, -inside, inside


def check_whole(box: Any, data: Any) -> None:
    """ValueError unless there is a box between whole numbers, and all data are such."""
    if box is None:
        raise ValueError("whole numbers need a box to be in: box=(0, 255), say")
    for name, given in (("box", box), ("data", data)):
        for part in () if given is None else given:
            if (np.asarray(part) != np.rint(np.asarray(part, np.float64))).any():
                raise ValueError(f"{name} must be whole numbers where the service takes no others")


def of_gradients(gradient: np.ndarray, draws: int = 1) -> Inputs | None:
    """Scales from gradients [n, K, d] that differ by more than SPREAD between inputs, and by more
    than those of d inputs of one scale do by chance (normal numbers); else None.

    draws: how many of the n say something of their own; gradients at points that lie close are one.
    An input without a gradient keeps the median scale, which is one.
    """
    size = np.maximum(gradient.max((0, 1), initial=0.0), -gradient.min((0, 1), initial=0.0))
    used = size > 0
    if not used.any() or size.max() <= SPREAD * size[used].min():
        return None
    outputs = max(np.linalg.matrix_rank(part, ALIKE * size.max()) for part in gradient)
    chance = LARGEST * (len(size) / LIKELY) ** (1 / (draws * max(1, outputs)))
    if size.max() <= chance * size[used].min():
        return None
    median = np.median(size[used])
    return Inputs(np.zeros(len(size)), _power(median / np.where(used, size, median)))


def of_units(network: TwoLayer) -> np.ndarray | None:
    """Scales [d] for inputs by the units found, where these tell of others than one: inputs whose
    weights differ by more than SPREAD, or units that switch farther than FARTHER from the origin.
    """
    strength = np.linalg.norm(network.weights, axis=0)
    size = np.linalg.norm(network.rows * strength[:, None], axis=0)
    used = size > NOTHING * size.max(initial=0.0)
    if not used.any():
        return None
    uneven = size.max() > SPREAD * size[used].min()
    scale = np.median(size[used]) / np.where(used & uneven, size, np.median(size[used]))
    length = np.linalg.norm(network.rows * scale[None], axis=1)
    far = float(np.median(np.abs(network.bias) / np.where(length > 0, length, np.inf)))
    if not uneven and far <= FARTHER:
        return None
    return _power(scale * (far if far > FARTHER else 1.0))


def of_ends(network: TwoLayer, reach: float) -> Inputs | None:
    """One scale for all inputs where half of the units switch so near to the end of a line, at
    `reach` from the origin, that others may lie beyond; else None.
    """
    far = float(np.median(np.abs(network.bias))) if network.width else 0.0
    if far <= max(FARTHER, reach / SPREAD):
        return None
    return Inputs(np.zeros(network.rows.shape[1]), _power(np.full(network.rows.shape[1], far)))


def _power(scale: np.ndarray) -> np.ndarray:
    return np.asarray(2.0 ** np.round(np.log2(scale)))
