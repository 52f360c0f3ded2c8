"""PyTorch's modules, scripted and exported ones too, as victims.

Gradients come from PyTorch's autograd: one pass forward for a batch and one backward for each
output, in the dtype and on the device of the model's parameters.  A module is asked in eval mode
(no dropout, running means in batch norm); one in training mode is set to eval for every query and
back after it.  No parameter's `.grad` is touched.  The rows of a batch must not meet in the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon import oracles
from recon.victims.brought.common import (
    Brought,
    Options,
    cannot_strip,
    check_logits,
    need,
    probes,
    size,
    view_of,
)

MODULES = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
NODES = {"softmax": "softmax", "_softmax": "softmax", "log_softmax": "log_softmax"} | {
    "_log_softmax": "log_softmax",
    "sigmoid": "sigmoid",
}


def victim(model: Any, options: Options) -> Brought:
    """A module as it is, or without the softmax or sigmoid at its end (`logits`).

    The end of a `Sequential` and of an exported program is read; another module that returns
    probabilities is told by what it answers, and refused.
    """
    torch = need("torch", "torch")
    name = f"PyTorch {type(model).__name__}"
    if hasattr(model, "graph_signature"):
        return _exported(model, options)
    shape = options.sizes(_inputs(model))
    end, cut = _end(torch, model)
    if options.logits:
        if cut is None:
            raise cannot_strip(name)
        end, asked = None, cut
    else:
        asked = model
    trained = getattr(model, "training", False)
    note = "The module is in training mode; it is asked in eval mode." if trained else ""
    return _victim(asked, shape, end, options, name, note)


def _victim(
    model: Any,
    shape: tuple[int, ...] | None,
    end: str | None,
    options: Options,
    name: str,
    note: str = "",
    batch: int | None = None,
) -> Brought:
    fn, value_fn = functions(model, shape, batch)
    dim = size(shape)
    if options.view is not None:
        view = options.view
    else:
        outputs = value_fn(probes(dim)).shape[1] if end and dim else None
        view = view_of(end, outputs, name)
    oracle = oracles.from_host(fn, value_fn, view)
    if end is None and options.view is None:
        check_logits(oracle, dim, name)
    return Brought(oracle, dim, name, note)


def functions(
    model: Any, shape: tuple[int, ...] | None, batch: int | None = None, call: Any = None
) -> Any:
    """fn(x [n, d]) -> (values [n, K], gradients [n, K, d]) of NumPy arrays, and the values alone.

    shape: to which a row of x is reshaped; batch: rows that the model takes at once, where it
    takes no other number; call: what evaluates the model, if that is not the model itself.
    """
    torch = need("torch", "torch")
    call = model if call is None else call
    leaves = [a for a in (*model.parameters(), *model.buffers()) if a.is_floating_point()]
    dtype = leaves[0].dtype if leaves else torch.get_default_dtype()
    device = leaves[0].device if leaves else None

    def forward(x: np.ndarray) -> tuple[Any, Any]:
        at = torch.tensor(x, dtype=dtype, device=device).reshape(len(x), *(shape or x.shape[1:]))
        at.requires_grad_(torch.is_grad_enabled())
        values = call(at)
        values = getattr(values, "logits", values)
        if not isinstance(values, torch.Tensor):
            raise ValueError(
                f"the model returns {type(values).__name__}, not a tensor [n, K]: wrap it in a "
                "module that returns the outputs to explain"
            )
        return at, values.reshape(len(x), -1)

    def fn(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with _evaluating(model), torch.inference_mode(False), torch.enable_grad():
            at, values = forward(x)
            if not values.requires_grad:
                raise ValueError(
                    "the model's outputs have no gradient: does it detach them, or compute under "
                    "no_grad?"
                )
            rows = [
                torch.autograd.grad(values[:, k].sum(), at, retain_graph=True)[0].reshape(x.shape)
                for k in range(values.shape[1])
            ]
            return numbers(values), numbers(torch.stack(rows, 1))

    def value_fn(x: np.ndarray) -> np.ndarray:
        with _evaluating(model), torch.no_grad():
            return numbers(forward(x)[1])

    if batch is None:
        return fn, value_fn
    return _in_batches(fn, batch), _in_batches(value_fn, batch)


def numbers(tensor: Any) -> np.ndarray:
    """The tensor's numbers in its own dtype, so that half precision is seen to be that."""
    tensor = tensor.detach().cpu().contiguous()
    if str(tensor.dtype) == "torch.bfloat16":
        bits: np.ndarray = tensor.view(need("torch", "torch").int16).numpy()
        return bits.view(jnp.bfloat16)
    array: np.ndarray = tensor.numpy()
    return array


def _in_batches(fn: Any, batch: int) -> Any:
    """fn(x [n, d]) asked in arrays of `batch` rows, the last one filled up."""

    def asked(x: np.ndarray) -> Any:
        filled = np.concatenate([x, np.repeat(x[-1:], -len(x) % batch, axis=0)])
        parts = [fn(part) for part in np.split(filled, len(filled) // batch)]
        return jax.tree.map(lambda *all_: np.concatenate(all_)[: len(x)], *parts)

    return asked


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Every module in eval mode, and back after it; an exported program has no such mode."""
    training = [m for m in model.modules() if getattr(m, "training", False)]
    training = [] if hasattr(model, "validate_inputs") else training
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _inputs(model: Any) -> tuple[int, ...] | None:
    """The inputs of the first layer, where that is a linear one of a chain."""
    for module in model.modules():
        if getattr(module, "original_name", type(module).__name__) == "Linear":
            return (int(next(iter(module.parameters())).shape[1]),)
        if next(module.children(), None) is None:
            break
    return None


def _end(torch: Any, model: Any) -> tuple[str | None, Any]:
    """The softmax or sigmoid at the end of a chain of modules, and the chain without it."""
    if not isinstance(model, torch.nn.Sequential) or not len(model):
        return None, None
    last = model[-1]
    if type(last).__name__ in MODULES:
        return MODULES[type(last).__name__], model[:-1]
    end, cut = _end(torch, last)
    return end, None if end is None else torch.nn.Sequential(*model[:-1], cut)


def _exported(program: Any, options: Options) -> Brought:
    """An `ExportedProgram`: its graph is read for its input's shape and for its end."""
    name = "PyTorch exported program"
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise ValueError(f"the exported program takes {len(inputs)} inputs, not one")
    for node in program.graph.nodes:
        op = str(node.target)
        if ("dropout" in op or "batch_norm" in op) and any(a is True for a in node.args[:6]):
            raise ValueError(f"{name} is in training mode ({op}): export it after model.eval()")
    (node,) = (a for a in program.graph.nodes if a.name == inputs[0])
    batch, *sizes = node.meta["val"].shape
    module = program.module()
    (output,) = (a for a in module.graph.nodes if a.op == "output")
    last = jax.tree.leaves(output.args, is_leaf=lambda a: hasattr(a, "op"))
    kind = getattr(last[0].target, "overloadpacket", None) if len(last) == 1 else None
    end = NODES.get(str(kind).rpartition(".")[2])
    if options.logits:
        if end is None:
            raise cannot_strip(name)
        last[0].replace_all_uses_with(last[0].args[0])
        module.recompile()
        end = None
    fixed = batch if isinstance(batch, int) else None
    return _victim(module, options.sizes(sizes), end, options, name, batch=fixed)
