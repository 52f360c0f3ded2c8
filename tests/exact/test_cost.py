"""What the tangent method costs, and that a budget is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from planted import DIM, WIDTH, recover

from recon.exact import Status


def test_the_cost_is_what_a_host_oracle_saw(random_truth, counting_host):
    for seed in range(5):
        for told, budget in ((None, None), (WIDTH, None), (3, None), (None, 45)):
            seen = counting_host(random_truth(seed))
            found = recover(seen.oracle, seed, width=told, budget=budget)
            assert found.cost == seen.cost
            assert found.cost.values == 0
            assert found.cost.numbers == found.cost.gradients * (DIM + 1)


def test_the_cost_is_what_a_traced_oracle_saw(random_truth, counting_traced):
    for seed in range(3):
        seen = counting_traced(random_truth(seed))
        found = recover(seen.oracle, seed, budget=None if seed else 45)
        assert found.ok == (seed > 0)
        assert replace(found.cost, rounds=0) == replace(seen.cost, rounds=0)
        assert 0 < found.cost.rounds <= seen.cost.rounds


def test_more_outputs_cost_more_numbers(random_truth, attack):
    cost = attack(random_truth(0, outputs=10)).cost
    assert cost.numbers == cost.queries * 10 * (DIM + 1)


@settings(max_examples=40)
@given(
    budget=st.integers(0, 100),
    told=st.sampled_from([None, 1, WIDTH, 30]),
    seed=st.integers(0, 3),
)
@example(budget=34, told=None, seed=0)  # the last points settled make no interval
def test_a_budget_is_never_exceeded(random_truth, error, counting_host, budget, told, seed):
    truth = random_truth(seed)
    seen = counting_host(truth)
    found = recover(seen.oracle, seed, width=told, budget=budget)
    assert found.cost == seen.cost
    assert found.cost.queries <= budget
    if found.ok:
        assert error(found.network, truth) < 1e-11
    else:
        assert found.status in (Status.BUDGET, Status.UNCERTIFIED)
        assert found.certificate > 1e-11


def test_a_budget_of_just_what_it_takes_is_enough(random_truth, attack):
    truth = random_truth(0)
    takes = attack(truth).cost
    assert attack(truth, budget=takes.queries).cost == takes
    short = attack(truth, budget=takes.queries - 1)
    assert short.status is Status.BUDGET
    assert short.network.width == WIDTH
    assert "The certificate needs" in str(short)


@pytest.mark.parametrize("budget", [0, 1, 2, 3, 10])
def test_a_small_budget_leaves_a_partial_network(random_truth, attack, budget):
    found = attack(random_truth(0), budget=budget)
    assert found.status is Status.BUDGET
    assert not found.ok
    assert found.cost.queries <= budget
    assert found.certificate == np.inf
    assert (found.network is None) == (budget == 0)
    if budget == 10:
        assert 0 < found.network.width < WIDTH
        assert np.isfinite(found.network.rows).all()


@pytest.mark.slow
def test_a_full_array_grows_and_the_answer_stays(random_truth, attack, error):
    """Told 20 units, the arrays hold 128 points: they must grow for eight times more units."""
    truth = random_truth(0, 2, 160)
    found = attack(truth, width=20)
    assert found.status is Status.OTHER_WIDTH
    assert found.network.width == 160
    assert found.cost.queries > 128
    assert error(found.network, truth) < 1e-11
