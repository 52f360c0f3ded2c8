"""recon serve: a service to practise on, on loopback."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from recon.cli.common import console, refuse
from recon.victims import brought
from recon.victims.brought import practice


@dataclass(frozen=True)
class Serve:
    """Serve a model and its explanations over HTTP, on this machine alone, until Ctrl-C.

    A random ReLU network behind PyTorch and Captum, or a model in a file; without PyTorch
    (pip install 'recon[serve]') fewer explanations, by JAX.  Every explanation has an address of
    its own, too: /jacobian, /saliency, /integrated, /noise.
    """

    port: int = 8765
    """Port; 0 takes a free one."""
    explanation: Literal["jacobian", "saliency", "integrated", "noise"] = "jacobian"
    """What is answered at /: gradients, or Captum's Saliency, IntegratedGradients, NoiseTunnel."""
    dim: int = 20
    """Inputs d of the random network."""
    width: int = 32
    """Hidden units h of the random network."""
    outputs: int = 3
    """Outputs K of the random network."""
    seed: int = 0
    """Seed of the random network."""
    dtype: Literal["float32", "float64"] = "float32"
    """Digits of the random network."""
    model: Path | None = None
    """Serve the model in this file instead."""
    trust: bool = False
    """Open the file even if that can run code."""
    architecture: str | None = None
    """Of a file of arrays alone: mlp (dense layers, ReLU), or MODULE:FUNCTION, your own code."""
    shape: tuple[int, ...] | None = None
    """Shape of one input, where the file does not say."""
    plain: bool = False
    """Do without PyTorch, Captum and uvicorn, even where they are installed."""

    def service(self) -> practice.Practice:
        """ValueError for what cannot be served."""
        torch = not self.plain and all(map(_installed, ("torch", "captum")))
        if self.model is not None:
            model = brought.load(self.model, self.trust, self.architecture)
            service = practice.of(model, self.shape, captum=torch)
        else:
            service, _ = practice.random(
                self.dim, self.width, self.outputs, self.seed, self.dtype, torch
            )
        if self.explanation not in service.explanations:
            raise ValueError(
                f"--explanation {self.explanation} needs a PyTorch model, and PyTorch and Captum: "
                "pip install 'recon[serve]'"
            )
        return replace(service, default=self.explanation)


def serve(argv: Sequence[str]) -> int:
    """`recon serve`."""
    settings = tyro.cli(Serve, prog="recon serve", description=Serve.__doc__, args=argv)
    try:
        service = settings.service()
        uvicorn = not settings.plain and _installed("uvicorn")
        run, port = (_uvicorn if uvicorn else _plain)(service, settings.port)
    except (ValueError, ImportError, OSError, OverflowError) as error:
        return refuse(f"Nothing is served: {error}")
    at = f"http://{practice.HOST}:{port}"
    console.print(f"{service.name} at {at}: {', '.join(service.explanations)}. Ctrl-C ends it.")
    console.print(f"Try: recon attack --url {at} --dim {service.dim}", soft_wrap=True)
    with suppress(KeyboardInterrupt):
        run()
    return 0


def _plain(service: practice.Practice, port: int) -> tuple[Any, int]:
    server = practice.plain(service, port)
    return server.serve_forever, server.server_address[1]


def _uvicorn(service: practice.Practice, port: int) -> tuple[Any, int]:
    import uvicorn

    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a kill, at once
    bound.bind((practice.HOST, port))
    config = uvicorn.Config(practice.app(service), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    return lambda: server.run(sockets=[bound]), bound.getsockname()[1]


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
