"""Oracles held to a model's own forward pass, and their gradients to finite differences."""

import jax
import numpy as np

from recon import oracles


def held(oracle, forward, dim, scale=1.0, exact=True, rows=6):
    """Values agree with forward(x [n, d]) -> [n, K]; gradients with its central differences.

    exact: the model computes in float64; otherwise it has to be smooth, as steps are wide.
    """
    x = scale * np.random.default_rng(1).standard_normal((rows, dim))
    x = x if exact else x.astype(np.float32)
    step, rtol, atol = (1e-6, 1e-9, 1e-6) if exact else (1e-2, 2e-5, 3e-3)
    with jax.enable_x64(True):
        reply, cost = oracles.ask(oracle, x)
        alone = oracle.values(x)
    truth = np.asarray(forward(x)).reshape(rows, -1)
    size = np.abs(truth).max()
    np.testing.assert_allclose(reply.value, truth, rtol=rtol, atol=rtol * size)
    np.testing.assert_allclose(alone, truth, rtol=rtol, atol=rtol * size)
    assert reply.gradient.shape == (rows, truth.shape[1], dim)
    assert cost == oracles.Cost(rows, 0, rows * truth.shape[1] * (dim + 1), 1)
    way = np.random.default_rng(2).standard_normal((3, dim)) * scale / np.sqrt(dim)
    for v in way.astype(x.dtype):
        up, down = (np.asarray(forward(x + sign * step * v), float) for sign in (1, -1))
        slope = ((up - down) / (2 * step)).reshape(rows, -1)
        along = np.einsum("nkd,d->nk", reply.gradient, v)
        np.testing.assert_allclose(along, slope, atol=atol * max(1, np.abs(slope).max()))
    assert np.abs(reply.gradient).max() > 0
    return reply
