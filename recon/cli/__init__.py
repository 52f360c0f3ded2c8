"""recon: how much of a model leaks through its explanations.

    recon attack --dim 100 --width 64       recover a random network from its gradients
    recon attack --model net.onnx           the same of a model of yours, in a file
    recon attack --url URL --dim 20         the same of a service over HTTP
    recon serve                             such a service to practise on, on loopback
    recon run fig2-mnist --data-dir DIR     an experiment: rows, record and figure in results/
    recon run fig2-mnist --small            the same in a few minutes at most, only shown
    recon tune masks --data-dir DIR         a grid of hyperparameters
    recon plot all                          figures and claims again, from the committed rows
    recon list                              what can be run, its claim and how long it takes
    recon demo                              networks trained on digits, recovered and rebuilt

Exit code: 0 for success, 1 where a network was not recovered, 2 for what makes no sense.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from recon.cli.common import refuse

COMMANDS = {  # imported when asked for, as JAX takes a second
    "attack": "recon.cli.attack:attack",
    "serve": "recon.cli.serve:serve",
    "run": "recon.cli.run:run",
    "tune": "recon.cli.run:tune",
    "plot": "recon.cli.show:plot",
    "list": "recon.cli.show:list_",
    "demo": "recon.demo:main",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch on the first word; returns the exit code."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help"):
        print((__doc__ or "").rpartition("\n\nExit")[0])
        return 0
    if name not in COMMANDS:
        return refuse(f"There is no command {name!r}; there are {', '.join(COMMANDS)}.")
    try:
        module, _, function = COMMANDS[name].partition(":")
        code: int = getattr(importlib.import_module(module), function)(rest)
        return code
    except BrokenPipeError:  # of `recon list | head`
        sys.stderr.close()
        return 0
