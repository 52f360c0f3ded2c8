"""Exact recovery of two-layer ReLU networks from gradient queries."""

from recon.exact.recovery import Recovery, Status
from recon.exact.two_layer import recover

__all__ = ["Recovery", "Status", "recover"]
