"""Intervals of a line: whether they hold several kinks, how many to expect, where to split."""

from __future__ import annotations

import numpy as np

from recon.exact import arrays, lines
from recon.exact.arrays import Array, namespace
from recon.exact.lines import Intervals, Settings, State

WEIGHED = 16  # outputs that `middle` weighs at most
RATES = 32  # rates tried at once


def density(iv: Intervals) -> Array:
    """Kinks per radian, by maximum likelihood from which intervals hold any (Poisson kinks)."""
    xp = namespace(iv.kink)
    length = iv.high - iv.low
    empty = xp.sum(xp.where(iv.kink, 0.0, length))
    length = length[iv.kink] if xp is np else xp.where(iv.kink, length, 0.0)
    steps = xp.linspace(0.0, 1.0, RATES + 1)

    def narrow(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        rate = low * (high / low) ** steps
        x = xp.minimum(rate[:, None] * length[None], 500.0)
        each = length[None] / xp.expm1(xp.where(x > 0, x, 1.0))
        i = xp.clip(xp.sum(xp.sum(each, 1) > empty), 1, RATES)  # it falls as the rate grows
        return rate[i - 1], rate[i]

    low, _ = arrays.loop(3, narrow, (xp.asarray(1e-3), xp.asarray(1e6)))
    return xp.where(empty < 0.1 * np.pi, np.inf, low)


def split_at(s: Settings, state: State, iv: Intervals, coarse: Array, crowd: Array) -> Array:
    """The angle at which to split each interval [N - 1], with so many kinks expected in it.

    Halfway where no interval was seen to be empty, so that any number is expected.  Else first at
    `middle`, if there is one, or just past the meeting point on its longer side: kinks of equal
    sign must part there, and a single kink must answer with the far gradient.  Then nearer the
    middle of what is left; then so close to the meeting point that a single kink is bracketed.
    """
    xp = namespace(iv.left)
    tries = state.tries[iv.left]
    width = iv.high - iv.low
    to_right = iv.high - iv.meet > iv.meet - iv.low
    longer = xp.where(to_right, iv.high - iv.meet, iv.meet - iv.low)
    inside = (iv.low < iv.meet) & (iv.meet < iv.high)
    close = lines.resolution(s) / 8 + 4 * iv.blur
    trust = state.failed < lines.FAILED_TOUCHES
    beside = xp.where(trust & (tries == 0), xp.maximum(1e-2 * width, close), close)
    beside = xp.where(trust & (tries == 1), 0.3 * longer, beside)
    at = iv.meet + xp.where(to_right, beside, -beside)
    outer = xp.where(iv.meet < iv.low, iv.low + 0.3 * width, iv.high - 0.3 * width)
    at = xp.where(inside, at, outer)
    middle = state.middle[iv.left]
    parts = trust & (tries == 0) & state.multi[iv.left] & (iv.low < middle) & (middle < iv.high)
    at = xp.where(parts, middle, at)
    far = xp.where(xp.abs(iv.low) > xp.abs(iv.high), iv.low, iv.high)
    at = xp.where(coarse & inside, (iv.meet + far) / 2, at)
    stuck = (tries >= 4) & (tries % 2 == 1)
    fits = (at > iv.low + 0.01 * close) & (at < iv.high - 0.01 * close) & ~stuck & iv.kink
    fits = fits & (crowd < np.inf)
    return xp.where(fits, at, (iv.low + iv.high) / 2)


def compare(s: Settings, state: State, pairs: Array) -> tuple[Array, Array, Array, Array]:
    """Whether the intervals pairs [c, 2] hold a kink, whether certainly several, the norm of the
    gradients' difference, and the `middle` of several: [c] each.
    """
    xp = namespace(pairs)
    left, right = pairs[:, 0], pairs[:, 1]
    jump = state.gradient[right]
    jump -= state.gradient[left]
    offset, noise = lines.intercepts(state)
    offset = offset[right] - offset[left]
    tiny = lines.ROUNDING * s.eps * state.scale
    noise = (noise[left] + noise[right])[:, None]
    size = xp.sqrt(arrays.squares(jump))
    differs = (size > tiny) | (xp.abs(offset) > noise).any(1)
    if s.outputs == 1:
        return differs, xp.zeros_like(differs), size, xp.full_like(size, np.inf)
    # One unit's jump is w n^T with intercept w b: rank one.  From any w that is not
    # orthogonal, D^T w gives n and D n gives w again.
    row = ((jump @ state.v)[:, None, :] @ jump)[:, 0]
    square = xp.sum(row**2, 1)[:, None]
    weight = (jump @ row[:, :, None])[:, :, 0] / xp.where(square > 0, square, 1.0)
    rest = jump - weight[:, :, None] * row[:, None, :]
    crossing = xp.sum(offset * weight, 1) / xp.maximum(xp.sum(weight**2, 1), 1e-300)
    apart = xp.abs(offset - crossing[:, None] * weight) > 4 * noise + tiny
    several = (xp.sqrt(xp.sum(rest**2, (1, 2))) > 4 * tiny) | apart.any(1)
    along = (state.along[right] - state.along[left]) + xp.stack([offset, 0 * offset], 2)
    return differs, differs & several, size, middle(jump, along)


def middle(jump: Array, along: Array) -> Array:
    """An angle [c] among the kinks of each interval, whatever their signs and sizes (K > 1).

    jump [c, K, d]: the gradients' differences D = sum_i w_i n_i^T; along [c, K, 2]: those of the
    tangents' values at u and slopes along v.  Where the tangents meet depends on how outputs are
    weighed.  In many dimensions rows are nearly orthogonal, so D D^T = sum_i |n_i|^2 w_i w_i^T; in
    the metric of its inverse the weights of up to K units are orthogonal too, and the tangents
    meet at the mean of the kinks weighted by (n_i v)^2 / |n_i|^2: between the first and the last.
    By plain least squares a strong unit and a weak one of opposite weights meet outside of both.
    Our own construction.
    """
    xp = namespace(jump)
    if jump.shape[1] > WEIGHED:
        mix = np.random.default_rng(0).standard_normal((WEIGHED, jump.shape[1]))
        jump, along = (xp.asarray(mix)[None] @ a for a in (jump, along))
    gram = jump @ xp.swapaxes(jump, 1, 2)
    floor = 1e-6 * xp.trace(gram, axis1=1, axis2=2)[:, None, None] + 1e-300
    weighed = xp.linalg.solve(gram + floor * xp.eye(gram.shape[1])[None], along[:, :, 1:])
    value, slope = xp.moveaxis(xp.sum(weighed * along, 1), 1, 0)
    return xp.arctan(-value / xp.where(slope > 0, slope, 1.0))
