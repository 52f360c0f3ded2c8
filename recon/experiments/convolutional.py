"""Convolutional victims of `depth`, one cell each: both convolutions, then the whole network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from recon import cells, data, exact, oracles, victims
from recon.exact.conv.known import Layer
from recon.experiments.common import Row, interval, timed
from recon.networks import Convolutional, Deep
from recon.networks.convolutional import Shape
from recon.victims import Training

WRONG = 1e-6  # relative error above which an answer is a wrong one
EXACT = 1e-9  # error of kernels of length one, below which a convolution is the victim's
AT_ONCE = 200  # inputs that a network is evaluated at
CODE = ("exact", "networks", "victims", "experiments/convolutional.py")


class Sizes(NamedTuple):
    """Image, (side, channels) of each convolution, hidden units and outputs of dense layers."""

    shape: Shape
    kernels: tuple[tuple[int, int], ...]
    dense: tuple[int, ...]

    def __str__(self) -> str:
        sides = [f"{side}x{side}x{channels}" for side, channels in self.kernels]
        return "-".join(["x".join(map(str, self.shape)), *sides, *map(str, self.dense)])


class Cell(NamedTuple):
    """A victim: of these sizes, drawn or trained on images, number `run` of `seed`."""

    sizes: Sizes
    images: str
    seed: int
    run: int
    steps: int
    points: int
    inputs: int


PAPER = Sizes((28, 28, 1), ((5, 10), (5, 20)), (50, 10))  # the paper's MNIST victim


def settings(cell: Cell) -> Any:
    """Plain data that names a cell, and the code that it is measured by."""
    return [*cell, cells.measured_by(CODE)]


def measure(cell: Cell, _: Any = None) -> list[Row]:
    """A row."""
    images = data.load(cell.images) if cell.images else None
    keys = jax.random.split(jax.random.key(cell.seed), cell.run + 1)[cell.run]
    victim_key, attack_key, point_key = jax.random.split(keys, 3)
    victim = _victim(cell, victim_key, images)
    known = None if images is None else np.asarray(images.pool.x[: cell.inputs], np.float64)
    oracle = oracles.from_host(partial(answer, victim))
    attack = partial(exact.convolutional, oracle, shape=victim.shape, key=attack_key, data=known)
    seconds, got = timed(attack)
    error = kernel_error(got.layers, victim)
    row = {
        "status": got.status.name,
        "convolutions": error <= EXACT,
        "kernel_error": error if error <= EXACT else None,
        "conv_queries": got.searched.queries if got.layers[1:] else None,
        "queries": got.cost.queries,
        "ok": got.ok,
        "share": got.share,
        "seconds": seconds,
    }
    if not got.ok:
        return [row | {"wrong_share": None, "error": None, "agreement": None}]
    x = np.asarray(jax.random.normal(point_key, (cell.points, victim.dim)))
    off = _off(got.network, victim, x)
    row |= {"wrong_share": float(np.mean(off > WRONG)), "agreement": None}
    if images is not None:
        x = np.asarray(images.test.x, np.float64)
        off = np.concatenate([off, _off(got.network, victim, x)])
        same = _values(got.network, x).argmax(1) == _values(victim, x).argmax(1)
        row["agreement"] = float(np.mean(same))
    return [row | {"error": float(off.max())}]


def kernel_error(layers: Sequence[Layer], victim: Convolutional) -> float:
    """The largest entry by which kernels of length one are off; inf where channels are lacking."""
    worst, of, length = 0.0, np.arange(victim.shape[2]), np.ones(victim.shape[2])
    if len(layers) < len(victim.kernels):
        return np.inf
    for layer, kernel in zip(layers, victim.kernels, strict=True):
        if layer.kernel.shape != kernel.shape:
            return np.inf
        true = (kernel[:, :, of] * length[:, None]).reshape(-1, kernel.shape[-1])
        length = np.linalg.norm(true, axis=0)
        true, found = true / length, layer.kernel.reshape(true.shape)
        of = (found.T @ true).argmax(1)
        if len(set(of.tolist())) < len(of):
            return np.inf
        worst, length = max(worst, float(np.abs(found - true[:, of]).max())), length[of]
    return worst


def summary(sizes: Sizes, images: str, rows: Sequence[Row]) -> Row:
    """One row of all victims of a kind."""
    ok = [row for row in rows if row["ok"]]
    units = sum(channels for _, channels in sizes.kernels) + sum(sizes.dense[:-1])
    asked = [row["queries"] for row in rows]
    conv = [row["conv_queries"] for row in rows if row["conv_queries"] is not None]
    errors = [row["error"] for row in ok]
    same = [row["agreement"] for row in ok if row["agreement"] is not None]
    kernels = [row["kernel_error"] for row in rows if row["convolutions"]]
    return {
        "victim": images or "random",
        "sizes": str(sizes),
        "depth": len(sizes.kernels) + len(sizes.dense) - 1,
        "hidden": units,
        "outputs": sizes.dense[-1],
        "runs": len(rows),
        "ok": len(ok),
        "exact": sum(error <= WRONG for error in errors),
        "beyond": sum(row["wrong_share"] > row["share"] for row in ok),
        "wrong_share": max((row["wrong_share"] for row in ok), default=None),
        "queries_per_unit": float(np.mean(asked)) / units,
        "queries_per_unit_max": max(asked) / units,
        "median_error": float(np.median(errors)) if errors else None,
        "worst_error": max((e for e in errors if e <= WRONG), default=None),
        "seconds": float(np.mean([row["seconds"] for row in rows])),
        "queries": float(np.mean(asked)),
        "convolutions": sum(row["convolutions"] for row in rows),
        "convolutions_low": interval(sum(row["convolutions"] for row in rows), len(rows))[0],
        "conv_queries": float(np.mean(conv)) if conv else None,
        "conv_queries_max": max(conv, default=None),
        "kernel_error": max(kernels, default=None),
        "agreement": min(same, default=None),
    }


def _victim(cell: Cell, key: Any, images: data.Dataset | None) -> Convolutional:
    if images is None:
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, victims.random_convolutional(key, *cell.sizes))
    training = Training(steps=cell.steps)
    params = victims.classifier(images, "conv", cell.seed + cell.run, training).variables["params"]
    layers = {n: {k: np.asarray(a, np.float64) for k, a in of.items()} for n, of in params.items()}
    conv, dense = ([layers[f"{kind}_{i}"] for i in (0, 1)] for kind in ("Conv", "Dense"))
    weights, biases = (tuple(of[name] for of in conv) for name in ("kernel", "bias"))
    head = Deep(tuple(of["kernel"].T for of in dense), tuple(of["bias"] for of in dense))
    return Convolutional(weights, biases, head, cell.sizes.shape)


def _off(network: Convolutional, victim: Convolutional, x: np.ndarray) -> np.ndarray:
    """By how much the answer to each of x [n, d] is off, beside the rms."""
    truth = _values(victim, x)
    return np.abs(_values(network, x) - truth).max(1) / np.sqrt(np.mean(truth**2))


def _values(network: Convolutional, x: np.ndarray) -> np.ndarray:
    """At x [n, d], a few at once: an image takes a megabyte."""
    return np.concatenate([network(x[i : i + AT_ONCE]) for i in range(0, len(x), AT_ONCE)])


def answer(victim: Convolutional | Deep, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a victim on the host shows at x [n, d]: values and Jacobians."""
    return victim(x), victim.gradient(x)
