"""Convolutions from logits and Jacobians, against planted truths."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from recon import exact, oracles, probe, victims
from recon.exact import Status
from recon.exact.conv import corner, jumps, known, layer, orient, reading, steer
from recon.exact.conv.known import Layer
from recon.networks import Convolutional, Deep
from recon.replies import Reply

SMALL = {"shape": (18, 18, 1), "kernels": ((3, 3), (3, 6)), "dense": (12, 5)}


def planted(seed: int, **sizes: object) -> Convolutional:
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, victims.random_convolutional(jax.random.key(seed), **sizes))


class Counted:
    """A victim on the host that counts its queries."""

    def __init__(self, network) -> None:
        self.network, self.queries = network, 0

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.queries += len(x)
        return self.network(x), self.network.gradient(x)


def attacked(network, key: int = 0, **rest: object):
    victim = Counted(network)
    shape = rest.pop("shape", None) or network.shape
    got = exact.convolutional(oracles.from_host(victim), shape=shape, key=key, **rest)
    assert got.cost.queries == victim.queries
    assert got.ok == (got.network is not None)
    return got


def matched(found: Layer, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Which true channel each one found is, where kernels are met to 1e-12 and biases to 1e-7."""
    true = kernel.reshape(-1, kernel.shape[-1])
    length = np.linalg.norm(true, axis=0)
    rows = found.kernel.reshape(-1, found.kernel.shape[-1])
    of = (rows.T @ (true / length)).argmax(1)
    assert len(set(of.tolist())) == len(of)
    assert np.abs(rows - (true / length)[:, of]).max() < 1e-12
    assert np.abs(found.bias - (bias / length)[of]).max() < 1e-7
    return of


def right(got, true: Convolutional) -> None:
    """The layers found are the victim's, but for channels that are off nearly everywhere."""
    first, second = got.layers
    of = matched(first, true.kernels[0], true.shifts[0])
    assert len(of) == true.kernels[0].shape[-1]
    length = np.sqrt(np.sum(true.kernels[0] ** 2, (0, 1, 2)))[of]
    kernel = true.kernels[1][:, :, of] * length[None, None, :, None]
    found = matched(second, kernel, true.shifts[1])
    x = np.random.default_rng(7).standard_normal((1_000, true.dim))
    on = true.features(x).reshape(1_000, -1, true.kernels[1].shape[-1]) > 0
    missing = np.setdiff1d(np.arange(on.shape[-1]), found)
    assert on[:, :, missing].any((1, 2)).mean() <= got.share


def met(got, true: Convolutional) -> float:
    """The share of standard normal inputs that the network does not answer as the victim does."""
    x = np.random.default_rng(8).standard_normal((1_000, true.dim))
    value, gradient = true(x), true.gradient(x)
    off = np.abs(got.network(x) - value).max(1) > 1e-7 * np.sqrt(np.mean(value**2))
    size = np.linalg.norm(got.network.gradient(x) - gradient, axis=(1, 2))
    return float((off | (size > 1e-6 * np.linalg.norm(gradient, axis=(1, 2)).max())).mean())


@pytest.mark.parametrize("seed", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5))])
def test_the_whole_network_comes_out(seed):
    true = planted(seed, **SMALL)
    got = attacked(true, seed)
    assert got.status is Status.RECOVERED, str(got)
    assert got.fresh == 30
    assert 0 < got.searched.queries < got.cost.queries
    assert got.certificate < 1e-10
    assert "3 channels of 3x3, 6 channels of 3x3" in str(got)
    right(got, true)
    assert met(got, true) <= got.share


@pytest.mark.parametrize("seed", [0, pytest.param(3, marks=pytest.mark.slow), 4])
def test_what_is_not_found_is_said(seed):
    true = planted(seed, **SMALL)
    got = attacked(true, seed)
    if got.layers and len(got.layers) == 2:
        right(got, true)
    if got.ok:
        assert met(got, true) <= got.share
    elif got.status is Status.CONVOLUTIONS:
        assert "ense layer" in got.detail
    else:
        assert got.status is Status.UNCERTIFIED
        assert "Convolution" in got.detail


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 20])
def test_the_network_of_the_paper(seed):
    true = planted(seed)
    got = attacked(true, seed)
    assert got.status is Status.RECOVERED, str(got)
    right(got, true)
    assert met(got, true) <= got.share


def test_a_budget_is_kept():
    true = planted(1, **SMALL)
    for budget in (0, 6, 20, 60, 100):
        got = attacked(true, 1, budget=budget)
        assert got.status is Status.BUDGET
        assert got.cost.queries <= budget


def test_a_convolution_ends_where_its_queries_are_spent(monkeypatch):
    true = planted(1, **SMALL)
    monkeypatch.setattr(layer, "QUERIES", 30)
    got = attacked(true, 1)
    assert got.status is Status.UNCERTIFIED
    assert got.detail == "Convolution 1: its queries are spent before it is told."
    assert 30 < got.cost.queries <= 1 + probe.MOST + 30


