"""Exact recovery of ReLU networks, linear and logistic models from gradient queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recon.exact.attack import recover
from recon.exact.binary_search import recover_z
from recon.exact.conv.recovery import Convolutions, convolutional
from recon.exact.membership import learn_model_membership
from recon.exact.one_layer import learn_linear, learn_logistic
from recon.exact.paper import learn_model, recover_s
from recon.exact.recovery import Recovery, Status
from recon.oracles import AnyOracle

__all__ = [
    "METHODS",
    "Convolutions",
    "Recovery",
    "Status",
    "convolutional",
    "learn_linear",
    "learn_logistic",
    "learn_model",
    "learn_model_membership",
    "recover",
    "recover_s",
    "recover_z",
]


def _bisect(oracle: AnyOracle, *, dim: int, key: Any, width: int, **rest: Any) -> Recovery:
    return learn_model(oracle, dim, width, key, **rest)


def _membership(oracle: AnyOracle, *, dim: int, key: Any, width: int, **rest: Any) -> Recovery:
    return learn_model_membership(oracle, dim, width, key, **rest)


# All take (oracle, dim=, key=, width=, budget=) and return a Recovery; the paper's two also what
# their own functions take.
METHODS: dict[str, Callable[..., Recovery]] = {
    "tangent": recover,
    "bisect": _bisect,
    "membership": _membership,
}
