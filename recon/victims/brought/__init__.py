"""Victims of your own: models of other libraries, and files that hold them.

    brought.oracle(model)                   scikit-learn, PyTorch, Keras 3, ONNX, flax, equinox
    brought.oracle(brought.load("m.onnx"))  a file; runs no code from it unless told `trust=True`
    brought.web.oracle("http://...")        a service over HTTP

A library is imported only where its model is given; each is an extra, `pip install recon[torch]`.
Gradients are the library's own, or JAX's where a model can be evaluated in JAX (all but PyTorch
and Keras on other backends).  Queries are flat, x [d]; `shape` is what the model takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from recon.networks import Network
from recon.oracles import AnyOracle
from recon.replies import View
from recon.victims.brought import (
    dense,
    jax_modules,
    keras_models,
    onnx_graph,
    pytorch,
    scikit,
    web,
)
from recon.victims.brought.common import Brought, Options
from recon.victims.brought.files import load
from recon.victims.planted import oracle_of

__all__ = ["Brought", "bring", "load", "oracle", "web"]


def _recorded(network: Network, options: Options) -> Brought:
    """A network that was recovered."""
    oracle = oracle_of(network)
    oracle = oracle if options.view is None else replace(oracle, view=options.view)
    return Brought(oracle, network.dim, str(network))


# Told by the library and the name of a base class, in this order: a Keras model may be a PyTorch
# module too.  Nothing is imported to find out.
LIBRARIES: dict[tuple[str, str], Callable[[Any, Options], Brought]] = {
    ("keras", "Model"): keras_models.victim,
    ("torch", "Module"): pytorch.victim,
    ("torch", "ExportedProgram"): pytorch.victim,
    ("onnx", "ModelProto"): onnx_graph.victim,
    ("sklearn", "BaseEstimator"): scikit.victim,
    ("equinox", "Module"): jax_modules.equinox,
    ("flax.nnx", "Module"): jax_modules.nnx,
    ("flax.linen", "Module"): jax_modules.linen,
    ("recon", "Dense"): dense.victim,
    ("recon.networks", "TwoLayer"): _recorded,
    ("recon.networks", "Deep"): _recorded,
}


def oracle(
    model: Any,
    *,
    logits: bool = False,
    shape: tuple[int, ...] | None = None,
    view: View | None = None,
) -> AnyOracle:
    """The model as an oracle, for `exact.recover` and `distill.buy`.

    model: of a library in LIBRARIES, a pair (flax linen module, variables), or a function JAX can
    differentiate; a function of NumPy arrays is for `oracles.from_host`.

    A model that ends in a softmax or a sigmoid answers probabilities, and its view says so;
    logits=True leaves that end out, or is a ValueError where it cannot.  scikit-learn's
    classifiers answer logits.  view: what it answers, where that cannot be read from it (for
    models evaluated in JAX: what to make of its logits).  shape: of one input, without the batch,
    where the model does not say or takes several axes.  ValueError, one sentence, for a model
    that is not supported.
    """
    return bring(model, logits=logits, shape=shape, view=view).oracle


def bring(
    model: Any,
    *,
    logits: bool = False,
    shape: tuple[int, ...] | None = None,
    view: View | None = None,
) -> Brought:
    """`oracle`, with the number of inputs, a name, and a note on what was done to ask it."""
    options = Options(logits, shape, view)
    kind = type(model[0] if isinstance(model, tuple) and model else model)
    bases = [(base.__module__, base.__name__) for base in kind.__mro__]
    for (library, name), victim in LIBRARIES.items():
        alone = not isinstance(model, tuple) or victim is jax_modules.linen
        if alone and any(f"{at}.".startswith(f"{library}.") and name == a for at, a in bases):
            return victim(model, options)
    if callable(model):
        return jax_modules.function(model, options)
    raise ValueError(
        f"a {kind.__module__}.{kind.__name__} is no model of scikit-learn, PyTorch, Keras 3, ONNX, "
        "flax or equinox, and no function"
    )
