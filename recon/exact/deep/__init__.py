"""Deep ReLU networks, exactly: `recovery` says how."""

from __future__ import annotations

from recon.exact.deep.recovery import SHARE, Asked, Found, recover

__all__ = ["SHARE", "Asked", "Found", "recover"]
