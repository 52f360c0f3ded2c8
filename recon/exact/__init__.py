"""Exact recovery of two-layer ReLU networks, linear and logistic models from gradient queries."""

from recon.exact.binary_search import recover_z
from recon.exact.membership import learn_model_membership
from recon.exact.one_layer import learn_linear, learn_logistic
from recon.exact.paper import learn_model, recover_s
from recon.exact.recovery import Recovery, Status
from recon.exact.two_layer import recover

__all__ = [
    "Recovery",
    "Status",
    "learn_linear",
    "learn_logistic",
    "learn_model",
    "learn_model_membership",
    "recover",
    "recover_s",
    "recover_z",
]
