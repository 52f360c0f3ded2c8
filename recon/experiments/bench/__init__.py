"""Ours beside other tools, on identical networks, in one run."""
