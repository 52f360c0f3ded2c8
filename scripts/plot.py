"""Draw figures again from the committed rows: python scripts/plot.py NAME ...|all

No experiment is run: a figure is a function of results/NAME/rows.csv.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from recon import figures


def main(argv: Sequence[str]) -> int:
    """Draw what is named; returns the exit code."""
    return tyro.cli(plot, prog="plot.py", args=argv)


def plot(
    names: Annotated[tuple[str, ...], tyro.conf.Positional], results: Path = Path("results")
) -> int:
    """Draw figures again from their rows.

    Args:
        names: Experiments, or all: those with rows in the results folder.
        results: The results folder.
    """
    names = tuple(name.replace("-", "_") for name in names)
    unknown = [name for name in names if name not in (*figures.FIGURES, "all")]
    if unknown or not names:
        wrong = ", ".join(map(repr, unknown)) or "no name"
        print(
            f"There is no figure for {wrong}; there are {', '.join(figures.FIGURES)}, all.",
            file=sys.stderr,
        )
        return 2
    if "all" in names:
        names = tuple(name for name in figures.FIGURES if (results / name / "rows.csv").exists())
    for name in names:
        try:
            print(f"Drew {figures.draw(name, results / name)}")
        except FileNotFoundError:
            print(
                f"{results / name} holds no rows: run scripts/run.py {name} first.", file=sys.stderr
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
