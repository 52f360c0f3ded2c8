"""What every library's file shares: the options, what is returned, and its checks."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from recon import oracles
from recon.oracles import AnyOracle
from recon.replies import PLAIN, View

PROBES = 16  # inputs at which a model whose end cannot be read is tried
PROBABILITIES = View("probabilities", of="probabilities")
LOG_PROBABILITIES = View("log_probabilities", of="log_probabilities")
ENDS = {"softmax": PROBABILITIES, "sigmoid": PROBABILITIES, "log_softmax": LOG_PROBABILITIES}


@dataclass(frozen=True)
class Options:
    """How a model is to be taken.

    logits: leave out a softmax or sigmoid at its end, where that can be done; shape: of one
    input, to which the queries x [d] are reshaped; view: what the model returns, where it cannot
    be told from it.
    """

    logits: bool = False
    shape: tuple[int, ...] | None = None
    view: View | None = None

    def sizes(self, known: Sequence[Any] | None = None) -> tuple[int, ...] | None:
        """The shape of one input, the user's or the `known` one; None where neither is whole."""
        if self.shape is not None:
            return tuple(self.shape)
        whole = known is not None and all(isinstance(a, (int, np.integer)) and a > 0 for a in known)
        return tuple(int(a) for a in known or ()) if whole else None


@dataclass(frozen=True)
class Brought:
    """A model as a victim.

    dim: its inputs d, None where the model does not say; name: what it is, for people; note: what
    was done to ask it that is not plain from the model, a sentence or nothing.
    """

    oracle: AnyOracle
    dim: int | None
    name: str
    note: str = ""


def need(module: str, extra: str) -> Any:
    """The module, imported; a ModuleNotFoundError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this model needs {module.partition('.')[0]}, which is not installed ({error}): "
            f"pip install 'recon[{extra}]'",
            name=error.name,
        ) from error


def size(shape: tuple[int, ...] | None) -> int | None:
    """Numbers in one input."""
    return None if shape is None else math.prod(shape)


def seen_end(values: np.ndarray) -> str | None:
    """softmax or log_softmax where values [n, K], K >= 2, are (log-)probabilities, else None."""
    if values.shape[1] < 2 or not np.isfinite(values).all():
        return None
    values = values.astype(np.float64)
    if (values >= 0).all() and np.allclose(values.sum(1), 1, atol=1e-3):
        return "softmax"
    if (values <= 0).all() and np.allclose(np.exp(values).sum(1), 1, atol=1e-3):
        return "log_softmax"
    return None


def view_of(end: str | None, outputs: int | None, what: str) -> View:
    """The view of a model with this end and K outputs; ValueError for several sigmoids."""
    if end == "sigmoid" and outputs != 1:
        many = "an unknown number of" if outputs is None else outputs
        raise ValueError(
            f"{what} ends in sigmoids of {many} outputs, which are neither logits nor "
            "probabilities that sum to 1: ask with logits=True (--logits), which leaves them out"
        )
    return PLAIN if end is None else ENDS[end]


def probes(dim: int) -> np.ndarray:
    """Standard normal inputs [PROBES, d], always the same."""
    return np.random.default_rng(0).standard_normal((PROBES, dim))


def check_logits(oracle: AnyOracle, dim: int | None, what: str) -> None:
    """ValueError if a model whose end cannot be read answers probabilities at the `probes`."""
    if dim is None:
        return
    with jax.enable_x64(True):
        end = seen_end(oracles.ask(oracle, probes(dim))[0].value)
    if end is not None:
        word = ENDS[end].outputs.replace("_", "-")
        raise ValueError(
            f"{what} returns {word}, as far as {PROBES} inputs show: return its logits instead, "
            f"or say what it is with view=View(...)"
        )


def cannot_strip(what: str) -> ValueError:
    """logits=True, where nothing can be left out."""
    return ValueError(f"{what} has no softmax or sigmoid at its end that logits=True can leave out")


def canonical(dtype: Any) -> Any:
    """The dtype, or what JAX makes of it without x64."""
    return jax.dtypes.canonicalize_dtype(dtype)


@contextmanager
def as_users_have_it() -> Iterator[None]:
    """JAX's own defaults for what others wrote, and sums of products in full precision."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision("highest"),
    ):
        yield