def test_victims_of_other_kinds_are_not_taken_for_convolutional():
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape) / shape[-1] ** 0.5  # noqa: E731
    mlp = Deep((normal(30, 324), normal(5, 30)), (normal(30), normal(5)))
    linear = Deep((np.zeros((1, 324)), np.zeros((5, 1))), (np.zeros(1), normal(5)))
    for victim in (mlp, linear):
        got = attacked(victim, shape=(18, 18, 1), budget=2_000)
        assert got.status in (Status.UNCERTIFIED, Status.BUDGET)
        assert not got.layers


def test_a_convolution_with_a_path_around_it_is_not_explained():
    class Residual(Convolutional):
        def __call__(self, x):
            return super().__call__(x) + x @ around.T

        def gradient(self, x):
            return super().gradient(x) + around[None]

    around = 0.1 * np.random.default_rng(1).standard_normal((5, 324))
    true = planted(1, **SMALL)
    victim = Residual(true.kernels, true.shifts, true.head, true.shape)
    got = attacked(victim, 1, budget=1_500)
    assert got.status in (Status.UNCERTIFIED, Status.BUDGET), str(got)
    assert len(got.layers) < 2


def test_replies_in_float32_are_refused():
    true = planted(1, **SMALL)
    for asked in (np.float32, np.float64):  # as such, and behind float64

        def fn(x, asked=asked):
            parts = true(x), true.gradient(x)
            return tuple(part.astype(np.float32).astype(asked) for part in parts)

        got = exact.convolutional(oracles.from_host(fn), shape=true.shape, key=0)
        assert got.status is Status.UNFIT
        assert "float64" in str(got)
        assert got.cost.queries <= 10


def test_replies_that_are_no_numbers_are_an_error():
    true, asked = planted(1, **SMALL), []

    def fn(x):
        asked.extend(x)
        value = true(x)
        return value * (np.nan if len(asked) > 20 else 1.0), true.gradient(x)

    with pytest.raises(oracles.ReplyError):
        exact.convolutional(oracles.from_host(fn), shape=true.shape, key=0)


def test_one_output_tells_no_channels_apart():
    got = attacked(planted(1, **SMALL | {"dense": (12, 1)}))
    assert got.status is Status.UNFIT
    assert "two outputs" in str(got)


@pytest.mark.parametrize("shape", [(18, 18), (18, 0, 1), (18, 18, 1, 1)])
def test_shapes_that_are_no_images(shape):
    with pytest.raises(ValueError, match="images"):
        exact.convolutional(oracles.from_host(Counted(planted(1, **SMALL))), shape=shape, key=0)


def deeper(true: Convolutional) -> Convolutional:
    """With one more dense layer, so that no two dense layers explain it."""
    (first, last), (bias, offset) = true.head.weights, true.head.biases
    rng = np.random.default_rng(5)
    middle = rng.standard_normal((len(bias), len(bias))) / len(bias) ** 0.5
    head = Deep((first, middle, last), (bias, 0.3 * rng.standard_normal(len(bias)), offset))
    return Convolutional(true.kernels, true.shifts, head, true.shape)


def test_where_the_dense_layers_are_more_the_convolutions_are_right():
    true = planted(2, **SMALL | {"dense": (12, 5)})
    got = attacked(deeper(true), 2, budget=1_500)
    assert got.status in (Status.CONVOLUTIONS, Status.BUDGET), str(got)
    right(got, true)


def test_a_jump_names_the_units_that_differ():
    rng = np.random.default_rng(0)
    names = rng.standard_normal((6, 5))
    names /= np.linalg.norm(names, axis=1)[:, None]
    rows, columns = rng.standard_normal((6, 40)), np.arange(40)
    state = np.array([True, False, True, False, False, False])
    change = np.outer(names[1], rows[1]) - np.outer(names[2], rows[2])
    unknown = np.full((6, 40), np.nan)
    seen = lambda change: jumps.jump(columns, change, 10.0)  # noqa: E731
    explained = jumps.explained(seen(change), names, unknown, state, 10.0)
    assert explained == ((1, 2), None)
    new = jumps.explained(seen(change), names[:2], rows[:2], state[:2], 10.0)
    assert new.units == (1,)
    assert abs(new.new @ names[2]) > 1 - 1e-12
    wrong = jumps.explained(seen(-change), names, rows, state, 10.0)
    assert wrong is None  # unit 1 cannot be turned off
    spans = [seen(change).span, seen(np.outer(names[2], rows[2] + 1) + names[3:4].T).span]
    assert abs(jumps.shared(spans, names[:2]) @ names[2]) > 1 - 1e-12
    assert jumps.shared(spans[:1], names[:2]) is None


