"""Deep networks of one output: kinks presumed, touched, and read off the first layer's masks."""

from __future__ import annotations

import numpy as np
import pytest
from deep_planted import attacked, error, planted

from recon.exact.deep import cells, first, known, masked, output, presumed, segment
from recon.exact.deep.known import Layer
from recon.exact.inputs import of_gradients
from recon.replies import Reply


def _line(true, seed=0):
    """The first layer as the attack finds it on one line of this network, and that line."""
    rng = np.random.default_rng(seed)
    u, v = rng.standard_normal((2, true.sizes[0]))
    asked = []

    def ask(x):
        asked.append(x)
        return Reply(true(x), true.gradient(x))

    t = segment.grid()
    found = presumed.search(ask, u, v, 2.0**-53, 0.0, (t, ask(u + t[:, None] * v)), rng)
    return found, ask, asked


@pytest.mark.parametrize(
    ("sizes", "most"), [((10, 10, 10, 1), 9.5), ((40, 20, 10, 1), 6.0), ((100, 40, 20, 1), 5.0)]
)
def test_a_network_of_one_output_takes_few_queries_a_unit(sizes, most):
    costs = []
    for seed in (41, 42, 43):
        true = planted(seed, *sizes)
        got, counted = attacked(true)
        assert got.ok, str(got)
        assert got.cost.queries == counted.queries
        assert np.mean(error(got.network, true) > 1e-9) <= got.share
        costs.append(counted.queries / sum(sizes[1:-1]))
    assert np.mean(costs) <= most


@pytest.mark.parametrize("sizes", [(12, 10, 8, 1), (40, 20, 10, 1), (30, 16, 8, 6, 1)])
def test_touches_tell_the_first_layer_with_signs(sizes):
    true = planted(4, *sizes)
    found, _, asked = _line(true)
    assert found.layer is not None
    rows = true.weights[0] / np.linalg.norm(true.weights[0], axis=1)[:, None]
    level = true.biases[0] / np.linalg.norm(true.weights[0], axis=1)
    cosine = found.layer.weights @ rows.T
    match = cosine.argmax(1)
    assert sorted(match) == list(range(sizes[1]))
    assert np.allclose(cosine.max(1), 1)  # and not -1
    assert np.allclose(found.layer.bias, level[match], atol=1e-8)
    assert sum(map(len, asked)) < 4 * sum(sizes[1:-1])


def test_masks_show_whole_rows_of_the_second_layer_for_a_query_or_two_each():
    true = planted(4, 40, 20, 10, 1)
    found, ask, asked = _line(true)
    before = sum(map(len, asked))
    track, parts = masked.read(ask, found.layer, cells.chart(found.layer), found.track)
    spent = sum(map(len, asked)) - before
    assert len(parts) >= 5
    assert spent <= 2 * len(parts) + 2
    # the victim's rows for the inputs as they were found
    length = np.linalg.norm(true.weights[0], axis=1)
    order = (true.weights[0] / length[:, None] @ found.layer.weights.T).argmax(0)
    rows = true.weights[1][:, order] * length[order]
    whole = np.column_stack([rows, true.biases[1]])
    whole /= np.linalg.norm(whole, axis=1)[:, None]
    for part, kink in parts:
        seen = np.append(part.weights, part.bias) / np.hypot(1, part.bias)
        cosine = np.abs(whole @ seen)
        assert part.seen.all()
        assert cosine.max() > 1 - 1e-12
        z = true.weights[1] @ np.maximum(true.weights[0] @ kink.x + true.biases[0], 0)
        assert abs(z + true.biases[1])[cosine.argmax()] < 1e-6 * (1 + np.linalg.norm(kink.x))
    # and every kink of the line is known now, each where the victim has one
    layers = [Layer(w, b) for w, b in zip(true.weights[:2], true.biases[:2], strict=True)]
    at = [c.t for c in known.crossings(layers, track.u, track.v, *track.ends)]
    off = np.abs(np.array(at)[:, None] - [kink.t for kink in track.kinks]).min(0)
    assert (off < 1e-6 * (1 + np.abs([kink.t for kink in track.kinks]))).all()
    assert track.lost == 0


def test_nearly_parallel_planes_are_crossed_by_a_short_step():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, 30))
    rows[3] = rows[0] + 0.02 * rng.standard_normal(30)
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    inverse = np.linalg.inv(rows @ rows.T)
    step = (first._short(rows, inverse, rng) @ inverse) @ rows
    assert np.allclose(np.abs(rows @ step), 1)
    assert np.linalg.norm(step) < 5  # either way it takes 20 or so, where these two are parted


@pytest.mark.parametrize(("dim", "outputs", "draws"), [(784, 1, 1), (784, 1, 3), (100, 2, 1)])
def test_chance_says_nothing_of_the_scale_of_an_input(dim, outputs, draws):
    uneven = 10.0 ** np.where(np.arange(dim) < dim // 2, -3, 3)
    taken = 0
    for seed in range(100):
        gradient = np.random.default_rng(seed).standard_normal((draws, outputs, dim))
        taken += of_gradients(gradient, draws) is not None
        assert of_gradients(gradient * uneven, draws) is not None
    assert taken <= 10


def test_far_replies_settle_a_unit_that_is_linear_near_the_origin():
    true = planted(4, 10, 8, 6, 1)
    layers = [Layer(w, b) for w, b in zip(true.weights[:2], true.biases[:2], strict=True)]
    rng = np.random.default_rng(0)
    weights = np.abs(true.weights[1][:1])
    layers[1] = Layer(np.concatenate([layers[1].weights, -weights]), np.append(layers[1].bias, 60))
    near, far = rng.standard_normal((2, 60, 10))
    x = np.concatenate([near, 100 * far])
    z = known.before(layers, x)[1]
    assert (z[:60, -1] > 0).all()
    assert not (z[60:, -1] > 0).all()
    value = np.maximum(z, 0) @ rng.standard_normal((7, 1))
    fit = output.fit(layers, x, value)
    assert fit is not None
    assert not len(fit.bad)
    assert np.allclose(fit.output(layers, x), value, rtol=1e-8)
