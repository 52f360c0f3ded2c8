"""What a service answers, what is asked of it, and how students train: a row each.

REPLIES x RECIPES x QUERIES are three axes: any reply can be trained on by any recipe that fits
it, whatever is asked.  A new reply, recipe or choice of queries is a row here and nowhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.vq import kmeans2

from recon import data
from recon.oracles import View


class Service(NamedTuple):
    """What a service shows, and the loss that matches it.

    weight: of its values in place of the one that was tuned for gradients: where the signs of
    these are not shown, values tell them.
    """

    view: View
    loss: str
    weight: float | None = None


REPLIES = {
    "gradient": Service(View(), "projection"),
    "smoothgrad": Service(View(explanation="smoothgrad"), "projection"),
    "top": Service(View(explanation="top"), "top"),
    "membership": Service(View(explanation="none"), "membership"),
    "absolute": Service(View(shown="absolute"), "shown", 10.0),
    "heat map": Service(View(shown="heat_map"), "shown", 10.0),
    "integrated": Service(View(explanation="integrated_gradients"), "shown"),
    "three digits": Service(View(shown="digits_3"), "projection"),
}


class Recipe(NamedTuple):
    """How a student trains, beside what was tuned.

    fixed: fields of `Hyper` that take this value; steps: training steps at least; members: how
    many students are trained, of which the half that fits best answers (`distill.ensemble`);
    known: layers, by the start of their names, that the student has from its victim; replies:
    those it makes sense for.
    """

    fixed: Mapping[str, Any] = MappingProxyType({})
    steps: int = 0
    members: int = 1
    known: str = ""
    replies: tuple[str, ...] = tuple(REPLIES)


GRADIENTS = ("gradient", "smoothgrad", "top")
OTHERS = tuple(name for name, service in REPLIES.items() if service.loss == "shown")
RECIPES = {
    "plain": Recipe(),
    "autodiff": Recipe({"temperature": None}, replies=GRADIENTS),
    "no decay": Recipe({"weight_decay": 0.0}),
    "whole Jacobian": Recipe({"loss": "jacobian"}, replies=("gradient", "smoothgrad")),
    "smoothed": Recipe({"points": 1}, replies=("smoothgrad",)),
    "as gradients": Recipe({"loss": "projection"}, replies=OTHERS),
    "cross-entropy": Recipe({"outputs": "entropy"}, replies=("membership",)),
    "unlabelled": Recipe({"unlabelled": 64}, steps=4_000),
    "ensemble": Recipe(members=8),
    "knows hidden": Recipe(known="hidden"),
    "knows output": Recipe(known="output"),
    "knows convolutions": Recipe(known="Conv"),
    "knows dense layers": Recipe(known="Dense"),
}

# What is subtracted from the images that students of a data set see: about their mean pixel.
DEEP = ("vgg11", "vgg11-quarter", "resnet18", "resnet18-half", "resnet18-quarter")
CENTRES = {("cifar10", name): 0.47 for name in ("conv", *DEEP)}

Queries = Callable[[data.Dataset, int, int], np.ndarray]


def drawn(dataset: data.Dataset, count: int, seed: int) -> np.ndarray:
    """`count` images of the pool: the first of seed's own permutation of all of them."""
    return np.asarray(dataset.pool.x[order(len(dataset.pool.x), seed)[:count]], np.float32)


def order(size: int, seed: int) -> np.ndarray:
    """The permutation of a pool of `size` that belongs to `seed`, and to nothing else."""
    return np.random.default_rng([seed, size]).permutation(size)


def gaussian(dataset: data.Dataset, count: int, seed: int) -> np.ndarray:
    """`count` inputs x ~ N(0, I_d); fewer are the first of more."""
    dim = dataset.pool.x.shape[1]
    return np.random.default_rng([seed, dim]).standard_normal((count, dim), np.float32)


def standardised(dataset: data.Dataset, count: int, seed: int) -> np.ndarray:
    """`gaussian`, for a victim that standardises its images: noise of the mean and deviation that
    the pixels of the pool have.
    """
    x = dataset.pool.x
    return np.asarray(x.mean() + x.std() * gaussian(dataset, count, seed), np.float32)


def means(dataset: data.Dataset, count: int, seed: int) -> np.ndarray:
    """The means of `count` clusters of the pool, by k-means from rows that `seed` draws.

    An emptied cluster keeps its mean.
    """
    points = np.asarray(dataset.pool.x, np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        rng = np.random.default_rng(seed)
        middles, _ = kmeans2(points, count, iter=20, minit="points", rng=rng)
    return np.asarray(middles)


def medoids(dataset: data.Dataset, count: int, seed: int) -> np.ndarray:
    """The images of the pool nearest to each of `means`, none twice."""
    points = np.asarray(dataset.pool.x, np.float32)
    square, rows = np.square(points).sum(axis=1), list[int]()
    for middle in means(dataset, count, seed):
        distance = square - 2 * points @ middle
        distance[rows] = np.inf
        rows.append(int(np.argmin(distance)))
    return points[rows]


NOISE = ("gaussian", "standardised")  # no images, and so without end
QUERIES: dict[str, Queries] = {
    "pool": drawn,
    "gaussian": gaussian,
    "standardised": standardised,
    "medoids": medoids,
    "means": means,
}
