"""Strict arithmetic for every test, and oracles that keep their own count.

A test gives an attack the oracle of a counting victim and then holds the cost it
returned to what that oracle saw:

    def test_cost(counting_host):
        seen = counting_host(network)
        result = attack(seen.oracle)
        assert result.cost == seen.cost
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import settings

from recon import oracles
from recon.networks import TwoLayer
from recon.oracles import Cost

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def _linked(into: Path, folder: Path) -> None:
    """Let the entries of one folder be found in another one too."""
    there = set(os.listdir(into))
    for entry in os.scandir(folder):
        if entry.is_file() and entry.name not in there:
            with suppress(FileExistsError):
                os.link(entry.path, into / entry.name)


# Each worker of pytest-xdist compiles into a cache of its own, as do the processes it starts:
# JAX writes an entry while others may read it.  After each module a worker shares what it has.
_shared: tuple[Path, Path] | None = None
_cache, _worker = map(os.environ.get, ("JAX_COMPILATION_CACHE_DIR", "PYTEST_XDIST_WORKER"))
if _cache and _worker:
    _own = Path(_cache, _worker)
    _own.mkdir(parents=True, exist_ok=True)
    _shared = (_own, _own.parent)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_own)
    jax.config.update("jax_compilation_cache_dir", str(_own))

# No deadline, as the first example of every shape compiles.  CI repeats the same examples, so
# that a submission does not fail by another one's luck; at a desk every run tries new ones.
settings.register_profile("recon", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("recon")


Real = Callable[[np.ndarray], np.ndarray]  # rows [n, d] -> [n], which of them are queries


@dataclass(eq=False)
class Log:
    """What an oracle was asked: the rows of every batch, in order of arrival.

    eq=False keeps it hashable by identity, so it can ride through jit as a static field.
    """

    gradients: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def cost(self, dim: int, outputs: int, real: Callable[[], Real]) -> Cost:
        """The cost of the rows that are queries; `real` makes one judge for each kind of query."""
        gradients, values = (
            [int(judge(rows).sum()) for rows in batches]
            for judge, batches in ((real(), self.gradients), (real(), self.values))
        )
        return Cost(
            gradients=sum(gradients),
            values=sum(values),
            numbers=sum(gradients) * outputs * (dim + 1) + sum(values) * outputs,
            rounds=sum(n > 0 for n in gradients + values),
        )


class CountingOracle:
    """A TwoLayer victim outside JAX: NumPy float64 behind `from_host`, counting every row."""

    def __init__(self, network: TwoLayer, dtype: Any = np.float64):
        self.network = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), network)
        self.log = Log()
        self.oracle = oracles.from_host(self._reply, self._value)

    def _reply(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.log.gradients.append(np.array(x))
        net = self.network
        active = (x @ net.rows.T + net.bias > 0).astype(net.rows.dtype)
        gradient = np.einsum("nh,kh,hd->nkd", active, net.weights, net.rows) + net.slope
        return self._evaluate(x), gradient

    def _value(self, x: np.ndarray) -> np.ndarray:
        self.log.values.append(np.array(x))
        return self._evaluate(x)

    def _evaluate(self, x: np.ndarray) -> np.ndarray:
        net = self.network
        hidden = np.maximum(x @ net.rows.T + net.bias, 0)
        return hidden @ net.weights.T + x @ net.slope.T + net.offset

    @property
    def cost(self) -> Cost:
        """What was asked so far, every row of every call."""
        outputs, dim = self.network.slope.shape
        return self.log.cost(dim, outputs, lambda: lambda rows: np.ones(len(rows), bool))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "key"],
    meta_fields=["f", "view", "log"],
)
@dataclass(frozen=True)
class _Watched(oracles.Oracle):
    """An Oracle that reports every batch to a log from inside jit.

    The callback has an effect, so XLA neither drops nor merges it, and it runs once
    for every time the compiled attack really asks.
    """

    log: Log

    def __call__(self, x: jax.Array, first: Any = 0) -> oracles.Reply:
        jax.debug.callback(lambda rows: self.log.gradients.append(np.array(rows)), x)
        return super().__call__(x, first)

    def value(self, x: jax.Array) -> Any:
        jax.debug.callback(lambda rows: self.log.values.append(np.array(rows)), x)
        return super().value(x)


class TracedCountingOracle:
    """A victim JAX can trace whose batches are counted as they run, under jit too.

    A traced attack asks batches of one padded size.  `real` says which rows of a batch
    [n, d] are queries.  The default counts distinct rows and takes for padding a row that
    was asked before, is zero, or is not finite; an attack that means to ask the origin, or
    the same row twice, needs its own `real`.  `rounds` counts the calls with a query in
    them, so it is larger than the attack's own count where that asks a round in chunks.
    """

    def __init__(
        self,
        network: TwoLayer,
        real: Real | None = None,
    ):
        self.network = network
        self.log = Log()
        self.oracle = _Watched(TwoLayer.__call__, network, self.log)
        self.real = _distinct if real is None else lambda: real

    @property
    def cost(self) -> Cost:
        """What was asked so far, padding left out; waits for the callbacks to arrive."""
        jax.effects_barrier()
        outputs, dim = self.network.slope.shape
        return self.log.cost(dim, outputs, self.real)


def _distinct() -> Real:
    known: set[bytes] = set()

    def real(rows: np.ndarray) -> np.ndarray:
        found = np.zeros(len(rows), bool)
        for i, row in enumerate(rows):
            found[i] = row.tobytes() not in known and row.any() and np.isfinite(row).all()
            known.add(row.tobytes())
        return found

    return real


@pytest.fixture(scope="session")
def counting_host() -> type[CountingOracle]:
    """The class, not an instance, so that Hypothesis gets a fresh count for every example."""
    return CountingOracle


@pytest.fixture(scope="session")
def counting_traced() -> type[TracedCountingOracle]:
    """The class, for the same reason."""
    return TracedCountingOracle


@pytest.fixture(scope="module", autouse=True)
def forget_compiled() -> Iterator[None]:
    """Let go of what a module compiled: thousands of programs in one process crash XLA."""
    if _shared:
        _linked(*_shared)
    yield
    jax.clear_caches()
    if _shared:
        _linked(*reversed(_shared))


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trained victims and finished cells: none from the user's cache, none into it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
