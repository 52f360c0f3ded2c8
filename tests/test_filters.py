"""Filters of a student beside its victim's: paired whatever their order and scale."""

from dataclasses import replace

import numpy as np
import pytest

from recon import reports
from recon.experiments import filters
from recon.experiments.mnist import FILTERS
from recon.experiments.rebuild import Panel


def test_filters_are_paired_whatever_their_order_and_scale():
    rng = np.random.default_rng(3)
    shapes = {"Conv_0": (3, 3, 1, 6), "Conv_1": (3, 3, 6, 8)}
    theirs = {name: {"kernel": rng.normal(size=shape)} for name, shape in shapes.items()}
    order, scale = rng.permutation(6), rng.uniform(0.1, 9.0, 6)
    last = rng.permutation(8)
    ours = {
        "Conv_0": {"kernel": theirs["Conv_0"]["kernel"][..., order] * scale},
        "Conv_1": {"kernel": theirs["Conv_1"]["kernel"][:, :, order][..., last] / scale[:, None]},
    }
    ours["Conv_1"]["kernel"][..., 0] = 0  # one died
    for layer, (a, b) in filters.paired(theirs, ours).items():
        cosines = [filters._beside(a[..., k], b[..., k])["cosine"] for k in range(a.shape[-1])]
        dead = layer == "Conv_1"
        assert sorted(np.round(cosines, 9)) == [0.0] * dead + [1.0] * (len(cosines) - dead)


def test_a_filter_with_the_wrong_sign_is_not_found():
    rng = np.random.default_rng(0)
    shapes = {"Conv_0": (3, 3, 1, 2), "Conv_1": (3, 3, 2, 2)}
    theirs = {name: {"kernel": rng.normal(size=shape)} for name, shape in shapes.items()}
    ours = {name: {"kernel": -of["kernel"]} for name, of in theirs.items()}
    a, b = filters.paired(theirs, ours)["Conv_0"]
    assert max(filters._beside(a[..., k], b[..., k])["cosine"] for k in range(2)) < 0.9


def test_pictures_hold_the_first_input_of_a_kernel():
    kernel = np.zeros((3, 3, 2))
    kernel[0, 0, 0], kernel[2, 2, 0], kernel[1, 1, 1] = 2.0, -1.0, 9.0
    row = filters._beside(kernel, -kernel)
    levels = [list(bytes.fromhex(row[name])) for name in ("theirs", "ours")]
    assert (levels[0][0], levels[0][4], levels[0][8]) == (255, 128, 64)
    assert (levels[1][0], levels[1][8]) == (0, 191)
    assert (row["cosine"], row["side"]) == (pytest.approx(-1), 3)


def test_a_student_has_a_row_for_each_filter_of_each_layer(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    panel = Panel("conv", (2,), replies=("membership",), seeds=1)
    few = replace(FILTERS, panels=(panel,), dataset="digits", victim_steps=10, steps=10)
    rows = few.run()
    sizes = {layer: [r["filter"] for r in rows if r["layer"] == layer] for layer in filters.LAYERS}
    assert all(numbers == list(range(len(numbers))) for numbers in sizes.values())
    assert len(rows) == sum(map(len, sizes.values()))
    assert all(-1 <= row["cosine"] <= 1 for row in rows)
    assert few.seconds(rows) == rows[0]["seconds"]  # of one student, not of its filters
    first, second = few.summary(rows)
    assert (first["filters"], second["filters"]) == tuple(map(len, sizes.values()))
    cosines = [row["cosine"] for row in rows if row["layer"] == "Conv_0"]
    assert first["found"] == sum(c > 0.9 for c in cosines)
    assert first["cosine_min"] == min(cosines)
    assert few.run() == rows  # kept, and not taken for a row of fig2-mnist
    from matplotlib.figure import Figure

    reports.FIGURES["filters-mnist"](Figure(), rows)
