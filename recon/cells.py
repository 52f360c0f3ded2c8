"""Finished cells of a long experiment, kept so that a killed run goes on where it was.

A cell is a few rows that are measured together.  It is kept in `data.cache_folder()`/cells as
one file, named by a digest of all that its rows depend on: settings, victim, queries, the code
that measures (comments and docstrings left out), versions and device.  So a run that is started
again takes what it finds and measures the rest, experiments share the cells they have in common,
and a change of any of these measures anew.  The first line is a digest of the rows: a damaged
cell is measured again.  The folder can be deleted at any time.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recon import data, tables

Row = dict[str, Any]
MEASURING = (
    *("distill", "data", "victims", "masks.py", "convolutions.py", "models.py"),
    "optimizers.py",
    *("paths.py", "explanations.py", "replies.py", "oracles.py"),
    *("experiments/services.py", "experiments/students.py"),
)


def load(settings: Any) -> list[Row] | None:
    """The rows of a finished cell, or None."""
    try:
        name, text = _path(settings).read_text(encoding="utf-8").split("\n", 1)
    except (OSError, ValueError):
        return None
    rows: list[Row] | None = json.loads(text) if name == _name(text) else None  # else damaged
    return rows


def save(settings: Any, rows: list[Row]) -> None:
    """Keep a finished cell; where that fails the run goes on, and says so."""
    path = _path(settings)
    try:
        text = json.dumps(rows)
        tables.write_text(path, f"{_name(text)}\n{text}")
    except OSError as error:
        warnings.warn(
            f"{path.parent} cannot be written ({error.strerror}): this run could not go on after "
            "it was killed; set RECON_CACHE to a folder with room",
            stacklevel=2,
        )


def digest(arrays: Iterable[Any]) -> str:
    """A name for what arrays hold."""
    total = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        total.update(f"{array.shape} {array.dtype}".encode())
        total.update(array.data)
    return total.hexdigest()


def _path(settings: Any) -> Path:
    everything = json.dumps([settings, *surroundings().values(), *_arithmetic()], sort_keys=True)
    return data.cache_folder() / "cells" / f"{_name(everything)}.json"


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _arithmetic() -> tuple[Any, ...]:
    """The settings of JAX that change what it computes."""
    config: Any = jax.config
    return config.jax_default_matmul_precision, config.jax_threefry_partitionable


@cache
def surroundings() -> dict[str, str]:
    """What rows depend on beside their settings: code that measures, versions and device."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")
    device = jax.devices()[0]
    return {
        "code": code(Path(__file__).parent),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "platform": device.platform,
        "device": device.device_kind,
    }


@cache
def measured_by(names: tuple[str, ...]) -> str:
    """A digest of these files and folders of this package."""
    return code(Path(__file__).parent, names)


def code(package: Path, names: Sequence[str] = MEASURING) -> str:
    """A digest of what files and folders of a package do, by default those that measure students:
    comments and docstrings do not change it.
    """
    total = hashlib.sha256()
    for name in names:
        place = package / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                documented = ast.Module | ast.ClassDef | ast.FunctionDef
                if isinstance(node, documented) and ast.get_docstring(node) is not None:
                    del node.body[0]
            total.update(f"{path.relative_to(package).as_posix()} {ast.dump(tree)}".encode())
    return total.hexdigest()
