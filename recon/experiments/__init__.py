"""Experiments: one frozen dataclass each, its settings as fields, run() -> rows.

An experiment's docstring says which claim it tests, by which command, in how many minutes
on which device, and what number to expect.  To add one: a dataclass (one that trains students
extends `matching.Matching`), a line in EXPERIMENTS and, where a picture helps, a function in
`recon.figures`.
"""

from recon.experiments.algorithm1 import Figure1, Theorem1
from recon.experiments.attack import Queries, Robust, Speed
from recon.experiments.bench import Bench
from recon.experiments.cells import Resumable, SettingsError
from recon.experiments.chosen import Chosen
from recon.experiments.common import EXACT, Experiment, Row, Summarised, relative_error
from recon.experiments.filters import Filters
from recon.experiments.lemmas import Lemma2, Lemma3
from recon.experiments.matching import (
    Ensemble,
    EnsembleGaussian,
    Figure2,
    Figure3,
    Figure4,
    Forms,
    Large,
    Masks,
    Pool,
)
from recon.experiments.saliency import Saliency
from recon.experiments.single import Attack
from recon.experiments.steps import Steps
from recon.experiments.sweep import Sweep
from recon.experiments.sweeps import (
    SweepDecayGaussian,
    SweepGaussian,
    SweepLong,
    SweepLongGaussian,
    SweepMasks,
    SweepMasksGaussian,
    SweepWide,
    SweepWideGaussian,
)
from recon.experiments.told import Told, ToldGaussian

EXPERIMENTS: dict[str, Experiment] = {
    "lemma2": Lemma2(),
    "lemma3": Lemma3(),
    "theorem1": Theorem1(),
    "figure1": Figure1(),
    "queries": Queries(),
    "robust": Robust(),
    "speed": Speed(),
    "bench_exact": Bench(),
    "bench_distill": Steps(),
    "fig2_mnist": Figure2(),
    "fig3_mnist": Figure3(),
    "fig4_mnist": Figure4(),
    "pool_mnist": Pool(),
    "chosen_mnist": Chosen(),
    "ensemble_mnist": Ensemble(),
    "ensemble_gaussian": EnsembleGaussian(),
    "large_mnist": Large(),
    "forms_mnist": Forms(),
    "masks_mnist": Masks(),
    "told_mnist": Told(),
    "told_gaussian": ToldGaussian(),
    "filters_mnist": Filters(),
    "saliency": Saliency(),
    "sweep": Sweep(),
    "sweep_gaussian": SweepGaussian(),
    "sweep_masks": SweepMasks(),
    "sweep_masks_gaussian": SweepMasksGaussian(),
    "sweep_decay_gaussian": SweepDecayGaussian(),
    "sweep_long": SweepLong(),
    "sweep_long_gaussian": SweepLongGaussian(),
    "sweep_wide": SweepWide(),
    "sweep_wide_gaussian": SweepWideGaussian(),
}

__all__ = [
    "EXACT",
    "EXPERIMENTS",
    "Attack",
    "Experiment",
    "Resumable",
    "Row",
    "SettingsError",
    "Summarised",
    "relative_error",
]
