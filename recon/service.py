"""Services that fail at times, count their calls, or answer differently each time.

Retries with back-off, a rate, and the mean of several replies.

The waits are tenacity's, an extra: pip install 'recon[service]'.  A service that hangs hangs the
attack: give its client a timeout (`requests.get(..., timeout=30)`), whose error is then retried.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from recon.oracles import HostOracle
from recon.replies import Reply, ViewError

LONGEST = 60.0  # seconds between two attempts at most


def patient(
    oracle: HostOracle,
    *,
    passing: type[BaseException]
    | tuple[type[BaseException], ...]
    | Callable[[BaseException], bool] = (TimeoutError, ConnectionError),
    attempts: int = 5,
    wait: float = 1.0,
    per_second: float | None = None,
) -> HostOracle:
    """The oracle of `oracles.from_host`, asked again after errors that pass.

    passing: those errors, as types (requests and httpx have their own, requests.ConnectionError
    and httpx.TransportError, say) or as a function that says of an error whether it passes (by
    the status of a reply, say); all others go through at once, the last one after `attempts`.
    wait: seconds before the second attempt, at most a second of chance added, twice as many before
    each further one, up to a minute.  per_second: calls at most, of any number of rows, attempts
    counted; values and gradients share them.

    A ledger goes around it, `ledger.kept(patient(oracle), ...)`, so that what is known does not
    wait; its budget counts a row once however often it is attempted here.  Raises ImportError
    without tenacity, ValueError for numbers that make no sense and for another oracle.
    """
    if type(oracle) is not HostOracle:
        raise ValueError(
            "patience is for an oracle of oracles.from_host; a ledger goes around it: "
            "ledger.kept(service.patient(oracle), ...)"
        )
    if not isinstance(attempts, int) or attempts < 1:
        raise ValueError(f"attempts must be a whole number of at least 1, not {attempts!r}")
    if not 0 <= wait < math.inf or not (per_second is None or 0 < per_second < math.inf):
        raise ValueError(f"wait {wait} and per_second {per_second} must be positive and finite")
    try:
        import tenacity
    except ImportError as error:
        raise ImportError("retries need tenacity: pip install 'recon[service]'") from error
    passes: Any = tenacity.retry_if_exception
    if isinstance(passing, type | tuple):
        passes = tenacity.retry_if_exception_type
    retrying = tenacity.Retrying(
        retry=passes(passing),
        stop=tenacity.stop_after_attempt(attempts),
        wait=tenacity.wait_exponential(wait, LONGEST) + tenacity.wait_random(0, min(wait, 1.0)),
        reraise=True,
    )
    pace = _pace(per_second)

    def calm(fn: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
        def attempt(x: np.ndarray) -> Any:
            pace()
            return fn(x.copy())  # the victim's own, to scribble on

        return lambda x: retrying(attempt, x)

    value_fn = None if oracle.value_fn is None else calm(oracle.value_fn)
    return replace(oracle, fn=calm(oracle.fn), value_fn=value_fn)


def averaged(oracle: HostOracle, n: int) -> HostOracle:
    """The oracle of `oracles.from_host`, each query asked n times in as many calls: their mean.

    For explanations with noise in them, or a model with dropout left on: what is left of noise by
    chance is sqrt(n) times smaller.  `exact.recover` measures what is left and promises half of
    the digits above it; `distill.buy` has what is bought.  Each row costs n, and n rounds, in all
    that is returned, and a budget is of those.  The mean of a network with dropout is that of its
    masks, which need not be the network without.  A ledger goes around it, as it answers a point
    asked twice with its first reply.  ValueError for an n that is none or another oracle,
    ViewError for labels, which have no mean.
    """
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, not {n!r}")
    if type(oracle) is not HostOracle or oracle.repeats > 1:
        raise ValueError(
            "the mean is of an oracle of oracles.from_host, taken once; a ledger goes around it: "
            "ledger.kept(service.averaged(oracle, n), ...)"
        )
    if oracle.view.outputs in ("label", "top"):
        raise ViewError(f"labels have no mean; the service's view is {oracle.view}")

    def fn(x: np.ndarray) -> Any:
        mean = _mean([oracle(x) for _ in range(n)])
        return mean if oracle.view.axes else mean.value

    def value_fn(x: np.ndarray) -> Any:
        return _mean([Reply(oracle.value(x), None) for _ in range(n)]).value

    return replace(oracle, fn=fn, value_fn=value_fn, repeats=n)


def _mean(replies: list[Reply]) -> Reply:
    """The mean, summed in float64 and of the dtype of what was replied."""

    def mean(parts: tuple[Any, ...]) -> Any:
        if parts[0] is None:
            return None
        kind = parts[0].dtype if parts[0].dtype.kind == "f" else np.float64
        return np.mean(np.stack(parts), axis=0, dtype=np.float64).astype(kind)

    return Reply(*map(mean, zip(*replies, strict=True)))


def _pace(per_second: float | None) -> Callable[[], None]:
    """Waits until the next call may start."""
    lock, free = threading.Lock(), -math.inf

    def pace() -> None:
        nonlocal free
        if per_second is None:
            return
        with lock:
            now = time.monotonic()
            start = max(now, free)
            free = start + 1 / per_second
        if start > now:
            time.sleep(start - now)

    return pace
