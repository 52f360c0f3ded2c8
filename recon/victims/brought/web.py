"""Services over HTTP as victims: JSON in, JSON out, one POST for a batch of queries.

The contract "recon", small enough to put before any model; `recon serve` speaks it:

    request   {"inputs": [[...], ...]}        n rows of d numbers; and "explain": false for values
    reply     {"values": [[...], ...],        n rows of K numbers, or n numbers
               "explanations": [[[...]]],     n times K times d numbers, or n times d
               "outputs": "logits"}           what the values are, a word of `View`; may be left out
    error     any status but 200, {"error": "why"}

A value that the service does not show is left out or null.  Two more contracts:

"torchserve"  address .../explanations/NAME (or KServe's .../NAME:explain).  Values from
              .../predictions/NAME, then one explanation request for each of the K outputs, as a
              handler explains the target it is told: {"instances": [{"data": x, "target": k}]}.
"vertex"      address ...:explain, {"instances": [x]}; replies hold predictions, and attributions
              with an outputIndex.  The deployed model must explain all its outputs (topK).

Numbers may be float32 behind their decimals: `exact.recover` finds that out itself.  Many such
services return integrated gradients, which are declared as such (`View`), or absolute values;
`exact.recover` says so.  Errors that pass (no connection, no answer in time, 408, 429, 5xx) are
ConnectionError and TimeoutError, which `service.patient` asks again; others are ReplyError, in the
service's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from recon import oracles
from recon.oracles import HostOracle
from recon.replies import PLAIN, Reply, ReplyError, View, check
from recon.victims.brought.common import need

WORDS = 300  # characters of a service's own words that are repeated
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # which no proxy is asked for

Post = Callable[[str, Any], Any]


class Unavailable(ConnectionError):
    """The service does not answer now, or says that it cannot; it may later."""


def oracle(
    url: str,
    *,
    view: View = PLAIN,
    contract: str = "recon",
    timeout: float = 30.0,
    most_rows: int | None = None,
    headers: dict[str, str] | None = None,
    client: Any = None,
) -> HostOracle:
    """The service at `url` as an oracle; connections are kept open and used again.

    view: what it shows; contract: a row of CONTRACTS; timeout: seconds, for a reply to begin;
    most_rows: rows in a request at most (with a ledger around it, give it to the ledger, which
    then keeps every batch); headers: a key, say; client: an httpx.Client in place of timeout and
    headers, your own or of `connections`, to be closed by you.

    It asks nothing yet.  Wrap it: `ledger.kept(service.patient(web.oracle(url)), "file",
    service=url)`.  Raises ModuleNotFoundError without httpx, ValueError for arguments that make
    no sense.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError(f"{url!r} is no address of a service: it begins with http:// or https://")
    if contract not in CONTRACTS:
        raise ValueError(f"there is no contract {contract!r}; there are {', '.join(CONTRACTS)}")
    if most_rows is not None and (not isinstance(most_rows, int) or most_rows < 1):
        raise ValueError(f"most_rows must be a whole number of at least 1, not {most_rows!r}")
    explained, valued = CONTRACTS[contract]
    values_url = _values_url(url, contract)
    post = _posting(connections(url, timeout, headers) if client is None else client)

    def fn(x: np.ndarray) -> Any:
        return explained(post, url, values_url, x, view)

    def value_fn(x: np.ndarray) -> Any:
        return valued(post, values_url, x), None

    alone = None if view.outputs == "none" else View(view.outputs, "none")
    return oracles.from_host(
        _batched(_legible(fn, url, contract), view, most_rows),
        None
        if alone is None
        else lambda x: _batched(_legible(value_fn, url, contract), alone, most_rows)(x)[0],
        view,
    )


def connections(url: str, timeout: float = 30.0, headers: dict[str, str] | None = None) -> Any:
    """An httpx.Client for the service, a context that closes its connections."""
    proxied = urlsplit(url).hostname not in LOOPBACK
    return need("httpx", "http").Client(timeout=timeout, headers=headers, trust_env=proxied)


