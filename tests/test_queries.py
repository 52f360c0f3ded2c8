"""What a seed asks: it depends on the seed and the pool alone, and fewer are the first of more."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recon import data
from recon.experiments.services import QUERIES, order


def points(n, dim=4, classes=3):
    """A data set of random points; nobody trains on it."""
    x = np.random.default_rng(0).random((n, dim)).astype(np.float32)
    part = data.Examples(x, np.zeros(n, np.int32))
    return data.Dataset("points", classes, (2, 2, 1), part, part, part)


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1), st.integers(2, 60), st.data())
def test_a_seeds_queries_depend_on_the_seed_and_the_pool_alone(seed, size, data):
    dataset = points(size)
    few = data.draw(st.integers(1, size))
    for queries in ("pool", "gaussian"):
        every = QUERIES[queries](dataset, size, seed)
        np.testing.assert_array_equal(QUERIES[queries](dataset, few, seed), every[:few])
    assert sorted(order(size, seed)) == [*range(size)]


def test_seeds_ask_other_queries_and_gaussian_ones_are_standard_normal():
    dataset = points(400)
    first, second = (QUERIES["pool"](dataset, 10, seed) for seed in (0, 1))
    assert not np.array_equal(first, second)
    x = QUERIES["gaussian"](points(5, 50), 2_000, 0)
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02


@settings(max_examples=10)
@given(st.integers(1, 12), st.integers(0, 5), st.integers(1, 3))
def test_medoids_are_different_rows_though_rows_repeat(count, seed, spread):
    x = np.random.default_rng(seed).integers(0, spread, (12, 3)) / 4
    x = np.column_stack([x, np.arange(12) * 1e-3])  # so that a row has a name
    dataset = replace(points(12), pool=data.Examples(x, np.zeros(12, np.int32)))
    found = QUERIES["medoids"](dataset, count, seed)
    assert len(np.unique(found[:, 3])) == count
    np.testing.assert_array_equal(found, QUERIES["medoids"](dataset, count, seed))


def test_medoids_are_rows_of_the_pool_and_means_are_of_clusters():
    rng = np.random.default_rng(0)
    centres = 100 * np.eye(4)[:3]
    x = np.concatenate([c + rng.normal(size=(20, 4)) for c in centres]).astype(np.float32)
    part = data.Examples(x, np.zeros(60, np.int32))
    dataset = data.Dataset("points", 3, (2, 2, 1), part, part, part)
    middles = QUERIES["means"](dataset, 3, 1)
    assert all(np.linalg.norm(middles - c, axis=1).min() < 2 for c in centres)
    medoids = QUERIES["medoids"](dataset, 3, 1)
    assert len({row.tobytes() for row in medoids}) == 3
    assert all((x == row).all(axis=1).any() for row in medoids)
