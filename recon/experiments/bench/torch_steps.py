"""The training step of `recon.distill` in PyTorch, to be timed beside ours; the only torch import.

Same weights, batch, loss l_G + lambda l_M and Adam; written as a PyTorch user would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

FORMS = ("one by one", "batched")  # of the K backward passes of a Jacobian


def available() -> str | None:
    """PyTorch's version, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return str(torch.__version__)


def module(params: Any) -> Any:
    """A torch module with the weights of a flax `mlp` or `conv` for 28 x 28 grey images."""
    from torch import nn

    if "hidden" in params:
        layers = [nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)]
        names = {0: "hidden", 2: "output"}
    else:
        first = [nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 10, 5), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(10, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        layers = [*first, *second, nn.Linear(320, 50), nn.ReLU(), nn.Linear(50, 10)]
        names = {1: "Conv_0", 4: "Conv_1", 8: "Dense_0", 10: "Dense_1"}
    for place, name in names.items():
        _fill(layers[place], params[name], after_images=name == "Dense_0")
    return nn.Sequential(*layers)


def _fill(layer: Any, params: Any, after_images: bool) -> None:
    import torch

    kernel = np.array(params["kernel"])
    if kernel.ndim == 4:
        kernel = kernel.transpose(3, 2, 0, 1)
    else:
        if after_images:  # flax flattens height, width, channels; torch channels first
            kernel = kernel.reshape(4, 4, 20, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        kernel = kernel.T
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
        layer.bias.copy_(torch.from_numpy(np.array(params["bias"])))


def step(
    params: Any, bank: Any, loss: str, form: str, weight: float, rate: float
) -> Callable[[], float]:
    """A function that makes one Adam step on the whole bank and returns the loss before it.

    `loss` is "membership", "top" or "jacobian"; `form` one of FORMS, for "jacobian".
    """
    import torch
    from torch.nn import functional

    net = module(params)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    x, target = (torch.from_numpy(np.array(v)) for v in (bank.x, bank.probabilities))
    label = torch.from_numpy(np.array(bank.label)).long()
    n, outputs = target.shape
    if bank.gradient is not None:
        gradient = torch.from_numpy(np.array(bank.gradient))
        scale = gradient.square().sum() / n
    x.requires_grad_(loss != "membership")
    basis = torch.eye(outputs)[:, None].expand(outputs, n, outputs)

    def matching(logits: Any) -> Any:
        if loss == "top":
            (rows,) = torch.autograd.grad(
                logits.gather(1, label[:, None]).sum(), x, create_graph=True
            )
            return (rows - gradient).square().sum() / n / scale
        if form == "batched":
            (rows,) = torch.autograd.grad(
                logits, x, basis, create_graph=True, is_grads_batched=True
            )
        else:
            each = [torch.autograd.grad(logits, x, v, create_graph=True)[0] for v in basis]
            rows = torch.stack(each)
        return (rows - gradient.transpose(0, 1)).square().sum() / n / scale

    def one() -> float:
        optimizer.zero_grad()
        logits = net(x)
        total = functional.cross_entropy(logits, target)
        if loss != "membership":
            total = matching(logits) + weight * total
        total.backward()
        optimizer.step()
        return float(total.detach())

    return one
