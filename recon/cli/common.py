"""What the commands share: where they print, and how they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

RESULTS = Path("results")
WIDE = 160  # columns of a table that no terminal bounds
console = Console(stderr=True)  # progress and messages; what is asked for goes to stdout
Names = Annotated[tuple[str, ...], tyro.conf.Positional]


def refuse(sentence: Any) -> int:
    """Say why in one sentence; the exit code."""
    print(sentence, file=sys.stderr)
    return 2


def show(table: Table) -> None:
    """Print a table; in full width where no terminal bounds it."""
    out = Console()
    if not out.is_terminal:
        out.width = WIDE
    out.print(table)
