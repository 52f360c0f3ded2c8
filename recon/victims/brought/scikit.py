"""scikit-learn's estimators as victims: MLPs and linear models, alone or behind scalers.

scikit-learn has no gradients, so the fitted arrays are evaluated in JAX, in float64.  A classifier
is asked for its logits, what stands before the softmax or the sigmoid of `predict_proba`; of two
classes it has one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recon.victims.brought import dense
from recon.victims.brought.common import Brought, Options
from recon.victims.brought.dense import Dense

Scaling = tuple[np.ndarray, np.ndarray]  # shift, scale

NETWORKS = ("MLPClassifier", "MLPRegressor")
LINEAR = (
    *("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV"),
    *("LogisticRegression", "LogisticRegressionCV"),
)
SCALERS: dict[str, Callable[[Any], Scaling]] = {
    "StandardScaler": lambda s: (_or(s.mean_ if s.with_mean else None, 0, s), _or(s.scale_, 1, s)),
    "MinMaxScaler": lambda s: (-s.min_ / s.scale_, 1 / s.scale_),
    "MaxAbsScaler": lambda s: (np.zeros_like(s.scale_), s.scale_),
    "RobustScaler": lambda s: (_or(s.center_, 0, s), _or(s.scale_, 1, s)),
}


def victim(model: Any, options: Options) -> Brought:
    """The estimator's logits, or the values of a regression.

    ValueError names a step or an estimator that is not one of NETWORKS, LINEAR and SCALERS.
    """
    return dense.victim(read(model), options)


def read(model: Any) -> Dense:
    """The estimator's arrays, in float64."""
    *steps, last = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    steps = [step for step in steps if step not in (None, "passthrough")]
    scaling = tuple(_scaling(step) for step in steps)
    kind = type(last).__name__
    if kind not in (*NETWORKS, *LINEAR):
        known = ", ".join((*NETWORKS, *LINEAR))
        raise ValueError(f"scikit-learn's {kind} is not supported; there are {known}")
    if not hasattr(last, "coefs_" if kind in NETWORKS else "coef_"):
        raise ValueError(f"this {kind} is not fitted")
    if kind in NETWORKS:
        layers = list(zip(map(_float64, last.coefs_), map(_float64, last.intercepts_), strict=True))
        end = last.out_activation_ if kind == "MLPRegressor" else "identity"
        activation = last.activation
    else:
        rows = np.atleast_2d(_float64(last.coef_))
        bias = np.broadcast_to(_float64(last.intercept_), (len(rows),))
        layers, activation, end = [(rows.T, bias)], "identity", "identity"
    for name in (activation, end):
        if name not in dense.ACTIVATIONS:
            raise ValueError(f"scikit-learn's activation {name!r} is not supported")
    note = f"The logits of {kind}, before the softmax or sigmoid of its predict_proba."
    return Dense(
        layers,
        activation,
        " behind ".join([f"scikit-learn {kind}", *(type(step).__name__ for step in steps[::-1])]),
        end,
        scaling,
        note if hasattr(last, "classes_") else "",
    )


def _scaling(step: Any) -> Scaling:
    kind = type(step).__name__
    if kind not in SCALERS or getattr(step, "clip", False):
        clipped = "(clip=True)" if kind in SCALERS else ""
        raise ValueError(
            f"the step {kind}{clipped} is not supported; there are {', '.join(SCALERS)}"
        )
    if not hasattr(step, "n_features_in_"):
        raise ValueError(f"this {kind} is not fitted")
    shift, scale = SCALERS[kind](step)
    return _float64(shift), _float64(scale)


def _or(array: Any, otherwise: float, scaler: Any) -> np.ndarray:
    """A scaler's array, or a constant where it does not use it."""
    return np.full(scaler.n_features_in_, otherwise, float) if array is None else array


def _float64(array: Any) -> np.ndarray:
    array = array.toarray() if hasattr(array, "toarray") else array  # of `sparsify`
    return np.asarray(array, np.float64)
