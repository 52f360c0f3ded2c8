"""Image data as arrays: digits are embedded, mnist and cifar10 are looked for on disk.

`mnist` and `cifar10` take, in this order: what an earlier call prepared; the official files
in `data_dir` (or the folder the environment variable RECON_DATA names), directly in it or in
mnist/ and cifar10/; and only if asked with `download=True`, the network.  Where none of these
gives the data, a DataError says so at once, in one line.

The prepared form is array_record as tensorflow-datasets writes it, in `RECON_CACHE` (default:
~/.cache/recon) under its name and version; it can be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recon.data import official, prepared
from recon.data.official import DataError
from recon.data.prepared import cache_folder

__all__ = [
    "DATASETS",
    "SHAPES",
    "DataError",
    "Dataset",
    "Examples",
    "cache_folder",
    "cifar10",
    "digits",
    "load",
    "mnist",
    "split",
    "validation",
]


class Examples(NamedTuple):
    """n labelled examples: inputs `x` [n, d] in [0, 1], labels `y` [n], an int32 class each."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Three disjoint parts of one data set, as in section 5 of the paper.

    train: what the victim is trained on; pool: what an attacker may query with; test:
    what every accuracy is measured on.  `name` is the label for tables and figures, `shape` the
    image that a row of x is, as (height, width, channels), `seed` what it was split with.
    """

    name: str
    classes: int
    shape: tuple[int, ...]
    train: Examples
    pool: Examples
    test: Examples
    seed: int | None = None


def digits(seed: int = 0) -> Dataset:
    """scikit-learn's 1,797 handwritten 8x8 digits; they are not MNIST.

    They come inside the scikit-learn package (Alpaydin and Kaynak, UCI repository).
    x is float64, so it follows the precision in force, and holds exact multiples of
    1/16.  `seed` shuffles; the parts have 1285, 256 and 256 examples, the proportions
    5 : 1 : 1 of the paper's MNIST split.  ImportError if scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("digits come with scikit-learn: pip install scikit-learn") from error
    x, y = load_digits(return_X_y=True)
    return replace(split("digits", x / 16, y, seed, parts=(5, 1, 1)), shape=(8, 8, 1))


def mnist(seed: int = 0, data_dir: str | Path | None = None, download: bool = False) -> Dataset:
    """MNIST, 28x28 grey: 50,000 train, 10,000 pool and the official 10,000 test examples.

    `seed` shuffles the official training file before it is cut 5 : 1 (section 5 of the paper;
    which examples are which, it does not say).  x is float32.  DataError if the files are
    missing or damaged; ImportError without the packages of the `data` extra.
    """
    return _official(official.MNIST, seed, 6, data_dir, download)


def cifar10(seed: int = 0, data_dir: str | Path | None = None, download: bool = False) -> Dataset:
    """CIFAR-10, 32x32 colour: 40,000 train, 10,000 pool and the official 10,000 test examples.

    Otherwise as `mnist`; takes the unpacked binary version or cifar-10-binary.tar.gz.
    """
    return _official(official.CIFAR10, seed, 5, data_dir, download)


DATASETS: dict[str, Callable[..., Dataset]] = {"digits": digits, "mnist": mnist, "cifar10": cifar10}
SHAPES = {"digits": (8, 8, 1), "mnist": official.MNIST.shape, "cifar10": official.CIFAR10.shape}


def load(
    name: str, seed: int = 0, data_dir: str | Path | None = None, download: bool = False
) -> Dataset:
    """The data set `name` of DATASETS; ValueError names those there are."""
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    return digits(seed) if name == "digits" else DATASETS[name](seed, data_dir, download)


def _official(
    source: official.Source, seed: int, share: int, data_dir: str | Path | None, download: bool
) -> Dataset:
    """One in `share` of the official training examples is the pool."""
    parts = prepared.load(source, data_dir, download)
    (images, labels), held = parts["train"], parts["test"]
    order = np.random.default_rng(seed).permutation(len(images))
    cut = len(order) - len(order) // share
    return Dataset(
        source.name,
        source.classes,
        source.shape,
        train=_examples(images[order[:cut]], labels[order[:cut]]),
        pool=_examples(images[order[cut:]], labels[order[cut:]]),
        test=_examples(*held),
        seed=seed,
    )


def _examples(images: np.ndarray, labels: np.ndarray) -> Examples:
    x = images.reshape(len(images), -1).astype(np.float32)
    return Examples(np.divide(x, np.float32(255), out=x), labels.astype(np.int32))


def split(
    name: str, x: np.ndarray, y: np.ndarray, seed: int, parts: tuple[int, int, int]
) -> Dataset:
    """x [n, d] and y [n], shuffled by `seed` and cut into train, pool and test as `parts` go."""
    order = np.random.default_rng(seed).permutation(len(x))
    pool, test = (len(x) * part // sum(parts) for part in parts[1:])
    train = len(x) - pool - test
    chunks = np.split(order, [train, train + pool])
    cut = [Examples(x[rows], y[rows].astype(np.int32)) for rows in chunks]
    return Dataset(name, len(np.unique(y)), x.shape[1:], cut[0], cut[1], cut[2], seed)


def validation(dataset: Dataset, n: int, seed: int = 0) -> Dataset:
    """The data set to tune on: n examples of `train`, drawn by `seed`, take the place of `test`.

    The real test part is nowhere in it, so that nothing tuned with it has seen that part; the
    pool stays.  ValueError unless 0 < n < the size of train.
    """
    train = dataset.train
    if not 0 < n < len(train.x):
        raise ValueError(f"cannot hold {n} of {len(train.x)} training examples out")
    order = np.random.default_rng(seed).permutation(len(train.x))
    held, kept = (Examples(train.x[rows], train.y[rows]) for rows in (order[:n], order[n:]))
    return replace(dataset, name=f"{dataset.name}-validation", train=kept, test=held)
