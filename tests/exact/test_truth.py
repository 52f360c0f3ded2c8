"""Is a wrong network ever `ok`?  Victims of two kinds and four that are none, in every precision.

A network that is `ok` must keep what `Recovery` promises: standard normal points, the
distribution of the features, and the user's data, each relative to the rms of f there.
"""

from __future__ import annotations

from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest

from recon import exact, oracles
from recon.exact.recovery import promise

DTYPES = ("bfloat16", "float16", "float32", "float64")
BENDS = ("relu", "gelu", "tanh", "relu twice")


def relu(z):
    return np.maximum(z, 0), (z > 0).astype(z.dtype)


def tanh(z):
    return np.tanh(z), 1 - np.tanh(z) ** 2


def gelu(z):
    """The usual approximation by tanh."""
    one, half, c, k = (z.dtype.type(a) for a in (1, 0.5, (2 / np.pi) ** 0.5, 0.044715))
    y = np.clip(z, -30, 30)  # beyond, a cube overflows and tanh is one
    t = np.tanh(c * (y + k * y**3))
    return half * z * (one + t), half * (one + t) + half * z * (one - t**2) * c * (
        one + z.dtype.type(3) * k * y**2
    )


def victim(rng, bend, dim, width, outputs, scale, bias):
    """fn(dtype)(x) -> (value, gradient) with parameters drawn once; features of `scale` [d]."""

    def draw(*shape):
        return rng.normal(size=shape)

    layers = [(draw(width, dim) / scale, bias * draw(width))]
    if bend == "relu twice":
        second = int(rng.integers(1, width + 1))
        layers.append((draw(second, width) / width**0.5, bias * draw(second)))
    weights, offset = draw(outputs, len(layers[-1][1])), bias * draw(outputs)
    act = {"gelu": gelu, "tanh": tanh}.get(bend, relu)

    def in_dtype(dtype):
        held = [(a.astype(dtype), b.astype(dtype)) for a, b in layers]
        w, c = weights.astype(dtype), offset.astype(dtype)

        def fn(x):
            h = x.astype(dtype)
            jacobian = None
            for a, b in held:
                h, on = act(h @ a.T + b)
                jacobian = on[:, :, None] * (a[None] if jacobian is None else a @ jacobian)
            return (h @ w.T + c).astype(dtype), (w @ jacobian).astype(dtype)

        return fn

    return in_dtype


def drawn(seed, bend, dtype, raw, given):
    """A victim of random sizes, its features' scales [d], and the user's data if `given`."""
    rng = np.random.default_rng(seed)
    dim, width = int(rng.integers(2, 25)), int(rng.integers(1, 33))
    outputs, bias = int(rng.choice([1, 1, 3])), float(rng.choice([0, 1]))
    scale = 10.0 ** rng.uniform(-3, 4, dim) if raw else np.ones(dim)
    net = victim(rng, bend, dim, width, outputs, scale, bias)
    far = rng.uniform(0, 3, dim) if given else 0.0
    return net, dim, scale, scale * (far + rng.normal(size=(500, dim))) if given else None


def errors(found, true, places):
    """The worst error [places] over the points of each, relative to the rms of f there."""
    worst = []
    for x in places:
        f = true(x)[0]
        worst.append(np.abs(found(x) - f).max() / max(np.sqrt((f**2).mean()), 1e-300))
    return np.array(worst)


def attacked(seed, bend, dtype, raw, given):
    """The recovery and its worst errors at normal points, as the features lie, and on the data."""
    net, dim, scale, data = drawn(seed, bend, dtype, raw, given)
    fn = net(jnp.dtype(dtype))
    found = exact.recover(oracles.from_host(fn), dim=dim, key=seed, data=data, budget=3000)
    if not found.ok:
        return found, np.zeros(1)
    rng = np.random.default_rng(seed + 1)
    x = rng.normal(size=(2000, dim))
    places = [x, scale * x] + ([] if data is None else [data])
    return found, errors(found.network, net(np.float64), places)


def count(seeds):
    """Victims, those `ok`, and those wrong with `ok` (seed, kind and errors), over `seeds`."""
    ok, wrong = dict.fromkeys(product(DTYPES, BENDS), 0), []
    for dtype, bend in ok:
        for seed in seeds:
            found, worst = attacked(seed, bend, dtype, raw=seed % 2 > 0, given=seed % 4 > 1)
            ok[dtype, bend] += found.ok
            if found.ok and worst.max() > promise(float(jnp.finfo(dtype).eps)):
                wrong.append((seed, dtype, bend, worst))
    return ok, wrong


@pytest.mark.parametrize("seeds", [4, pytest.param(125, marks=pytest.mark.slow)])
def test_no_victim_is_wrong_with_ok(seeds):
    """2,000 victims in the slow form: 125 of four kinds in four precisions."""
    ok, wrong = count(range(7000, 7000 + seeds))
    assert not wrong
    for (dtype, bend), number in ok.items():
        if dtype in ("bfloat16", "float16") or bend in ("gelu", "tanh"):
            assert number == 0
        elif bend == "relu":
            assert number >= (0.9 * seeds - 1 if dtype == "float32" else seeds)
