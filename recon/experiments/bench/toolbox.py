"""The Adversarial Robustness Toolbox (ART) as a method to compare with; only file to import it.

Its FunctionallyEquivalentExtraction (after Jagielski et al., arXiv 1909.01838) learns two dense
layers from values alone, for a known width and at least two outputs.  It need not end, so it runs
in a process of its own that is killed at a time limit; what it has asked is counted in a file
that both processes map, and so is known of a killed one too.

    this process                                  the other
    victim0.npz, victim1.npz, ...      ------>    serve: ART's version, then a line a victim
    counts.npy [victims, 2]            <------    rows and calls of the predict function
    extract -> [Extraction]            <------    answer0.npz, ... where one was returned
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recon import networks
from recon.networks import TwoLayer
from recon.oracles import Cost

SAMPLES = 10  # input samples a hidden unit for its last least squares, our own choice


class Extraction(NamedTuple):
    """How one extraction ended: "returned", "raised", "limit" or "absent" (not installed).

    network: what it returned; cost: what the predict function was asked; seconds: without
    imports, the limit where it was killed; detail: the exception; version: ART's.
    """

    end: str
    network: TwoLayer | None
    cost: Cost
    seconds: float | None
    detail: str
    version: str | None


def extract(victims: Sequence[TwoLayer], limit: float) -> list[Extraction]:
    """ART's attack with its default settings on each victim, at most `limit` seconds each.

    In float64: its ART_NUMPY_DTYPE is set, and its default preprocessing, which rounds queries
    to float32, taken out; in its own float32 it does not end on any network we tried.  Victim i
    has NumPy's seed i.  Raises RuntimeError if the other process dies before its time.
    """
    done: list[Extraction] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, victim in enumerate(victims):
            victim.save(folder / f"victim{i}")
        counts = np.lib.format.open_memmap(
            folder / "counts.npy", mode="w+", dtype=np.int64, shape=(len(victims), 2)
        )
        while len(done) < len(victims):
            done += _until_killed(folder, counts, victims, limit, first=len(done))
    return done


def _until_killed(
    folder: Path,
    counts: np.ndarray,
    victims: Sequence[TwoLayer],
    limit: float,
    first: int,
) -> list[Extraction]:
    """The extractions from `first` on that one process does: all, or up to one it never ends."""
    done: list[Extraction] = []
    program = f"from {__name__} import serve; serve()"
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            version = _line(child, 600.0)
            if version is None or version["version"] is None:
                absent = Extraction("absent", None, Cost(), None, "ART is not installed.", None)
                return [absent] * (len(victims) - first)
            for i in range(first, len(victims)):
                answer = _line(child, limit)
                rows, calls = (int(count) for count in counts[i])
                outputs = victims[i].slope.shape[0]
                cost = Cost(values=rows, numbers=rows * outputs, rounds=calls)
                if answer is None:
                    detail = f"Ended by the limit of {limit:g} s."
                    end: Extraction = Extraction("limit", None, cost, limit, detail, None)
                else:
                    path = folder / f"answer{i}.npz"
                    network = networks.load(path) if path.exists() else None
                    end = Extraction(network=network, cost=cost, version=None, **answer)
                done.append(end._replace(version=version["version"]))
                if answer is None:
                    break
        finally:
            child.kill()
    return done


def _line(child: Any, limit: float) -> dict[str, Any] | None:
    """The next line of the process, or None where it was killed at the limit."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(limit, kill)
    timer.start()
    try:
        text = child.stdout.readline()
    finally:
        timer.cancel()
    if not text and not late.is_set():
        raise RuntimeError(f"ART's process ended early, with exit code {child.wait()}")
    return json.loads(text) if text else None


# --- The other process ------------------------------------------------------------------------


def serve() -> None:
    """Extract the victims of a folder in order; arguments: folder, first victim."""
    folder, first = Path(sys.argv[1]), int(sys.argv[2])
    warnings.simplefilter("ignore")  # of frameworks it does not find, and of divisions by zero
    out, sys.stdout = sys.stdout, sys.stderr  # nothing else may print between our lines

    def tell(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=out, flush=True)

    try:
        import art.config
    except ModuleNotFoundError:
        return tell({"version": None})
    art.config.ART_NUMPY_DTYPE = np.float64
    import art.attacks.extraction
    import art.estimators.classification

    tell({"version": art.__version__})
    counts = np.load(folder / "counts.npy", mmap_mode="r+")
    for i in range(first, len(counts)):
        victim = networks.load(folder / f"victim{i}.npz")
        np.random.seed(i)  # noqa: NPY002  (ART draws from NumPy's global generator)
        start, end, detail = time.perf_counter(), "returned", ""
        try:
            answer = _attack(_counting(victim, counts[i]), victim)
        except Exception as error:
            end = "raised"
            detail = f"{type(error).__name__}: {error}".partition("\n")[0]
        seconds = time.perf_counter() - start
        if end == "returned":
            answer.save(folder / f"answer{i}")
        tell({"end": end, "seconds": seconds, "detail": detail})
    return None


def _counting(victim: TwoLayer, count: np.ndarray) -> Callable:
    """The victim's values [n, K] at x [n, d]; count [2]: rows and calls."""

    def predict(x: np.ndarray) -> np.ndarray:
        count[0] += len(x)
        count[1] += 1
        return victim(x.astype(np.float64))

    return predict


def _attack(predict: Callable, victim: TwoLayer) -> TwoLayer:
    """ART's answer as a record."""
    from art.attacks.extraction import FunctionallyEquivalentExtraction
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    outputs, dim = victim.slope.shape
    classifier = BlackBoxClassifierNeuralNetwork(
        predict, input_shape=(dim,), nb_classes=outputs, preprocessing=None
    )
    attack = FunctionallyEquivalentExtraction(classifier, num_neurons=victim.width)
    samples = np.random.normal(size=(SAMPLES * (victim.width + 1), dim))  # noqa: NPY002
    attack.extract(samples)
    return TwoLayer(
        rows=attack.w_0.T,
        bias=attack.b_0[:, 0],
        weights=attack.w_1.T,
        slope=np.zeros((outputs, dim)),
        offset=attack.b_1[:, 0],
    )
