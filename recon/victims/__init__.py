"""Victims to attack: random networks with a planted truth, and networks trained on images.

`recon.victims.brought`, imported by name, takes models of other libraries and model files.
"""

from recon.networks import Deep, TwoLayer
from recon.victims.classifiers import Classifier, classifier, sizes
from recon.victims.digits import (
    Trained,
    deep_classifier,
    digits_classifier,
    digits_scalar,
    image_classifier,
)
from recon.victims.planted import (
    KINDS,
    UNUSUAL,
    oracle_of,
    random_convolutional,
    random_deep,
    random_network,
    random_outside,
    random_unusual,
)
from recon.victims.training import Training, schedule

__all__ = [
    "KINDS",
    "UNUSUAL",
    "Classifier",
    "Deep",
    "Trained",
    "Training",
    "TwoLayer",
    "classifier",
    "deep_classifier",
    "digits_classifier",
    "digits_scalar",
    "image_classifier",
    "oracle_of",
    "random_convolutional",
    "random_deep",
    "random_network",
    "random_outside",
    "random_unusual",
    "schedule",
    "sizes",
]
