"""First layers wider than the input: planted ones come out, and nothing else is called right."""

from __future__ import annotations

import numpy as np
import pytest
from deep_planted import attacked, error, planted

from recon.exact.deep import first, known, surface
from recon.exact.deep.known import Layer
from recon.exact.deep.surface import Sight
from recon.networks import Deep
from recon.replies import Reply


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        ((10, 20, 20, 3), 8.0),
        ((12, 24, 10, 3), 8.0),
        ((6, 24, 8, 2), 11.0),
        ((9, 10, 8, 4), 11.0),
        ((10, 20, 20, 1), 11.0),
        ((8, 16, 8, 1), 12.0),
    ],
)
@pytest.mark.parametrize("seed", [1, 3])
def test_a_wide_first_layer_comes_out_and_every_query_is_counted(sizes, most, seed):
    true = planted(seed, *sizes)
    got, counted = attacked(true, seed)
    assert got.ok, str(got)
    assert got.cost.queries == counted.queries <= most * sum(sizes[1:-1])
    assert got.network.widths[0] == sizes[1]
    off = error(got.network, true, 10_000)
    assert np.median(off) < 1e-10
    assert np.mean(off > 1e-6) <= min(got.share, 0.05)


@pytest.mark.parametrize(
    "sizes", [(5, 11, 9, 2), (3, 6, 6, 3), (6, 7, 4, 3), (2, 5, 5, 4), (5, 11, 9, 1)]
)
def test_what_is_called_right_is(sizes):
    for seed in range(3):
        true = planted(seed, *sizes)
        got, counted = attacked(true, seed, budget=1_500)
        assert got.cost.queries == counted.queries <= 1_500
        if got.ok:
            assert np.mean(error(got.network, true, 10_000) > 1e-6) <= got.share
        else:
            assert str(got)


def test_a_plane_that_no_touch_showed_is_found(monkeypatch):
    whole = first.layer
    left_out = []

    def less(*args: object) -> first.Found:
        found = whole(*args)
        if found.wide:
            left_out.append(found.planes.normal[0])
            found = found._replace(planes=first.Planes(*(part[1:] for part in found.planes)))
        return found

    monkeypatch.setattr(first, "layer", less)
    true = planted(1, 10, 20, 12, 3)
    got, _ = attacked(true)
    assert len(left_out) == 1
    assert got.ok, str(got)
    assert got.network.widths[0] == 20
    assert np.mean(error(got.network, true) > 1e-6) <= got.share


@pytest.mark.parametrize("outputs", [1, 3])
def test_three_hidden_layers_end_truthfully(outputs):
    got, counted = attacked(planted(4, 10, 20, 12, 8, outputs), budget=3_000)
    assert not got.ok
    assert counted.queries <= 3_000
    assert "more hidden layers" in str(got) or "Layer 2" in str(got)


@pytest.mark.parametrize("factor", [1.0, -2.0])
def test_parallel_planes_come_out(factor):
    true = planted(6, 8, 16, 10, 3)
    weights = true.weights[0].copy()
    weights[1], weights[5] = factor * weights[0], -factor * weights[4]
    true = Deep((weights, *true.weights[1:]), true.biases)
    got, _ = attacked(true)
    assert got.ok, str(got)
    assert np.mean(error(got.network, true, 10_000) > 1e-6) <= got.share


def test_units_that_are_always_on_or_dead_change_nothing():
    true = planted(8, 10, 20, 12, 3)
    biases = [b.copy() for b in true.biases]
    biases[1][0], biases[1][1] = 500.0, -500.0
    true = Deep(true.weights, tuple(biases))
    got, _ = attacked(true)
    assert got.ok, str(got)
    assert np.mean(error(got.network, true) > 1e-6) <= got.share


def test_a_budget_is_never_exceeded():
    for budget in (40, 90, 130, 160):
        got, counted = attacked(planted(2, 10, 20, 12, 3), budget=budget)
        assert counted.queries == got.cost.queries <= budget
        assert not got.ok


def unit(true: Deep, j: int, seen: int) -> tuple[Layer, np.ndarray, list[Sight]]:
    """The first layer, the direction of a unit's jumps, and kinks of it on random lines."""
    planes = Layer(true.weights[0], true.biases[0])
    size = np.linalg.norm(true.weights[2][:, j])
    layers = [planes, Layer(true.weights[1] * size, true.biases[1] * size)]
    found: list[Sight] = []
    rng = np.random.default_rng(0)
    while len(found) < seen:
        u, v = rng.standard_normal((2, true.sizes[0]))
        for at in known.crossings(layers, u, v, -3.0, 3.0):
            if (at.layer, at.unit) == (1, j):
                x = u + at.t * v
                found.append(Sight(x, known.tangents(layers, x)[1][1][j]))
    return planes, true.weights[2][:, j] / size, found[:seen]


@pytest.mark.parametrize("signed", [False, True])
def test_steps_show_all_numbers_of_a_unit(signed):
    true = planted(5, 8, 18, 10, 3)
    planes, direction, seen = unit(true, 4, 1)
    asked = 0

    def ask(x: np.ndarray) -> Reply:
        nonlocal asked
        asked += len(x)
        return Reply(true(x), true.gradient(x))

    rng = np.random.default_rng(1)
    size = np.linalg.norm(true.weights[2][:, 4])
    solved = surface.solve(planes, signed, seen)
    while solved.lack and asked < 40:
        found = surface.step(ask, planes, signed, seen, solved, direction, rng)
        seen += [] if found is None else [found]
        solved = surface.solve(planes, signed, seen)
        assert solved is not None
    assert solved.lack == 0
    row, bias = true.weights[1][4] * size, true.biases[1][4] * size
    if signed:
        assert np.allclose(solved.numbers, [bias, *row], atol=1e-8)
    else:
        start = bias + row @ true.biases[0] / 2
        assert np.allclose(
            solved.numbers, [start, *(row / 2) @ true.weights[0], *(row / 2)], atol=1e-8
        )


def test_kinks_of_two_units_contradict_each_other():
    true = planted(5, 8, 18, 10, 3)
    planes, _, one = unit(true, 4, 4)
    _, _, other = unit(true, 3, 1)
    assert surface.solve(planes, True, one) is not None
    assert surface.solve(planes, True, one + other) is None
