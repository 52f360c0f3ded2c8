"""A small problem: its sizes, its students, and one step of training on it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from recon import distill
from recon.distill import losses, training

DIM, OUTPUTS, N = 6, 3, 12

LINEAR = distill.student("linear", DIM, OUTPUTS)
MLP = distill.student("mlp", DIM, OUTPUTS, width=8)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


start = partial(training._start, many=False)  # jitted: op by op they compile for seconds
step = partial(training._step, many=False)


def for_loss(bank, loss):
    return bank.top() if loss == "top" else bank


def batch_of(bank, rows=N):
    return losses.Batch(
        x=bank.x[:rows],
        outputs=bank.outputs[:rows],
        gradient=bank.gradient[:rows],
        label=bank.label[:rows],
        weights=jnp.full(rows, 1 / rows),
        scales=losses.Scales(jnp.float32(2.0), jnp.float32(3.0)),
    )
