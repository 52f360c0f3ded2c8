"""The training step of `recon.distill` in PyTorch, to be timed beside ours; the only torch import.

Same weights, batch, loss l_G + lambda l_M and Adam; its layers are PyTorch's functions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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


def network(params: Any) -> tuple[list[Any], Callable[[Any], Any]]:
    """The weights of a flax module of `recon.models` as torch tensors, and its function of x.

    `mlp` or `conv` for 28 x 28 grey images, VGG11 or ResNet-18 for 32 x 32 coloured ones, of any
    factor; told apart by the names of their parameters.
    """
    import torch
    from torch.nn import functional as F

    def tensor(value: Any) -> Any:  # flax's kernels end in (inputs, outputs)
        value = np.array(value)
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        return torch.from_numpy(np.ascontiguousarray(value)).requires_grad_()

    w: Any = {at: {name: tensor(v) for name, v in of.items()} for at, of in params.items()}

    def dense(x: Any, at: str) -> Any:
        return F.linear(x, w[at]["kernel"], w[at]["bias"])

    def mlp(x: Any) -> Any:
        return dense(F.relu(dense(x, "hidden")), "output")

    def conv(x: Any) -> Any:
        x = x.reshape(-1, 1, 28, 28)
        for at in ("Conv_0", "Conv_1"):
            x = F.max_pool2d(F.relu(F.conv2d(x, w[at]["kernel"], w[at]["bias"])), 2)
        return dense(F.relu(dense(x.flatten(1), "Dense_0")), "Dense_1")

    resnet = "Conv_19" in w

    def layer(x: Any, i: int) -> Any:
        """The i-th convolution and its GroupNorm."""
        of, norm = w[f"Conv_{i}"], w[f"GroupNorm_{i}"]
        outputs, inputs, side, _ = of["kernel"].shape
        # in ResNet-18 a convolution with more outputs than inputs has stride 2, but for the stem
        stride = 2 if resnet and i and outputs > inputs else 1
        around = side - stride if side > 1 else 0
        if around % 2:  # flax pads less before than after, if it must
            x, around = F.pad(x, (around // 2, around - around // 2) * 2), 0
        x = F.conv2d(x, of["kernel"], of.get("bias"), stride, around // 2)
        return F.group_norm(x, outputs // 16, norm["scale"], norm["bias"], eps=1e-6)

    def deep(x: Any) -> Any:
        x = x.reshape(-1, 32, 32, 3).permute(0, 3, 1, 2).contiguous()
        for i in () if resnet else range(8):
            x = F.relu(layer(x, i))
            x = F.max_pool2d(x, 2) if i in (0, 1, 3, 5, 7) else x
        if resnet:
            x, i = F.relu(layer(x, 0)), 1
            for block in range(8):
                wider = block in (2, 4, 6)
                short = layer(x, i + 2) if wider else x
                x = F.relu(layer(F.relu(layer(x, i)), i + 1) + short)
                i += 3 if wider else 2
            x = F.adaptive_avg_pool2d(x, 1)
        return dense(x.flatten(1), "Dense_0")

    if "Conv_0" in w and "GroupNorm_0" not in w:  # torch flattens images another way
        first = np.array(params["Dense_0"]["kernel"]).reshape(4, 4, 20, -1)
        w["Dense_0"]["kernel"] = tensor(first.transpose(2, 0, 1, 3).reshape(320, -1))
    weights = [tensor for of in w.values() for tensor in of.values()]
    return weights, mlp if "hidden" in w else deep if "GroupNorm_0" in w else conv


def step(
    params: Any, bank: Any, loss: str, form: str, weight: float, rate: float
) -> Callable[[], float]:
    """A function that makes one Adam step on the whole bank and returns the loss before it.

    `loss` is a row of `distill.losses.LOSSES`; `form` one of FORMS, for "jacobian".
    """
    import torch
    from torch.nn import functional

    weights, net = network(params)
    optimizer = torch.optim.Adam(weights, lr=rate)
    x, target = (torch.from_numpy(np.array(v)) for v in (bank.x, bank.probabilities))
    label = torch.from_numpy(np.array(bank.label)).long()
    n, outputs = target.shape
    if bank.gradient is not None:
        gradient = torch.from_numpy(np.array(bank.gradient))
        scale = gradient.square().sum() / n
    x.requires_grad_(loss != "membership")
    grad = partial(torch.autograd.grad, create_graph=True)
    basis = torch.eye(outputs)[:, None].expand(outputs, n, outputs)

    def matching(logits: Any) -> Any:
        if loss == "top":
            (rows,) = grad(logits.gather(1, label[:, None]).sum(), x)
            return (rows - gradient).square().sum() / n / scale
        if loss == "projection":
            r = torch.randn(n, outputs)
            (rows,) = grad(logits, x, r)
            return (rows - torch.einsum("nk,nkd->nd", r, gradient)).square().sum() / n / scale
        if form == "batched":
            (rows,) = grad(logits, x, basis, is_grads_batched=True)
        else:
            rows = torch.stack([grad(logits, x, v)[0] for v in basis])
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
