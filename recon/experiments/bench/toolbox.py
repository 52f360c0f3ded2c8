"""The Adversarial Robustness Toolbox (ART) as a method to compare with; only file to import it.

Its FunctionallyEquivalentExtraction (after Jagielski et al., arXiv 1909.01838) learns two dense
layers from values alone, for a known width and at least two outputs.  It need not end, so it runs
in a process of its own that is killed at a time limit; what it has asked is counted in memory
that both share, and so is known of a killed one too.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from recon.networks import TwoLayer
from recon.oracles import Cost

SAMPLES = 10  # input samples a hidden unit for its last least squares, our own choice
START = 600.0  # seconds that ART may take to be imported


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
    while len(done) < len(victims):
        done += _until_killed(victims[len(done) :], limit, len(done))
    return done


def _until_killed(victims: Sequence[TwoLayer], limit: float, first: int) -> list[Extraction]:
    """The extractions that one process does: all, or up to one it never ends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    counts = context.Array("q", 2 * len(victims))  # rows and calls of each
    child = context.Process(target=serve, args=(theirs, counts, list(victims), first), daemon=True)
    child.start()
    theirs.close()
    done: list[Extraction] = []
    try:
        version = ours.recv() if ours.poll(START) else None
        if version is None:
            absent = Extraction("absent", None, Cost(), None, "ART is not installed.", None)
            return [absent] * len(victims)
        for i, victim in enumerate(victims):
            ended = ours.recv() if ours.poll(limit) else None
            rows, calls = counts[2 * i : 2 * i + 2]
            cost = Cost(values=rows, numbers=rows * victim.slope.shape[0], rounds=calls)
            if ended is None:
                detail = f"Ended by the limit of {limit:g} s."
                return [*done, Extraction("limit", None, cost, limit, detail, version)]
            end, network, seconds, detail = ended
            done.append(Extraction(end, network, cost, seconds, detail, version))
    except EOFError:
        child.join()
        raise RuntimeError(f"ART's process ended early, with exit code {child.exitcode}") from None
    finally:
        child.kill()
    return done


def serve(answers: Any, counts: Any, victims: Sequence[TwoLayer], first: int) -> None:
    """In the other process: send ART's version, then how the extraction of each victim ended."""
    warnings.simplefilter("ignore")  # of frameworks it does not find, and of divisions by zero
    sys.stdout = sys.stderr  # it prints
    try:
        import art.config
    except ModuleNotFoundError:
        return answers.send(None)
    art.config.ART_NUMPY_DTYPE = np.float64
    import art.attacks.extraction
    import art.estimators.classification

    answers.send(art.__version__)
    for i, victim in enumerate(victims):
        np.random.seed(first + i)  # noqa: NPY002  (ART draws from NumPy's global generator)
        start, end, network, detail = time.perf_counter(), "returned", None, ""
        try:
            network = _attack(_counting(victim, counts, 2 * i), victim)
        except Exception as error:
            end = "raised"
            detail = f"{type(error).__name__}: {error}".partition("\n")[0]
        answers.send((end, network, time.perf_counter() - start, detail))
    return None


def _counting(victim: TwoLayer, counts: Any, at: int) -> Callable:
    """The victim's values [n, K] at x [n, d]; counts[at], counts[at + 1]: rows and calls."""

    def predict(x: np.ndarray) -> np.ndarray:
        counts[at] += len(x)
        counts[at + 1] += 1
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
    none = np.zeros((outputs, dim))
    return TwoLayer(attack.w_0.T, attack.b_0[:, 0], attack.w_1.T, none, attack.b_1[:, 0])
