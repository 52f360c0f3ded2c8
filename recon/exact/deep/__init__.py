"""Deep ReLU networks, exactly: `recovery` says how."""

from __future__ import annotations

from recon.exact.deep.recovery import SHARE, Found, recover
from recon.exact.deep.search import Asked

__all__ = ["SHARE", "Asked", "Found", "recover"]
