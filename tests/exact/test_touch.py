"""The linear algebra of touching points against NumPy's."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.exact import touch

SIZE, DIM = 4, 9
seeds = st.integers(0, 2**31)
masks = st.lists(st.booleans(), min_size=SIZE, max_size=SIZE).map(np.array)


@pytest.fixture(autouse=True, scope="module")
def double():
    with jax.enable_x64(True):
        yield


def unit_rows(rng, size=SIZE, dim=DIM):
    rows = rng.normal(size=(size, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=["numpy", "jax"], scope="module")
def run(request):
    """f as NumPy runs it, or compiled by JAX."""
    compiled = {}

    def numpy(f):
        return f

    def traced(f):
        return compiled.setdefault(f, jax.jit(f))

    return numpy if request.param == "numpy" else traced


def key(run, seed):
    return seed if run(abs) is abs else jax.random.key(seed)


@settings(max_examples=30)
@given(seeds, masks)
def test_the_inverse_is_that_of_the_valid_rows(run, seed, valid):
    rows = unit_rows(np.random.default_rng(seed))
    found, keep = (np.asarray(a) for a in run(touch.inverse)(rows @ rows.T, valid))
    np.testing.assert_array_equal(keep, valid)
    assert not found[~valid].any()
    assert not found[:, ~valid].any()
    inner = np.ix_(valid, valid)
    expected = np.linalg.inv((rows @ rows.T)[inner])
    np.testing.assert_allclose(found[inner], expected, rtol=1e-8, atol=1e-10)


@settings(max_examples=30)
@given(seeds, masks, st.floats(0, 1e-8))
def test_rows_that_depend_on_earlier_ones_are_dropped(run, seed, valid, nudge):
    rng = np.random.default_rng(seed)
    rows = unit_rows(rng)
    mixed = rng.uniform(1, 2, 2) @ rows[:2] + nudge * rng.normal(size=DIM)
    rows[2] = mixed / np.linalg.norm(mixed)
    rows[3] = -rows[0]
    kept_rows, keep, gram_inverse = (np.asarray(a) for a in run(touch.factor)(rows, valid))
    expected = valid.copy()
    expected[2] &= not (valid[0] and valid[1])
    expected[3] &= not valid[0]
    if valid[1] and valid[2] and not valid[0]:  # then row 3 is -row 0, in the span of 1 and 2
        expected[3] = False
    np.testing.assert_array_equal(keep, expected)
    np.testing.assert_array_equal(kept_rows, np.where(keep[:, None], rows, 0))
    identity = gram_inverse @ (kept_rows @ kept_rows.T)
    np.testing.assert_allclose(identity, np.diag(keep.astype(float)), atol=1e-7)


@settings(max_examples=30)
@given(seeds, masks)
def test_coefficients_are_those_of_least_squares(run, seed, valid):
    rng = np.random.default_rng(seed)
    rows, _, gram_inverse = run(touch.factor)(unit_rows(rng), valid)
    vector = rng.normal(size=DIM)
    found = np.asarray(run(touch.coefficients)(rows, gram_inverse, vector))
    expected = np.linalg.lstsq(np.asarray(rows).T, vector)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=30)
@given(seeds, masks, st.floats(-12, 3), st.floats(0, 8))
def test_touching_points_meet_their_levels_far_apart(run, seed, valid, small, far):
    rng = np.random.default_rng(seed)
    rows, keep, gram_inverse = run(touch.factor)(unit_rows(rng), valid)
    level = np.where(keep, 10.0**small * rng.normal(size=SIZE), 0.0)
    radius = 10.0**far
    pair = np.asarray(run(touch.touch)(key(run, seed + 1), rows, gram_inverse, level, radius))
    rounding = 1e-15 * (radius + np.abs(level).max()) * 20
    np.testing.assert_allclose(pair @ np.asarray(rows).T, [level, level], atol=rounding, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(pair[0] - pair[1]), 2 * radius, rtol=1e-9)


def test_nearly_dependent_rows_are_solved_as_well_as_they_can_be(run):
    rng = np.random.default_rng(0)
    rows = unit_rows(rng)
    rows[1] = rows[0] + 2e-3 * rows[1]  # just outside what counts as dependent
    rows[1] /= np.linalg.norm(rows[1])
    kept, keep, gram_inverse = run(touch.factor)(rows, np.ones(SIZE, bool))
    assert keep.all()
    truth = rng.normal(size=SIZE)
    found = run(touch.coefficients)(kept, gram_inverse, truth @ rows)
    np.testing.assert_allclose(found, truth, rtol=1e-8)
    pair = run(touch.touch)(key(run, 0), kept, gram_inverse, np.full(SIZE, 1e-9), 1.0)
    np.testing.assert_allclose(pair @ rows.T, np.full((2, SIZE), 1e-9), atol=1e-14)


def test_one_linear_solve_tells_single_units_from_sums_of_several(run):
    """The identity in the module's docstring, on a network of which two pairs are merged."""
    rng = np.random.default_rng(1)
    dim, far = 20, 1e7
    true_rows, weights = unit_rows(rng, 8, dim), rng.normal(size=8)
    jumps = true_rows * weights[:, None]  # units 0+1 and 2+3 are taken for one each
    presumed = np.stack([jumps[0] + jumps[1], jumps[2] + jumps[3], jumps[4], jumps[5]])

    def gradient(x):
        return jumps.T @ (true_rows @ x > 0)

    size = np.linalg.norm(presumed, axis=1, keepdims=True)
    rows, keep, gram_inverse = run(touch.factor)(presumed / size, np.ones(4, bool))
    v = rng.normal(size=dim)
    level = np.full(4, 1e-3)
    plus, minus = np.asarray(run(touch.touch)(key(run, 0), rows, gram_inverse, level, far))
    found = gradient(plus) + gradient(minus) - gradient(far * v) - gradient(-far * v)
    z = np.asarray(run(touch.coefficients)(rows, gram_inverse, found)) / size[:, 0]
    assert keep.all()
    np.testing.assert_allclose(z, [0, 0, 1, 1], atol=1e-9)
