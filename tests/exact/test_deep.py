"""Deep networks: planted ones come out, and nothing else is called right."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from deep_planted import Counted, attacked, error, planted

from recon import exact, oracles, victims
from recon.exact import Status
from recon.exact.deep import cells, finish, held, known, lift, output, rows, search, segment
from recon.exact.deep.known import Layer
from recon.exact.deep.log import Log
from recon.exact.deep.output import Output
from recon.exact.deep.track import Kink
from recon.exact.recovery import CONFIDENCE, repeated
from recon.networks import Deep
from recon.replies import Reply


@pytest.mark.parametrize(
    ("sizes", "most"),
    [((24, 16, 10, 4), 6.5), ((60, 32, 16, 2), 5.0), ((30, 16, 12, 8, 3), 15.0)],
)
def test_a_deep_network_comes_out_with_its_widths_and_every_query_is_counted(sizes, most):
    true = planted(3, *sizes)
    got, counted = attacked(true)
    assert got.ok, str(got)
    assert got.network.widths == sizes[1:-1]
    assert got.cost.queries == counted.queries <= most * sum(sizes[1:-1])
    assert error(got.network, true).max() < 1e-10
    assert got.fresh == 30
    assert np.isclose(got.share, np.log(1 / (1 - CONFIDENCE)) / 30)


@pytest.mark.parametrize("sizes", [(12, 10, 8, 1), (20, 12, 8, 6, 1)])
def test_one_output_is_enough(sizes):
    true = planted(5, *sizes)
    got, _ = attacked(true)
    assert got.ok, str(got)
    assert np.mean(error(got.network, true) > 1e-9) <= got.share


def test_a_victim_that_jax_differentiates_answers_as_one_on_the_host_does():
    true = planted(3, 24, 16, 10, 4)
    with jax.enable_x64(True):
        got = exact.recover(victims.oracle_of(true), dim=24, key=0)
    host, _ = attacked(true)
    assert got.ok
    assert abs(got.cost.queries - host.cost.queries) <= 2  # the form of a host takes a query
    assert error(got.network, true).max() < 1e-10


def test_a_smaller_share_costs_the_points_that_it_promises():
    true = planted(3, 24, 16, 10, 4)
    one, _ = attacked(true)
    more, _ = attacked(true, share=0.02)
    assert more.ok
    assert more.fresh == 150
    assert more.cost.queries - one.cost.queries == repeated(150, 0) - repeated(30, 0) > 120


def test_depth_one_looks_for_two_layers_only():
    got, _ = attacked(planted(3, 24, 16, 10, 4), depth=1)
    assert got.status is Status.UNCERTIFIED


@pytest.mark.parametrize("budget", [1, 7, 30, 60])
def test_no_budget_is_exceeded(budget):
    got, counted = attacked(planted(3, 24, 16, 10, 4), budget=budget)
    assert counted.queries == got.cost.queries <= budget
    assert not got.ok


def test_units_that_are_always_on_or_dead_change_nothing():
    true = planted(8, 24, 16, 10, 3)
    biases = [b.copy() for b in true.biases]
    biases[1][0], biases[1][1] = 500.0, -500.0  # of the second layer
    true = Deep(true.weights, tuple(biases))
    got, _ = attacked(true)
    assert got.ok, str(got)
    assert error(got.network, true).max() < 1e-8


def test_units_that_are_off_with_many_of_their_inputs_are_found():
    true = planted(5, 32, 20, 14, 8, 4)
    weights = [w.copy() for w in true.weights]
    weights[2][0, :9], weights[2][1, 5:] = -50.0, -50.0  # of the third layer
    true = Deep(tuple(weights), true.biases)
    got, _ = attacked(true)
    assert got.ok, str(got)
    assert np.mean(error(got.network, true) > 1e-9) <= got.share


@pytest.mark.parametrize("seed", [pytest.param(6028, marks=pytest.mark.slow), 6036])
def test_a_middle_unit_that_hardly_ever_switches_is_found(seed):
    # of the third layer: on at 99 % of normal inputs, and at none of 4,000
    victim_key, key, _ = jax.random.split(jax.random.key(seed), 3)
    drawn = victims.random_deep(victim_key, (80, 40, 20, 10, 5, 3))
    true = jax.tree.map(lambda a: np.asarray(a, np.float64), drawn)
    got, counted = attacked(true, key=key)
    assert got.ok, str(got)
    assert got.network.widths == (40, 20, 10, 5)
    assert error(got.network, true).max() < 1e-9
    assert counted.queries <= 12 * 75


@pytest.mark.parametrize(
    ("sizes", "seed", "most"),
    [
        ((40, 20, 10, 10, 3), 5004, 6),  # a unit that is on at none of 3,000 inputs
        ((40, 20, 10, 10, 3), 5024, 12),  # a weight that a lift sees wrongly
        ((40, 20, 10, 10, 3), 5033, 6),  # units that never show some weights fit few replies best
        ((80, 40, 20, 10, 5, 3), 5000, 10),  # a unit without a part where all others have one
        ((100, 60, 30, 15, 4), 5000, 4),  # an input that no good reply uses
    ],
)
def test_what_once_was_missed_is_found(sizes, seed, most):
    drawn = victims.random_deep(jax.random.key(seed), sizes)
    true = jax.tree.map(lambda a: np.asarray(a, np.float64), drawn)
    got, counted = attacked(true, key=seed)
    assert got.ok, str(got)
    assert np.mean(error(got.network, true) > 1e-9) <= got.share
    assert counted.queries <= most * sum(sizes[1:-1])


def test_inputs_of_other_scale_and_shift_and_data():
    true = planted(11, 20, 14, 9, 3)
    shift, scale = np.linspace(-3, 5, 20), 2.0 ** np.arange(-10, 10)
    first = true.weights[0] / scale
    moved = Deep((first, *true.weights[1:]), (true.biases[0] - first @ shift, *true.biases[1:]))
    data = shift + scale * np.random.default_rng(0).standard_normal((200, 20))
    got, _ = attacked(moved, data=data)
    assert got.ok, str(got)
    x = shift + scale * np.random.default_rng(1).standard_normal((500, 20))
    assert np.abs(got.network(x) - moved(x)).max() < 1e-8 * np.abs(moved(x)).max()


def test_float32_replies_end_truthfully():
    true = planted(3, 24, 16, 10, 4)
    oracle = oracles.from_host(
        lambda x: (true(x).astype(np.float32), true.gradient(x).astype(np.float32))
    )
    got = exact.recover(oracle, dim=24, key=0)
    assert not got.ok
    assert "float64" in str(got)


def test_a_residual_network_is_not_called_right():
    first, second = planted(1, 12, 10, 12), planted(2, 12, 10, 3)
    inner = lambda x: x + first(x)  # noqa: E731
    oracle = oracles.from_host(
        lambda x: (
            second(inner(x)),
            second.gradient(inner(x)) @ (np.eye(12) + first.gradient(x)),
        )
    )
    got = exact.recover(oracle, dim=12, key=0, budget=4_000)
    if got.ok:  # nothing forbids that a deep network is the same function
        x = np.random.default_rng(0).standard_normal((2_000, 12))
        wrong = np.abs(got.network(x) - second(inner(x))).max(1) > 1e-6
        assert wrong.mean() <= got.share


def _wrong_beyond_the_share(seeds: range) -> tuple[int, int]:
    beyond = done = 0
    shapes = ((10, 8, 6, 3), (16, 10, 8, 2), (12, 8, 6, 5, 3), (8, 8, 5, 4), (10, 6, 12, 4))
    for seed in seeds:
        true = planted(seed, *shapes[seed % len(shapes)], bias=(0.0, 0.5, 2.0)[seed % 3])
        got, counted = attacked(true, key=seed, budget=3_000)
        assert got.cost.queries == counted.queries
        done += got.ok
        beyond += got.ok and np.mean(error(got.network, true, 5_000) > 1e-6) > got.share
    return beyond, done


def test_random_deep_networks_are_never_wrong_beyond_the_share():
    beyond, done = _wrong_beyond_the_share(range(1_000, 1_015))
    assert beyond == 0
    assert done >= 11


@pytest.mark.slow
def test_many_random_deep_networks_are_never_wrong_beyond_the_share():
    beyond, done = _wrong_beyond_the_share(range(2_000, 2_400))
    assert beyond == 0
    assert done >= 300


# --- the parts


def test_what_looks_like_a_kink_beside_a_known_one_is_asked_again():
    """A deeper unit that switches near a known kink changes its jump along the deeper one's own:
    with the jump that was seen elsewhere subtracted, what is left has rank one and is no kink."""
    true, few, wrong = planted(3, 16, 10, 4, 4), 0, 0
    layers = [Layer(w, b) for w, b in zip(true.weights[:-1], true.biases[:-1], strict=True)]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        u, v = rng.standard_normal((2, 16)) * np.array([[1.0], [3.0]])
        jumps = {}
        for c in known.crossings(layers[:1], u, v, 0.0, 1.0):
            row = layers[0].weights[c.unit]
            x = u + c.t * v + 0.3 * rng.standard_normal(16)
            x -= row * (row @ x + layers[0].bias[c.unit]) / (row @ row)
            step = 1e-7 * row / (row @ row)
            after, before = true.gradient(np.stack([x + step, x - step]))
            jumps[0, c.unit] = (after - before) @ row / (row @ row)
        every = np.array([c.t for c in known.crossings(layers, u, v, 0.0, 1.0)])
        expected = known.expected(layers[:1], jumps, u, v, 0.0, 1.0)
        track = segment.search(Counted(true), u, v, (0.0, 1.0), 2.2e-16, known=expected)
        few += len(every) > len(expected.t) > 0
        wrong += any(np.abs(every - kink.t).min() > 1e-7 for kink in track.kinks)
    assert few > 10
    assert wrong == 0


def test_a_segment_shows_every_kink():
    true = planted(4, 20, 12, 8, 3)
    layers = [Layer(w, b) for w, b in zip(true.weights[:-1], true.biases[:-1], strict=True)]
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, 20))
    track = segment.search(Counted(true), u, v, None, 2.2e-16)
    expected = [c.t for c in known.crossings(layers, u, v, -1e5, 1e5)]
    assert track.lost == 0
    assert np.allclose([kink.t for kink in track.kinks], expected, rtol=1e-6, atol=1e-8)


def test_known_kinks_cost_no_query():
    true = planted(4, 20, 12, 8, 3)
    layers = [Layer(w, b) for w, b in zip(true.weights[:-1], true.biases[:-1], strict=True)]
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, 20))
    expected = known.expected(layers, {}, u, v, 0.0, 1.0)
    counted = Counted(true)
    track = segment.search(counted, u, v, (0.0, 1.0), 2.2e-16, known=expected, few=len(expected.t))
    assert len(expected.t) > 2
    assert not track.kinks
    assert counted.queries == 2


def test_crossings_are_where_units_switch():
    true = planted(6, 10, 8, 6, 2)
    layers = [Layer(w, b) for w, b in zip(true.weights[:-1], true.biases[:-1], strict=True)]
    u, v = np.random.default_rng(1).standard_normal((2, 10))
    found = known.crossings(layers, u, v, -5.0, 5.0)
    for t, layer, unit in found:
        assert abs(known.before(layers, (u + t * v)[None])[layer][0, unit]) < 1e-9
    fine = np.linspace(-5, 5, 20_001)
    for number, z in enumerate(known.before(layers, u + fine[:, None] * v)):
        switches = np.sum((z[1:] > 0) != (z[:-1] > 0))
        assert switches == sum(c.layer == number for c in found)


def test_a_partial_row_is_lifted_to_the_whole_row():
    true = planted(9, 14, 8, 6, 3)
    first = Layer(true.weights[0], true.biases[0])
    both = [first, Layer(true.weights[1], true.biases[1])]
    counted, chart = Counted(true), cells.chart(first)
    u, v = np.random.default_rng(2).standard_normal((2, 14))
    of = next(c for c in known.crossings(both, u, v, -3.0, 3.0) if c.layer == 1)
    x = u + of.t * v
    normal = known.tangents(both, x)[1][1][of.unit] @ chart.place
    part = lift.partial([first], first.weights @ x + first.bias, normal)
    assert part is not None
    assert not part.seen.all()
    whole = lift.lifted(counted, [first], chart, part, 5.0, np.random.default_rng(0))
    assert whole is not None
    assert whole.seen.all()
    assert counted.queries == 2
    row = true.weights[1][of.unit]
    scale = (whole.weights @ row) / (row @ row)
    assert np.allclose(whole.weights, scale * row, atol=1e-8)
    assert np.isclose(whole.bias, scale * true.biases[1][of.unit], atol=1e-7)


def test_rows_seen_in_part_merge_and_a_foreign_one_does_not():
    row, other = np.random.default_rng(0).standard_normal((2, 6))
    masks = np.array([[1, 1, 1, 0, 0, 1], [0, 1, 1, 1, 1, 0], [1, 1, 0, 1, 0, 1]], bool)
    kink = Kink(0.0, np.zeros(1), np.ones(1), np.ones(1))
    found = [
        (lift.Partial(np.zeros(1), (), np.where(m, s * w, 0), s * 0.3, m), kink)
        for m, w, s in zip(masks, (row, row, other), (1.0, -2.0, 1.0), strict=True)
    ]
    made = rows.merged(found, 6)
    assert len(made.bias) == 2
    assert made.whole.sum() == 1
    whole = made.weights[made.whole][0]
    assert np.isclose(abs(whole @ row), np.linalg.norm(whole) * np.linalg.norm(row))


def test_wrong_signs_and_slopes_end_in_plain_layers():
    true = planted(12, 9, 7, 6, 2)
    first = Layer(true.weights[0], true.biases[0])
    flip = np.where(np.arange(6) % 2, -1.0, 1.0)
    hidden = Layer(true.weights[1] * flip[:, None], true.biases[1] * flip)
    x = np.random.default_rng(0).standard_normal((200, 9))
    fit = output.fit([first, hidden], x, true(x))
    assert fit is not None
    assert fit.output.slope.any()
    made = finish.of([first, hidden], fit.output, x, true(x))
    assert [len(layer.bias) for layer in made] == [7, 6, 2]
    assert np.allclose(finish.values(made, x), true(x), atol=1e-12)


@pytest.mark.parametrize(("unit", "others"), [(2, 0), (3, 5)])
def test_the_last_layer_is_found_where_a_unit_is_missing(unit, others):
    """One that is on at most points: these are met, and the others tell where it is off."""
    true = planted(12, 12, 9, 7, 2)
    layers = [Layer(w, b.copy()) for w, b in zip(true.weights[:2], true.biases[:2], strict=True)]
    x = np.random.default_rng(0).standard_normal((300, 12))
    z = known.before(layers, x)[1]
    layers[1].bias[unit] -= np.quantile(z[:, unit], 0.15)  # on at 85 % of the points
    true = Deep(true.weights, (layers[0].bias, layers[1].bias, true.biases[2]))
    z = known.before(layers, x)[1]
    less = [layers[0], Layer(*(np.delete(part, unit, 0) for part in layers[1]))]
    assert output.fit(less, x, true(x)) is None
    reply = Reply(true(x), true.gradient(x))
    fit = output.most(less, x, reply, cells.chart(layers[0]).place)
    assert fit is not None
    off = set(np.flatnonzero(z[:, unit] <= 0))
    assert off <= set(fit.bad)
    assert len(set(fit.bad) - off) <= others


@pytest.mark.parametrize("equations", [1, 3])
def test_what_good_replies_leave_open_is_as_most_others_have_it(equations):
    rng = np.random.default_rng(0)
    a, solved = rng.standard_normal((60, equations, 5)), rng.standard_normal((5, 2))
    a[12:, :, 0] = 0  # used by the first twelve alone, of which two have another
    b = a @ solved
    b[10:12] += a[10:12, :, :1] * rng.standard_normal((2, 1, 2))
    without = solved * (np.arange(5) > 0)[:, None]
    found, good = output._widened(a, b, without, np.arange(60) >= 12)
    assert np.allclose(found, solved, rtol=1e-12)
    assert list(np.flatnonzero(~good)) == [10, 11]
    few, good = output._widened(a[8:], b[8:], without, np.arange(52) >= 4)
    assert (few == without).all()  # two that agree prove nothing
    assert good.sum() == 48


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_kink_of_a_unit_that_is_missing_is_bracketed_soon(outputs):
    true = planted(4, 12, 9, 7, outputs)
    layers = [Layer(w, b) for w, b in zip(true.weights[:2], true.biases[:2], strict=True)]
    z = known.before(layers, np.random.default_rng(0).standard_normal((400, 12)))[1]
    unit = int(np.argmin(np.abs(np.mean(z > 0, 0) - 0.5)))
    less = [layers[0], Layer(*(np.delete(part, unit, 0) for part in layers[1]))]
    weights = np.delete(true.weights[2], unit, 1)
    out = Output(weights, np.zeros((outputs, 9)), true.biases[2])
    counted, asked = Counted(true), []
    for seed in range(20):
        s = search.Search(Log(counted, 2e-16), 12, np.random.default_rng(seed), np.ones(12))
        s.layers, x = [layers[0]], s.rng.standard_normal((40, 12))
        s.log(x)
        on = known.before(layers, x)[1][:, unit] > 0
        before = counted.queries
        track = held.missed(s, less, out, x[~on][0], x[on][0])
        assert track is not None
        assert abs(known.before(layers, track.kinks[0].x[None])[1][0, unit]) < 1e-9
        asked.append(counted.queries - before)
    assert np.mean(asked) <= 7
    assert min(asked) <= 2  # where no known unit switches between


def test_what_a_slope_leaves_passes_through_units_of_its_own():
    rng = np.random.default_rng(0)
    first = Layer(rng.standard_normal((5, 8)), rng.standard_normal(5))
    hidden = Layer(rng.standard_normal((4, 5)), rng.standard_normal(4))
    out = Output(rng.standard_normal((2, 4)), rng.standard_normal((2, 5)), rng.standard_normal(2))
    x = rng.standard_normal((50, 8))
    made = finish.plain([first, hidden], out)
    assert np.allclose(finish.values(made, x), out([first, hidden], x))


def test_biases_are_sharpened_by_values():
    true = planted(13, 9, 7, 6, 2)
    blurred = [
        Layer(w, b + 1e-7 * np.sign(b)) for w, b in zip(true.weights, true.biases, strict=True)
    ]
    x = np.random.default_rng(0).standard_normal((200, 9))
    before = np.abs(finish.values(blurred, x) - true(x)).max()
    after = np.abs(finish.values(finish.sharpened(blurred, x, true(x)), x) - true(x)).max()
    assert after < 1e-4 * before


@pytest.mark.parametrize("seed", [1, 2])
def test_jumps_are_predicted_with_their_signs(seed):
    true = planted(seed, 9, 7, 6, 3)
    layers = [Layer(w, b) for w, b in zip(true.weights[:2], true.biases[:2], strict=True)]
    jumps = {(1, j): true.weights[2][:, j] for j in range(6)}
    u, v = np.random.default_rng(seed).standard_normal((2, 9))
    told = 0
    for t, normal, jump in zip(*known.expected(layers, jumps, u, v, -40.0, 40.0), strict=True):
        if np.isfinite(jump).all():
            before, after = true.gradient(u + np.array([t - 1e-7, t + 1e-7])[:, None] * v)
            assert np.allclose(after - before, np.outer(jump, normal), atol=1e-8)
            told += 1
    assert told > 1
