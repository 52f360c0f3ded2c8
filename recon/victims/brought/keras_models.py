"""Keras 3 models as victims.

On the JAX backend the model is a JAX function of its variables; on PyTorch's and TensorFlow's,
gradients come from these.  Models are asked with `training=False`.  Loading a .keras file picks
the JAX backend, unless KERAS_BACKEND says another or Keras is imported already.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from recon import oracles
from recon.oracles import AnyOracle, View
from recon.victims.brought.common import (
    Brought,
    Options,
    as_users_have_it,
    cannot_strip,
    canonical,
    check_logits,
    need,
    size,
    view_of,
)

ENDS = ("softmax", "sigmoid", "log_softmax")


def victim(model: Any, options: Options) -> Brought:
    """A built model of one input, or without the softmax or sigmoid at its end (`logits`)."""
    keras = need("keras", "keras")
    name = f"Keras {type(model).__name__}"
    if not model.built:
        raise ValueError("this Keras model is not built: call it on one input first")
    known = getattr(model, "input_shape", None)
    if isinstance(known, (list, dict)) or (known and isinstance(known[0], (list, tuple))):
        raise ValueError("this Keras model takes several inputs, not one")
    shape = options.sizes(None if known is None else known[1:])
    end, layer = _end(model)
    if options.logits and end is None:
        raise cannot_strip(name)
    outputs = getattr(model, "output_shape", (None, None))[-1]
    view = options.view or view_of(None if options.logits else end, outputs, name)
    backend = keras.backend.backend()
    if end is not None and (options.logits or backend == "jax"):  # a view of JAX's is of logits
        model = _stripped(keras, model, layer)
    oracle = BACKENDS[backend](model, shape, view)
    if end is None and options.view is None:
        check_logits(oracle, size(shape), name)
    return Brought(oracle, size(shape), name)


def _end(model: Any) -> tuple[str | None, Any]:
    """The softmax or sigmoid at the end of a functional model, and the layer that has it."""
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1 or not hasattr(outputs[0], "_keras_history"):
        return None, None
    layer = outputs[0]._keras_history.operation
    if hasattr(layer, "layers"):
        return _end(layer)
    kind = type(layer).__name__
    end = kind.lower() if kind in ("Softmax", "Sigmoid") else None
    end = getattr(getattr(layer, "activation", None), "__name__", end)
    return (end, layer) if end in ENDS else (None, None)


def _stripped(keras: Any, model: Any, last: Any) -> Any:
    """A copy of the model whose layer `last` has no activation."""

    def copied(layer: Any) -> Any:
        if layer is not last:
            return layer.__class__.from_config(layer.get_config())
        if not hasattr(layer, "activation") or type(layer).__name__ == "Activation":
            return keras.layers.Identity()
        return layer.__class__.from_config({**layer.get_config(), "activation": "linear"})

    copy = keras.models.clone_model(model, clone_function=copied, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def _jax(model: Any, shape: tuple[int, ...] | None, view: View) -> AnyOracle:
    dtype = model.compute_dtype
    how = {"training": False} if "training" in inspect.signature(model.call).parameters else {}

    def f(variables: Any, x: jax.Array) -> Any:
        with as_users_have_it():
            inputs = x.astype(canonical(dtype)).reshape(1, *(shape or x.shape))
            values, _ = model.stateless_call(*variables, inputs, **how)
        return values.reshape(-1)

    variables = (model.trainable_variables, model.non_trainable_variables)
    return oracles.from_jax(f, tuple([a.value for a in some] for some in variables), view)


def _torch(model: Any, shape: tuple[int, ...] | None, view: View) -> AnyOracle:
    from recon.victims.brought.pytorch import functions

    fn, value_fn = functions(model, shape, call=partial(model, training=False))
    return oracles.from_host(fn, value_fn, view)


def _tensorflow(model: Any, shape: tuple[int, ...] | None, view: View) -> AnyOracle:
    tf = need("tensorflow", "keras")

    def values(at: Any) -> Any:
        return tf.reshape(model(at, training=False), (len(at), -1))

    def inputs(x: np.ndarray) -> Any:
        return tf.constant(x.reshape(len(x), *(shape or x.shape[1:])), model.compute_dtype)

    def fn(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = inputs(x)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(at)
            columns = tf.unstack(values(at), axis=1)
        rows = [tape.gradient(a, at, unconnected_gradients="zero") for a in columns]
        return tf.stack(columns, 1).numpy(), tf.stack(rows, 1).numpy().reshape(
            len(x), len(rows), -1
        )

    return oracles.from_host(fn, lambda x: values(inputs(x)).numpy(), view)


BACKENDS: dict[str, Callable[..., AnyOracle]] = {
    "jax": _jax,
    "torch": _torch,
    "tensorflow": _tensorflow,
}
