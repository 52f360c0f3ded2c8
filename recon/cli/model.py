"""recon attack --model: one attack on a model in a file; what attacks on brought models share."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recon import exact
from recon.exact import derived
from recon.exact.recovery import Recovery
from recon.experiments.common import timed
from recon.networks import Network
from recon.oracles import AnyOracle
from recon.reports.owner import Subject
from recon.victims import brought
from recon.victims.brought import Brought

ROWS = 1_000  # at which the network found is held against the model, apart from the attack


@dataclass(frozen=True)
class FromFile:
    """A model in a file, in place of a random network."""

    model: Path | None = None
    """Recover the model in this file: .joblib, .skops, .pt2, .pt, .keras, .onnx, .safetensors."""
    trust: bool = False
    """Open the file even if that can run code."""
    logits: bool = False
    """Ask for what stands before a softmax or sigmoid at the end of the model."""
    architecture: str | None = None
    """Of a file of arrays alone: mlp (dense layers, ReLU), or MODULE:FUNCTION, your own code."""
    shape: tuple[int, ...] | None = None
    """Shape of one input, where the file does not say."""
    data: Path | None = None
    """Inputs of your own, .npy or .csv: queries are spread as they are, the result checked there"""

    @property
    def given(self) -> list[str]:
        """The options that were set."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]

    def run(self, seed: int, budget: int | None) -> tuple[dict[str, Any], Recovery, Subject]:
        """`attacked`; ValueError for what cannot be attacked."""
        victim = self.victim()
        if victim.dim is None:
            raise ValueError(f"{self.model} does not say how many inputs it takes: give --shape")
        data = None if self.data is None else read(self.data)
        return attacked(victim, str(self.model), seed, budget, data)

    def victim(self) -> Brought:
        """The model of the file; ValueError where it cannot be opened or asked for logits."""
        assert self.model is not None
        model = brought.load(self.model, self.trust, self.architecture)
        try:
            victim = brought.bring(model, logits=self.logits, shape=self.shape)
        except (RuntimeError, TypeError, IndexError, KeyError) as error:  # of the library
            first = str(error).strip().partition("\n")[0]
            raise ValueError(f"{self.model} could not be asked: {first}") from error
        return victim


def attacked(
    victim: Brought,
    source: str,
    seed: int,
    budget: int | None,
    data: np.ndarray | None = None,
    box: tuple[float, float] | None = None,
    rows: int = ROWS,
    whole: bool = False,
) -> tuple[dict[str, Any], Recovery, Subject]:
    """What a person reads, flat, the recovery, and what a report needs besides, of a model whose
    inputs are known.

    box, whole: of `exact.recover`, and where the network is checked.  seconds is the whole attack,
    with what it compiles; max_error is the largest difference between network and model at
    `checked` inputs (`rows` at most), in units of the model's rms there, asked openly after the
    attack and not in its cost, None where none were; same_answers the share of inputs where the
    same output is the largest, None for one output.
    """
    dim = victim.dim
    assert dim is not None
    with jax.enable_x64(True):
        attack_key, check_key = jax.random.split(jax.random.key(seed), 2)
        how = {"dim": dim, "key": attack_key, "budget": budget, "data": data, "box": box}
        seconds, got = timed(lambda: exact.recover(victim.oracle, whole=whole, **how))
        if data is not None:
            x = data[:: -(-len(data) // max(rows, 1))][:rows].astype(np.float64)
        elif box is not None:
            low, high = box
            x = np.asarray(jax.random.uniform(check_key, (rows, dim), minval=low, maxval=high))
            x = np.rint(x) if whole else x
        else:
            x = np.asarray(jax.random.normal(check_key, (rows, dim)))
        error, same = agreement(got.network, victim.oracle, x)
    summary = {
        **{"status": got.status.name, "ok": got.ok, "message": str(got)},
        **{"model": source, "name": victim.name, "note": victim.note},
        **{"dim": dim, "seed": seed},
        **found(got.network),
        "queries": got.cost.queries,
        **asdict(got.cost),
        "checked": len(x),
        "max_error": error if math.isfinite(error) else None,  # JSON has no infinity
        "same_answers": same,
        "certificate": got.certificate if math.isfinite(got.certificate) else None,
        "seconds": seconds,
    }
    own = data is not None
    return summary, got, Subject(victim.name, victim.oracle, x, own, note=victim.note)


def agreement(
    network: Network | None, oracle: AnyOracle, x: np.ndarray
) -> tuple[float, float | None]:
    """The worst error at x [n, d], relative to the rms, and how often the largest output agrees."""
    if network is None or not len(x):
        return math.inf, None
    truth = derived.values(oracle.view, oracle.values(x).astype(np.float64))
    found = np.asarray(network(x))
    rms = float(np.sqrt(np.mean(truth**2)))
    worst = float(np.abs(found - truth).max()) / (rms if rms > 0 else 1.0)
    same = float(np.mean(found.argmax(1) == truth.argmax(1))) if truth.shape[1] > 1 else None
    return worst, same


def found(network: Network | None) -> dict[str, Any]:
    """found_width, the hidden units of all layers together, and found_widths, those of each."""
    return {
        "found_width": None if network is None else network.width,
        "found_widths": None if network is None else list(network.widths),
    }


def units(summary: dict[str, Any]) -> str:
    """How many units were found, of a summary; of each layer, where there are several."""
    text, layers = f"{summary['found_width'] or 'none'} found", summary["found_widths"] or []
    return text + f" ({' + '.join(map(str, layers))})" * (len(layers) > 1)


def described(summary: dict[str, Any], where: str) -> dict[str, str]:
    """The lines a person reads of a summary; where: the inputs that were checked."""
    error, same, certificate = (summary[a] for a in ("max_error", "same_answers", "certificate"))
    asked = f"{summary['checked']:,} {where}, asked apart from the attack"
    worst = "not reached" if error is None else f"{error:.2g} relative, at {asked}"
    lines = {
        "status": summary["message"],
        "units": units(summary),
        "queries": f"{summary['queries']:,}: {summary['gradients']:,} gradients, "
        f"{summary['values']:,} values",
        "numbers": f"{summary['numbers']:,} received",
        "rounds": f"{summary['rounds']:,} batches, one after the other",
        "worst error": "" if not summary["checked"] else worst,
        "same answers": "" if same is None else f"{same:.2%} of them",
        "certificate": "not reached"
        if certificate is None
        else f"{certificate:.2g} relative, over fresh queries",
        "time": f"{summary['seconds']:.3g} s, with what it compiles",
        "note": summary["note"],
    }
    return {name: text for name, text in lines.items() if text}


def read(path: Path) -> np.ndarray:
    """Inputs [n, d] from .npy, later axes flattened, or .csv, a first line of names skipped."""
    try:
        if path.suffix == ".npy":
            x = np.load(path, allow_pickle=False)
            return x.reshape(len(x), -1)
        with path.open(encoding="utf-8") as file:
            first = file.readline().strip().split(",")
        names = any(a.strip().strip('"')[:1].isalpha() for a in first)
        return np.loadtxt(path, delimiter=",", skiprows=int(names), ndmin=2)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} could not be read as inputs: {error}") from error