def _posting(client: Any) -> Post:
    """post(url, request) -> the JSON of the reply; its errors are those of the module."""
    httpx = need("httpx", "http")
    own = {"Content-Type": "application/json", "Accept": "application/json"}

    def post(url: str, request: Any) -> Any:
        try:
            answer = client.post(url, content=json.dumps(request), headers=own)
        except httpx.TimeoutException as error:
            raise TimeoutError(f"{url} did not answer in time: {type(error).__name__}") from error
        except httpx.TransportError as error:
            words = str(error) or type(error).__name__
            raise Unavailable(f"{url} cannot be reached: {words}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ReplyError(f"{url} cannot be asked: {error}") from error
        status = answer.status_code
        if status != 200:
            said = f"{url} answered {status} {answer.reason_phrase}: {_words(answer)}"
            passes = status in (408, 429) or (status >= 500 and status != 501)
            raise Unavailable(said) if passes else ReplyError(said)
        try:
            return answer.json()
        except ValueError as error:
            raise ReplyError(f"{url} answered no JSON: {_words(answer)}") from error

    return post


def _words(answer: Any) -> str:
    """What the service says of an error."""
    try:
        said = answer.json()
        for name in ("error", "detail", "message"):  # an error may hold a message
            said = said.get(name, said) if isinstance(said, dict) else said
        text = said if isinstance(said, str) else json.dumps(said)
    except ValueError:
        text = re.sub(r"<[^>]*>", " ", answer.text)
    text = " ".join(text.split())
    return text[:WORDS] or "no more than that"


def _legible(fn: Callable[[np.ndarray], Any], url: str, contract: str) -> Any:
    """fn, whose errors say that a reply has not the parts its contract has."""

    def read(x: np.ndarray) -> Any:
        try:
            return fn(x)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ReplyError(
                f"{url} answered something else than the contract {contract!r} has ({why})"
            ) from error

    return read


def _batched(fn: Any, view: View, most_rows: int | None) -> Callable[[np.ndarray], Reply]:
    def ask(x: np.ndarray) -> Reply:
        size, known = most_rows or max(1, len(x)), None
        parts: list[Reply] = []
        for i in range(0, len(x), size):
            rows = x[i : i + size]
            parts.append(check(fn(rows), len(rows), x.shape[1], known, view, i))
            known = None if parts[0].value is None else parts[0].value.shape[1]
        value, gradient = (
            None if part[0] is None else np.concatenate(part) for part in zip(*parts, strict=True)
        )
        return Reply(value, gradient)

    return ask


def _numbers(what: str, given: Any) -> np.ndarray:
    """The numbers of a reply in float64; JSON has lists of unequal length and null, too."""
    try:
        return np.asarray(given, np.float64)
    except (ValueError, TypeError) as error:
        raise ReplyError(f"the {what} of the reply are no array of numbers: {error}") from error


def _recon(post: Post, url: str, _: str, x: np.ndarray, view: View) -> tuple[Any, Any]:
    reply = post(url, {"inputs": x.tolist()})
    declared = reply.get("outputs", view.outputs)
    if view.outputs != "none" and declared != view.outputs:
        raise ReplyError(
            f"the service says that its values are {declared}, and the view is {view}: declare "
            f"View(outputs={declared!r}, ...)"
        )
    return tuple(
        None if not shown else _numbers(name, reply[name])
        for name, shown in (("values", view.outputs != "none"), ("explanations", view.axes))
    )  # type: ignore[return-value]


def _recon_values(post: Post, url: str, x: np.ndarray) -> np.ndarray:
    return _numbers("values", post(url, {"inputs": x.tolist(), "explain": False})["values"])


def _torchserve(post: Post, url: str, values_url: str, x: np.ndarray, view: View) -> Any:
    value = None if view.outputs == "none" else _torchserve_values(post, values_url, x)
    if not view.axes:
        return value, None
    if view.axes == 2:
        return value, _explained(post, url, [{"data": row} for row in x.tolist()])
    if value is None:
        raise ReplyError("how many outputs to explain is told by the values; the view has none")
    outputs = 1 if value.ndim == 1 else value.shape[1]
    parts = [
        _explained(post, url, [{"data": row, "target": k} for row in x.tolist()])
        for k in range(outputs)
    ]
    return value, np.stack(parts, axis=1)


def _torchserve_values(post: Post, url: str, x: np.ndarray) -> np.ndarray:
    reply = post(url, {"instances": [{"data": row} for row in x.tolist()]})
    return _numbers("predictions", reply["predictions"] if isinstance(reply, dict) else reply)


def _explained(post: Post, url: str, instances: list[Any]) -> np.ndarray:
    """Attributions [n, d] of one target: a list, or one in {"explanations": [...]}."""
    reply = post(url, {"instances": instances})
    array = _numbers("explanations", reply["explanations"] if isinstance(reply, dict) else reply)
    return array.reshape(len(array), -1) if array.size else array


def _vertex(post: Post, url: str, _: str, x: np.ndarray, view: View) -> tuple[Any, Any]:
    reply = post(url, {"instances": x.tolist()})
    value = None if view.outputs == "none" else _numbers("predictions", reply["predictions"])
    if not view.axes:
        return value, None
    found = [_attributions(each["attributions"], view) for each in reply["explanations"]]
    return value, _numbers("attributions", found)


def _vertex_values(post: Post, url: str, x: np.ndarray) -> np.ndarray:
    return _numbers("predictions", post(url, {"instances": x.tolist()})["predictions"])


def _attributions(given: list[Any], view: View) -> Any:
    """Of one input: [K, d] in the order of the outputs, or [d] where the view has one class."""
    rows = {}
    for each in given:
        features = each["featureAttributions"]
        if len(features) != 1:
            raise ReplyError(
                f"attributions of {len(features)} named features ({', '.join(features)}): their "
                "order is not known; the model must take one vector"
            )
        index = np.ravel(each.get("outputIndex", 0))
        rows[int(index[-1]) if index.size else 0] = np.ravel(next(iter(features.values())))
    if view.axes == 2:
        return next(iter(rows.values()))  # the first that is given is the class predicted
    if sorted(rows) != list(range(len(rows))):
        raise ReplyError(
            f"attributions of the outputs {sorted(rows)} alone: have the model explain all of them "
            '(topK), or declare View(explanation="top")'
        )
    return [rows[k] for k in sorted(rows)]


def _values_url(url: str, contract: str) -> str:
    """Where a contract answers values alone."""
    if contract == "recon":
        return url
    ways = ((r"/explanations/([^/]*)$", r"/predictions/\1"), (r":explain$", ":predict"))
    for way, other in ways[contract == "vertex" :]:
        if re.search(way, url):
            return re.sub(way, other, url)
    ends = ":explain" if contract == "vertex" else "/explanations/NAME or NAME:explain"
    raise ValueError(f"an address of the contract {contract!r} ends in {ends}, unlike {url}")


# What asks for values and explanations, and what asks for values alone.
CONTRACTS: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray]]] = {
    "recon": (_recon, _recon_values),
    "torchserve": (_torchserve, _torchserve_values),
    "vertex": (_vertex, _vertex_values),
}
