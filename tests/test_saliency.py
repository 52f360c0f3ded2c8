"""The choice of SmoothGrad's points and noise: the criterion, and that the code follows it."""

from pathlib import Path

import numpy as np

from recon import explanations, tables
from recon.experiments import saliency

RESULTS = Path(__file__).parents[1] / "results"


def row(victim, points, sigma, inside, repeat):
    return {
        "victim": victim,
        "points": points,
        "sigma": sigma,
        "inside": inside,
        "repeat": repeat,
    }


def test_the_noise_is_chosen_where_points_are_most_and_then_the_least_steady_points():
    rows = [
        row(None, None, None, None, None),
        row("a", 0, 0.0, 0.99, 1.0),
        *(row("a", n, 0.1, 0.9 if n == 5 else 0.4, 0.99) for n in (5, 20, 50)),
        *(row("a", n, 0.2, 0.5, c) for n, c in ((5, 0.9), (20, 0.96), (50, 0.99))),
        *(row("b", n, 0.1, 0.5, 0.99) for n in (5, 20, 50)),
        *(row("b", n, 0.2, 0.5, c) for n, c in ((5, 0.99), (20, 0.94), (50, 0.97))),
    ]
    assert saliency.choose(rows, 0.95) == (50, 0.2)
    assert saliency.choose(rows, 0.93) == (20, 0.2)
    assert saliency.choose(rows, 0.999) == (50, 0.2)  # none is steady: the most points


def test_what_is_drawn_has_a_border_of_one_pixel():
    x = np.zeros((2, 5, 4, 1))
    x[0, 2, 1] = 0.9
    x[1, 0, 3] = 0.4  # not bright
    drawn = saliency._drawn(x.reshape(2, -1), (5, 4, 1)).reshape(2, 5, 4)
    expected = np.zeros((5, 4), bool)
    expected[1:4, 0:3] = True
    np.testing.assert_array_equal(drawn, [expected, np.zeros((5, 4), bool)])


def test_a_map_is_kept_as_grey_levels():
    kept = saliency._row("a", 5, 0.1, 0.5, 0.9, np.array([0.0, -1.0, 0.5]))
    assert next(iter(bytes.fromhex(kept["map"]))) == 0
    assert bytes.fromhex(kept["map"])[1] == 255
    assert 120 < bytes.fromhex(kept["map"])[2] < 140


def test_the_defaults_of_smoothgrad_are_what_the_committed_maps_chose():
    rows, record = tables.read(RESULTS / "saliency")
    chosen = saliency.choose(rows, record["settings"]["steady"])
    assert chosen == (explanations.POINTS, explanations.SIGMA)
