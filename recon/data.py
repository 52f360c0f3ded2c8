"""Image data as arrays, one function per data set; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Examples(NamedTuple):
    """n labelled examples: inputs `x` [n, d] in [0, 1], labels `y` [n], an int32 class each."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Three disjoint parts of one data set, as in section 5 of the paper.

    train: what the victim is trained on; pool: what an attacker may query with; test:
    what every accuracy is measured on.  `name` is the label for tables and figures.
    """

    name: str
    classes: int
    train: Examples
    pool: Examples
    test: Examples


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
    return split("digits", x / 16, y, seed, parts=(5, 1, 1))


def split(
    name: str, x: np.ndarray, y: np.ndarray, seed: int, parts: tuple[int, int, int]
) -> Dataset:
    """x [n, d] and y [n], shuffled by `seed` and cut into train, pool and test as `parts` go."""
    order = np.random.default_rng(seed).permutation(len(x))
    pool, test = (len(x) * part // sum(parts) for part in parts[1:])
    train = len(x) - pool - test
    chunks = np.split(order, [train, train + pool])
    examples = [Examples(x[rows], y[rows].astype(np.int32)) for rows in chunks]
    return Dataset(name, len(np.unique(y)), *examples)
