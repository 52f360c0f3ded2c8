"""Experiments: settings that run to rows; one frozen dataclass for each thing that is measured.

A head says which claim is tested, in how many minutes on which device, and what number to expect.
To add a variant: a row (`mnist.py`, `cifar10.py`).  To add a measurement: a dataclass, a line in
EXPERIMENTS and, where a picture helps, a function in `recon.reports`.
"""

from recon.experiments.algorithm1 import Figure1, Theorem1
from recon.experiments.bench.exact import Bench
from recon.experiments.bench.steps import Steps
from recon.experiments.cifar10 import CIFAR10
from recon.experiments.common import (
    EXACT,
    Experiment,
    SettingsError,
    Summarised,
    head,
    relative_error,
)
from recon.experiments.depth import Depth
from recon.experiments.lemmas import Lemma2, Lemma3
from recon.experiments.mnist import MNIST
from recon.experiments.rebuild import Rebuild, Where
from recon.experiments.recovery import Queries, Robust
from recon.experiments.saliency import Saliency
from recon.experiments.views import Views

EXPERIMENTS: dict[str, Experiment] = {
    "lemma2": Lemma2(),
    "lemma3": Lemma3(),
    "theorem1": Theorem1(),
    "figure1": Figure1(),
    "queries": Queries(),
    "robust": Robust(),
    "views": Views(),
    "depth": Depth(),
    "bench-exact": Bench(),
    "bench-distill": Steps(),
    **MNIST,
    **CIFAR10,
    "saliency": Saliency(),
}

__all__ = [
    "EXACT",
    "EXPERIMENTS",
    "Rebuild",
    "SettingsError",
    "Summarised",
    "Where",
    "head",
    "relative_error",
]
