"""Exact recovery of two-layer ReLU networks from gradient queries."""

from recon.exact.recovery import Recovery, Status

__all__ = ["Recovery", "Status"]