def test_sides_of_units_leave_the_simplest_linear_part():
    rng = np.random.default_rng(1)
    names, rows = rng.standard_normal((7, 5)), rng.standard_normal((7, 40))
    names /= np.linalg.norm(names, axis=1)[:, None]
    always = np.outer(rng.standard_normal(5), rng.standard_normal(40))
    flip = np.array([True, False, False, True, False, True, False])
    found = orient.sides(names, always - names[flip].T @ rows[flip], rows)
    assert found.flip.tolist() == flip.tolist()
    assert found.basis.shape == (5, 1)
    none = orient.sides(names, rng.standard_normal((5, 40)), rows)  # units on everywhere: too many
    assert none is None


def test_a_reply_shows_the_gradients_in_the_features():
    true = planted(3, **SMALL)
    layers = [Layer(*pair) for pair in zip(true.kernels, true.shifts, strict=True)]
    x = np.random.default_rng(3).standard_normal((5, true.dim))
    for of in reading.read(layers, true.shape, x, Reply(true(x), true.gradient(x))):
        assert of.off < 1e-13
        features = true.features(of.x[None])
        assert np.allclose(of.y, features[0], atol=1e-13)
        on = of.y > 0
        assert np.allclose(of.slope[:, on], true.head.gradient(features)[0][:, on], atol=1e-12)
        channel = int(on.reshape(-1, 6).sum(0).argmax())  # without which the reply has no sense
        less = [layers[0], Layer(*(np.delete(a, channel, -1) for a in layers[1]))]
        one = of.x[None]
        (lacking,) = reading.read(less, true.shape, one, Reply(true(one), true.gradient(one)))
        assert lacking.off > 1e-3


def test_a_missing_channel_shows_where_it_is_on():
    true, met = planted(3, **SMALL), 0
    first, second = (Layer(*pair) for pair in zip(true.kernels, true.shifts, strict=True))
    for channel in range(6):
        less = [first, Layer(*(np.delete(a, channel, -1) for a in second))]
        x = np.random.default_rng(channel).standard_normal((40, true.dim))
        for of in reading.read(less, true.shape, x, Reply(true(x), true.gradient(x))):
            y = known.outputs([first], of.x.reshape(true.shape))
            z = known.sums(second.kernel, y)[..., channel]
            cells = np.argwhere(z.max(2) + second.bias[channel] > 0)
            on = {
                (int(4 * p + o // 2 * 2), int(4 * q + o % 2 * 2))
                for p, q in cells
                for o in [z[p, q].argmax()]
            }
            found = set(reading.places(of, less, true.shape))
            assert found <= on
            rank = np.linalg.matrix_rank(of.left, 1e-6 * np.linalg.norm(of.left)) if on else 0
            if rank == 5:  # as many rows as outputs tell no place
                assert not found
            elif rank == len(on):  # fewer, as where few units are on behind, may hide some
                assert found == on
                met += bool(on)
    assert met > 10


def test_known_channels_are_taken_off_a_jump():
    rng = np.random.default_rng(4)
    before = np.linalg.qr(rng.standard_normal((60, 3)))[0]
    changes = [(rng.standard_normal(5), rng.standard_normal(60)) for _ in range(6)]
    name, row = rng.standard_normal(5), rng.standard_normal(60)
    across = np.eye(60) - before @ before.T
    kept = np.outer(name, row) @ across
    jump = kept + sum(np.outer(*changes[i]) * s for i, s in ((0, 1), (3, -1))) @ across
    found, span = corner._unsettled(jump, before, changes, 1e-9)
    assert np.abs(found - kept).max() < 1e-12
    assert span is before
    half = jump + np.outer(*changes[1]) @ across / 2  # no change of theirs: known less well
    found, span = corner._unsettled(half, before, changes, 1e-9)
    assert span.shape == (60, 9)
    assert np.abs(found @ span).max() < 1e-12
    assert np.linalg.matrix_rank(found, 1e-9) == 1
    assert np.abs(found - np.outer(name, row) @ (np.eye(60) - span @ span.T)).max() < 1e-12


def test_features_are_raised():
    true, rng = planted(3, **SMALL), np.random.default_rng(5)
    layers = [Layer(*pair) for pair in zip(true.kernels, true.shifts, strict=True)]
    raised = 0
    for _ in range(20):
        x = rng.standard_normal(true.dim)
        y = known.outputs(layers, x.reshape(true.shape)).reshape(-1)
        off = rng.permutation(np.flatnonzero(y == 0))[:4]
        moved = steer.on(layers, true.shape, x, off)
        raised += (known.outputs(layers, moved.reshape(true.shape)).reshape(-1)[off] > 0).all()
    assert raised >= 18


def test_what_windows_see():
    layers = [Layer(np.zeros((5, 5, 1, 10)), np.zeros(10))]
    assert [known.span(layers, side) for side in (1, 5, 6)] == [6, 14, 16]
    assert known.image(layers, (28, 28, 1), np.zeros(784)).y.shape == (12, 12, 10)
