"""Which victims of every sort can be told through their view: a mark, made before any attack.

It looks at the victim and its view alone.  A network is marked where what `ok` promises can be
asked for: it is a two-layer one; at least half of its inputs show its logits, as no class is
certain there; every unit is on at some of these and off at others, and so it is where each class
is on top, where only that one is shown; no two units are nearer to each other than digits tell; and
the replies have these digits.  All bars are our own choice.
"""

from __future__ import annotations

import numpy as np

from recon.exact import derived
from recon.exact.less.odds import ROUGH
from recon.networks import TwoLayer
from recon.victims.odd import Odd

SAMPLE, FEW = 10_000, 512  # inputs; those at which digits are looked at
RARE = 1e-3  # of inputs
HALF = 0.5
DIGITS = 1e3  # roundings that must be less than what is promised
SURE = 17.0  # -log(1 - p) of the top class, beyond which p (1 - p) has half of its digits at most
MEANS = ("integrated_gradients", "smoothgrad")


def identified(victim: Odd) -> bool:
    """Whether the victim can be told by what its view shows."""
    network = victim.value
    if victim.kind != "relu" or not isinstance(network, TwoLayer):
        return False
    if victim.view.explanation in MEANS and victim.outputs == 1 and victim.hides:
        return False  # gradients weighed by a probability that is not shown
    if victim.view.axes != 3 and victim.eps > ROUGH:
        return False  # without all gradients the digits of float64 are needed
    rng = np.random.default_rng(victim.dim + 17 * victim.width)
    x = victim.inputs(rng, SAMPLE)
    z = network(x)
    shows = victim.shows(z)
    if victim.view.explanation == "top" and victim.view.of == "probabilities":
        shows &= _sure(z) < SURE
    if shows.mean() < HALF:
        return False
    x, z = x[shows], z[shows]
    used = np.linalg.norm(network.rows * victim.spread, axis=1) > 0
    used &= np.abs(network.weights).max(0) > 0
    if not used.any() and not network.slope.any():
        return False  # nothing to tell
    rows, bias = network.rows[used] * victim.spread, network.bias[used]
    on = x @ network.rows[used].T + bias > 0
    share = on.mean(0)
    if ((share < RARE) | (share > 1 - RARE)).any():
        return False
    if victim.view.outputs == "top":
        top = np.eye(victim.outputs)[z.argmax(1)]
        some = top.any(0)
        met = np.stack([top[:, some].T @ side for side in (on, ~on)]) / len(z)
        if (top.mean(0)[some] < RARE).any() or (met < RARE).any():
            return False
    level = bias + network.rows[used] @ victim.shift
    blur = DIGITS * _rounding(victim, x[:FEW], z[:FEW]) / victim.promised
    return blur <= min(1.0, _apart(rows, level, victim.view.explanation in MEANS))


def _sure(z: np.ndarray) -> np.ndarray:
    """-log(1 - p) [n] of the top class of logits [n, K], of the one class where there is one."""
    z = np.concatenate([np.zeros_like(z), z], 1) if z.shape[1] == 1 else z
    rest = np.sort(z, 1)
    return np.logaddexp.reduce(rest, 1) - np.logaddexp.reduce(rest[:, :-1], 1)


def _apart(rows: np.ndarray, level: np.ndarray, far: bool) -> float:
    """The sine of the smallest angle between two units n z + b, but for those on one plane; far:
    of n alone, as where parallel units are one.
    """
    size = np.linalg.norm(rows, axis=1)
    both = np.column_stack([rows, level]) / size[:, None]
    both /= np.linalg.norm(both, axis=1)[:, None]
    pair = np.triu_indices(len(rows), 1)
    planes = _sines(both)[pair]
    found = _sines(rows / size[:, None])[pair] if far else planes
    found = found[planes > 64 * np.finfo(float).eps]
    return float(found.min(initial=1.0))


def _sines(a: np.ndarray) -> np.ndarray:
    """Of the angles between unit rows [m, m], to all digits where these are small."""
    cosine = a @ a.T
    across = a[:, None] - cosine[:, :, None] * a[None]
    return np.asarray(np.linalg.norm(across, axis=2))


@np.errstate(all="ignore")  # of probabilities that are zero
def _rounding(victim: Odd, x: np.ndarray, z: np.ndarray) -> float:
    """How far what is shown is off, values relative to their rms and gradients to the largest."""
    unit, view = victim.eps, victim.view
    victim = victim._replace(rng=np.random.default_rng(0))  # its own noise is for its replies
    if view.outputs != "top":
        seen = derived.values(view, victim.answers(z).astype(float))
        true = z - z.mean(1, keepdims=True) if victim.hides and victim.outputs > 1 else z
        rms = max(float(np.sqrt(np.mean(true**2))), 1e-300)
        unit = max(unit, float(np.median(np.abs(seen - true).max(1))) / rms)
    if view.axes:
        rows = victim.jacobian(x)
        off, rows = ((a * victim.spread) for a in (victim.rounded(rows).astype(float) - rows, rows))
        usual = float(np.median(np.linalg.norm(off, axis=2).max(1)))
        unit = max(unit, usual / max(float(np.linalg.norm(rows, axis=2).max()), 1e-300))
    return unit
