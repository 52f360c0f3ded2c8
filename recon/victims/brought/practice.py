"""A service to practise on: a model behind the contract of `web`, on loopback alone.

`recon serve` runs it.  One address for each explanation, with Captum at its defaults:

    /jacobian    Saliency(abs=False): the gradients of all outputs, what exact recovery needs
    /saliency    Saliency: absolute values
    /integrated  IntegratedGradients: 50 steps from the origin, times the input
    /noise       NoiseTunnel over Saliency: a mean over 5 noisy inputs, of absolute values

Without PyTorch and Captum, the first two, computed by JAX.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jax
import numpy as np

from recon import oracles
from recon.networks import TwoLayer
from recon.victims import brought
from recon.victims.brought import pytorch
from recon.victims.brought.common import Brought, as_users_have_it, need
from recon.victims.planted import random_network

HOST = "127.0.0.1"
EXPLANATIONS = ("jacobian", "saliency", "integrated", "noise")
LARGEST = 256 * 2**20  # bytes of a request

Explain = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Practice:
    """A model and its explanations, each x [n, d] -> [n, K, d]; values: x -> [n, K].

    outputs: what the values are; default: the explanation at the address without a name.
    """

    name: str
    dim: int
    outputs: str
    values: Explain
    explanations: dict[str, Explain]
    default: str = "jacobian"

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """The status and the JSON of a reply to a POST."""
        name = path.strip("/") or self.default
        if name not in self.explanations:
            there = ", ".join(f"/{a}" for a in self.explanations)
            hint = (
                "" if name not in EXPLANATIONS else "; the others need pip install 'recon[serve]'"
            )
            return _error(404, f"there is no /{name} here, only {there}{hint}")
        try:
            request = json.loads(body)
            x = np.asarray(request["inputs"], np.float64)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            return _error(400, f'no request {{"inputs": [[...]]}}: {type(error).__name__} {error}')
        if x.ndim != 2 or not len(x) or x.shape[1] != self.dim:
            return _error(400, f"inputs have shape {x.shape}, expected (n, {self.dim}), n >= 1")
        if not np.isfinite(x).all():
            return _error(400, "inputs must be finite")
        reply: dict[str, Any] = {"outputs": self.outputs, "values": self.values(x).tolist()}
        if request.get("explain", True):
            reply["explanations"] = self.explanations[name](x).tolist()
        return 200, json.dumps(reply).encode()


def _error(status: int, why: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": why}).encode()


def random(
    dim: int, width: int, outputs: int, seed: int = 0, dtype: str = "float32", torch: bool = True
) -> tuple[Practice, TwoLayer]:
    """A random ReLU network with biases in `dtype`, behind PyTorch and Captum or, torch=False, JAX.

    Returns its parameters too, in NumPy, to hold what was recovered against.
    """
    if min(dim, width, outputs) < 1:
        raise ValueError("dim, width and outputs must be at least 1")
    with jax.enable_x64(True):
        network = random_network(jax.random.key(seed), dim, width, outputs, bias=True)
        truth = jax.tree.map(lambda a: np.asarray(a, dtype), network)
    if not torch:
        return of(truth), truth
    library = need("torch", "serve")
    library.manual_seed(seed)  # of Captum's noise
    nn = library.nn
    model = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, outputs))
    given = (truth.rows, truth.bias, truth.weights, truth.offset)
    model = model.to(getattr(library, dtype))
    with library.no_grad():
        for parameter, array in zip(model.parameters(), given, strict=True):
            parameter.copy_(library.tensor(array))
    return of(model), truth


def of(model: Any, shape: tuple[int, ...] | None = None, captum: bool = True) -> Practice:
    """A model that `brought.bring` takes; with `captum`, its explanations of a PyTorch module."""
    victim = brought.bring(model, shape=shape)
    dim = victim.dim
    if dim is None:
        raise ValueError(f"{victim.name} does not say how many inputs it takes: give --shape")
    service = _by_oracle(replace(victim, dim=dim))
    bases = [(base.__module__.partition(".")[0], base.__name__) for base in type(model).__mro__]
    if captum and ("torch", "Module") in bases:
        service = replace(service, explanations=_captum(model, (dim,) if shape is None else shape))
    return service


def _by_oracle(victim: Brought) -> Practice:
    dim = victim.dim
    assert dim is not None
    with jax.enable_x64(True), as_users_have_it():
        oracle, form = victim.oracle.form(dim)

    def asked(x: np.ndarray) -> oracles.Reply:
        with jax.enable_x64(True), as_users_have_it():
            x = x.astype(form.asked) if oracle.traced else x
            return oracles.ask(oracle, x)[0]

    return Practice(
        victim.name,
        dim,
        victim.oracle.view.outputs,
        lambda x: np.asarray(asked(x).value),
        {
            "jacobian": lambda x: np.asarray(asked(x).gradient),
            "saliency": lambda x: np.abs(asked(x).gradient),
        },
    )


def _captum(model: Any, shape: tuple[int, ...]) -> dict[str, Explain]:
    torch, attr = need("torch", "serve"), need("captum.attr", "serve")
    model.eval()
    dtype = next(model.parameters()).dtype
    saliency = attr.Saliency(model)

    def each(attribute: Callable[..., Any]) -> Explain:
        def explain(x: np.ndarray) -> np.ndarray:
            at = torch.tensor(x, dtype=dtype).reshape(len(x), *shape)
            with torch.no_grad():
                outputs = model(at).shape[1]
            at.requires_grad_()
            rows = [attribute(at, target=k).reshape(x.shape) for k in range(outputs)]
            return pytorch.numbers(torch.stack(rows, 1))

        return explain

    return {
        "jacobian": each(lambda at, target: saliency.attribute(at, target=target, abs=False)),
        "saliency": each(saliency.attribute),
        "integrated": each(attr.IntegratedGradients(model).attribute),
        "noise": each(attr.NoiseTunnel(saliency).attribute),
    }


def app(service: Practice) -> Callable[..., Any]:
    """The service for uvicorn, or another server of ASGI."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, reply = _reply(service, scope["method"], scope["path"], body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(reply)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    return asgi


def plain(service: Practice, port: int) -> ThreadingHTTPServer:
    """The service behind Python's own server, for `serve_forever`; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            self.answer("POST")

        def do_GET(self) -> None:
            self.answer("GET")

        def answer(self, method: str) -> None:
            length = self.headers.get("Content-Length", "0")
            if not length.isdigit() or int(length) > LARGEST:
                self.close_connection = True
                status, reply = _error(413, f"at most {LARGEST} bytes, and their number first")
            else:
                body = self.rfile.read(int(length))
                status, reply = _reply(service, method, self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    return Server((HOST, port), Handler)


def _reply(service: Practice, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    if method != "POST":
        return _error(405, 'POST {"inputs": [[...], ...]}')
    try:
        return service.answer(path, body)
    except Exception as error:  # the model's; a service goes on
        return _error(500, f"{type(error).__name__}: {error}")
