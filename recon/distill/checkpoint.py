"""A run on disk between chunks of steps: one .npz file, whole or not at all.

NumPy's own format rather than orbax: the state is one small pytree on one host, a file that
anyone can open, written beside its target and renamed, and no folder of shards to clean up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np


class CheckpointError(OSError):
    """A run that could not be saved; `run` is its result where it was finished, else None."""

    def __init__(self, message: str, run: Any = None):
        super().__init__(message)
        self.run = run


def settings(
    key: Any, hyper: Any, bank: Any, state: Any, probe: Any, chunk: int, measure: int
) -> dict[str, Any]:
    """What must be the same for a run to go on, by name; arrays by their SHA-256."""
    named = {name: np.asarray(value).tolist() for name, value in asdict(hyper).items()}
    return named | {
        "chunk": chunk,
        "measure": measure,
        "key": _digest(jax.random.key_data(key)),
        "bank": _digest(bank),
        "probe": _digest(probe),
        "initial variables": _digest(state.variables),
        "precision": bool(jax.config.jax_enable_x64),  # type: ignore[attr-defined]
    }


def program(student: Any, variables: Any, x: Any, many: bool) -> str:
    """A digest of what a student computes: a run of another one does not go on."""
    if many:
        variables = jax.tree.map(lambda v: v[0], variables)
    shapes = jax.eval_shape(lambda v, x: (v, x), variables, x)
    temperature = jax.ShapeDtypeStruct((), x.dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    texts = [jax.make_jaxpr(student.apply)(*shapes)]
    if student.surrogate is not None:
        texts.append(jax.make_jaxpr(student.surrogate)(*shapes, temperature))
    if student.warp is not None:
        texts.append(jax.make_jaxpr(student.warp)(key, shapes[1]))
    plain = re.sub(r"0x[0-9a-f]+", "", "".join(map(str, texts)))  # addresses of this process
    constants = _digest([text.consts for text in texts])  # of which the text holds shapes alone
    return hashlib.sha256((plain + constants).encode()).hexdigest()


def numbered(path: str | Path, run: int) -> Path:
    """The file of one of many runs that are made in turn."""
    path = _named(path)
    return path.with_name(f"{path.stem}.{run}.npz")


def _named(path: str | Path) -> Path:
    """The path with the ending .npz; other dots in its name are part of it."""
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")


def _digest(tree: Any) -> str:
    leaves, structure = jax.tree.flatten(tree)
    digest = hashlib.sha256(str(structure).encode())
    for leaf in map(np.ascontiguousarray, leaves):
        digest.update(f"{leaf.shape}{leaf.dtype}".encode())
        digest.update(leaf.data)
    return digest.hexdigest()


class Store:
    """The file of one run: `load` once before the first step, `save` after every chunk."""

    def __init__(self, path: str | Path, settings: dict[str, Any]):
        self.path = _named(path)
        self.settings = json.loads(json.dumps(settings))
        self.trouble = ""

    def _there(self) -> bool:
        try:
            return self.path.exists()
        except OSError as error:  # a name that is too long, say
            raise CheckpointError(f"{self.path} cannot be looked for: {error.strerror}") from error

    def load(self, state: Any, curves: dict[str, list]) -> Any:
        """What was saved, or the arguments if nothing was.

        ValueError if the file is of another run, naming what differs, or is no saved run;
        CheckpointError at once, before any step, where nothing can be written.
        """
        if not self._there():
            self._write({"settings": np.array(json.dumps(self.settings))}, probe=True)
            if self.trouble:
                raise CheckpointError(self.trouble)
            return state, curves
        try:
            with self.path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = dict(file)
            before = dict(json.loads(str(arrays["settings"])))
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{self.path} is not a saved run: {error}") from error
        names = sorted(self.settings.keys() | before.keys())
        other = [n for n in names if json.dumps(self.settings.get(n)) != json.dumps(before.get(n))]
        if other:
            raise ValueError(
                f"{self.path} is a run with other settings ({', '.join(other)}): "
                "give the same ones to go on, or another file to start anew"
            )
        leaves, structure = jax.tree.flatten(_plain(state))
        names = [f"state{i}" for i in range(len(leaves))]
        needed = {*names, "curve loss", "curve gradient", "curve membership"}
        if needed - arrays.keys():
            raise ValueError(f"{self.path} is not a saved run: a part of it is missing")
        saved = [arrays[name] for name in names]
        state = _wrapped(jax.tree.unflatten(structure, map(jax.numpy.asarray, saved)), state)
        saved_curves = {n: arrays[f"curve {n}"] for n in curves if f"curve {n}" in arrays}
        curves = {n: [saved_curves[n]] if n in saved_curves else [] for n in curves}
        return state, curves

    def save(self, state: Any, curves: dict[str, list]) -> None:
        """Write it all.  A disk that fills up does not stop the run: `trouble` then says so."""
        arrays = {f"state{i}": np.asarray(v) for i, v in enumerate(jax.tree.leaves(_plain(state)))}
        arrays |= {f"curve {name}": np.concatenate(v) for name, v in curves.items() if v}
        arrays["settings"] = np.array(json.dumps(self.settings))
        self._write(arrays)

    def _write(self, arrays: dict[str, Any], probe: bool = False) -> None:
        part = self.path.with_suffix(".part.npz")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(part, **arrays)
            part.unlink() if probe else part.replace(self.path)
            self.trouble = ""
        except OSError as error:
            self.trouble = f"the run could not be saved to {self.path}: {error.strerror or error}"
            with contextlib.suppress(OSError):  # the folder itself cannot be written
                part.unlink(missing_ok=True)


def _plain(state: Any) -> Any:
    return state._replace(key=jax.random.key_data(state.key))


def _wrapped(state: Any, like: Any) -> Any:
    return state._replace(
        key=jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(like.key))
    )
