"""Services that fail at times, or count their calls: retries with back-off, and a rate.

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
