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
    """A torch module with the weights of a flax module of `recon.models`.

    `mlp` or `conv` for 28 x 28 grey images, VGG11 or ResNet-18 for 32 x 32 coloured ones, of any
    factor; told apart by the names and shapes of their parameters.
    """
    from torch import nn

    if "hidden" in params:
        return nn.Sequential(_dense(params["hidden"]), nn.ReLU(), _dense(params["output"]))
    if "GroupNorm_0" not in params:
        first = [nn.Unflatten(1, (1, 28, 28)), _conv(params["Conv_0"]), nn.ReLU(), nn.MaxPool2d(2)]
        second = [_conv(params["Conv_1"]), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        last = [_dense(params["Dense_0"], (4, 4, 20)), nn.ReLU(), _dense(params["Dense_1"])]
        return nn.Sequential(*first, *second, *last)
    # flax's images end in their channels, torch's begin with them
    images = [nn.Unflatten(1, (32, 32, 3)), _moved()]
    layers = [nn.Sequential(*_conv_norm(params, i)) for i in range(_count(params))]
    body = list[Any]()
    if len(layers) == 8:
        for i, layer in enumerate(layers):
            pool = nn.MaxPool2d(2) if i in (0, 1, 3, 5, 7) else nn.Identity()
            body += [layer, nn.ReLU(), pool]
    else:
        rest = iter(layers)
        body += [next(rest), nn.ReLU()]
        for block in range(8):
            inner = nn.Sequential(next(rest), nn.ReLU(), next(rest))
            body.append(_residual(inner, next(rest) if block in (2, 4, 6) else nn.Identity()))
        body.append(nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*images, *body, nn.Flatten(), _dense(params["Dense_0"]))


def _count(params: Any) -> int:
    return sum(name.startswith("Conv_") for name in params)


def _moved() -> Any:
    from torch import nn

    class Moved(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.permute(0, 3, 1, 2).contiguous()

    return Moved()


def _residual(body: Any, short: Any) -> Any:
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.short = body, short

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.short(x))

    return Residual()


def _dense(params: Any, images: tuple[int, ...] | None = None) -> Any:
    """A dense layer; `images` (h, w, c) are what it reads flat, which torch flattens otherwise."""
    from torch import nn

    kernel = np.array(params["kernel"])
    layer = nn.Linear(*kernel.shape)
    if images is not None:
        kernel = kernel.reshape(*images, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    return _filled(layer, weight=kernel.T, bias=params["bias"])


def _conv(params: Any, stride: int = 1, padding: int = 0) -> Any:
    from torch import nn

    kernel = np.array(params["kernel"]).transpose(3, 2, 0, 1)
    outputs, inputs, side, _ = kernel.shape
    layer = nn.Conv2d(inputs, outputs, side, stride, padding, bias="bias" in params)
    return _filled(layer, **(dict(params) | {"weight": kernel}))


def _conv_norm(params: Any, i: int) -> list[Any]:
    """The i-th convolution of VGG11 or ResNet-18, and its GroupNorm."""
    from torch import nn

    conv, norm = params[f"Conv_{i}"], params[f"GroupNorm_{i}"]
    side, _, inputs, outputs = conv["kernel"].shape
    # in ResNet-18 a convolution with more outputs than inputs has stride 2, except for the stem
    stride = 2 if _count(params) == 20 and i and outputs > inputs else 1
    around = side - stride if side > 1 else 0  # flax pads less before than after, if it must
    before = around // 2
    after = around - before
    scaled = nn.GroupNorm(outputs // 16, outputs, eps=1e-6)
    return [
        nn.ZeroPad2d((before, after, before, after)) if before != after else nn.Identity(),
        _conv(conv, stride, before if before == after else 0),
        _filled(scaled, weight=norm["scale"], bias=norm["bias"]),
    ]


def _filled(layer: Any, **arrays: Any) -> Any:
    import torch

    with torch.no_grad():
        for name in dict(layer.named_parameters()):
            value = np.ascontiguousarray(np.array(arrays[name]))
            getattr(layer, name).copy_(torch.from_numpy(value))
    return layer


def step(
    params: Any, bank: Any, loss: str, form: str, weight: float, rate: float
) -> Callable[[], float]:
    """A function that makes one Adam step on the whole bank and returns the loss before it.

    `loss` is a row of `distill.losses.LOSSES`; `form` one of FORMS, for "jacobian".
    """
    import torch
    from torch.nn import functional

    net = module(params)
    weights = list(net.parameters())
    optimizer = torch.optim.Adam(weights, lr=rate)
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
        if loss == "projection":
            r = torch.randn(n, outputs)
            (rows,) = torch.autograd.grad(logits, x, r, create_graph=True)
            return (rows - torch.einsum("nk,nkd->nd", r, gradient)).square().sum() / n / scale
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
        total.backward(inputs=weights)
        optimizer.step()
        return float(total.detach())

    return one
