"""Algorithm 1 as printed against planted networks, counting oracles and a second derivation."""

# ruff: noqa: E741  (l is the paper's name)

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon import oracles
from recon.exact import asking, binary_search, one_layer, paper
from recon.exact.recovery import Status
from recon.networks import TwoLayer
from recon.oracles import Cost, ReplyError
from recon.victims import oracle_of, random_network

SIZES = [(1, 1), (2, 2), (6, 4), (12, 12)]


def victim(seed: int, dim: int, width: int, bias: bool = False) -> TwoLayer:
    with jax.enable_x64(True):
        return random_network(jax.random.key(seed), dim, width, bias=bias)


def planted(rows: np.ndarray, weights: np.ndarray) -> TwoLayer:
    width, dim = rows.shape
    with jax.enable_x64(True):
        arrays = (rows, np.zeros(width), weights[None], np.zeros((1, dim)), np.zeros(1))
        return TwoLayer(*(jnp.asarray(a, jnp.float64) for a in arrays))


def evaluate(network: TwoLayer, x: np.ndarray) -> np.ndarray:
    """Values [n] in NumPy, so in float64 outside of JAX's own precision setting."""
    rows, bias, weights, slope, offset = (
        np.asarray(getattr(network, name))
        for name in ("rows", "bias", "weights", "slope", "offset")
    )
    return (np.maximum(x @ rows.T + bias, 0) @ weights.T + x @ slope.T + offset)[:, 0]


def error(found: TwoLayer, truth: TwoLayer, seed: int = 0) -> float:
    """Largest deviation over Gaussian x, relative to the largest value."""
    x = np.random.default_rng(seed).normal(size=(1000, truth.rows.shape[1]))
    exact = evaluate(truth, x)
    return float(np.abs(evaluate(found, x) - exact).max() / np.abs(exact).max())


def every_row(rows: np.ndarray) -> np.ndarray:
    """For the counting oracle: nothing here is padding."""
    return np.ones(len(rows), bool)


def key(seed: int) -> jax.Array:
    return jax.random.key(1000 + seed)


# --- The theorem's constants --------------------------------------------------------------------


@given(st.integers(1, 500), st.floats(1e-4, 0.99), st.floats(0.01, 1))
def test_constants_split_delta_between_the_two_lemmas(width, delta, separation):
    eps, l = asking.theorem2_constants(width, delta, separation)
    close = 3 ** (4 / 3) * (eps / separation) ** (2 / 3) * width**2  # Lemma 2, union bound
    far = 2 / (math.pi * l) * width  # Lemma 3, union bound
    assert close == pytest.approx(delta / 2)
    assert far == pytest.approx(delta / 2)


@pytest.mark.parametrize(("delta", "separation"), [(0, 0.1), (1, 0.1), (0.1, 0), (0.1, 1.5)])
def test_constants_refuse_what_is_no_probability(delta, separation):
    with pytest.raises(ValueError, match="delta"):
        asking.theorem2_constants(4, delta, separation)


def test_success_rate_keeps_the_promise_of_theorem_2():
    delta, trials = 0.25, 60
    ok = [
        paper.learn_model(oracle_of(victim(s, 6, 4)), 6, 4, key(s), delta=delta).ok
        for s in range(trials)
    ]
    # Rows at random may be nearer than the separation, so allow three standard deviations.
    assert np.mean(ok) >= 1 - delta - 3 * math.sqrt(delta * (1 - delta) / trials)


# --- Algorithm 1 on victims that meet the assumptions --------------------------------------------


@given(st.data())
@settings(max_examples=25)
def test_recovers_the_planted_function(data):
    dim, width = data.draw(st.sampled_from(SIZES))
    seed = data.draw(st.integers(0, 10**6))
    truth = victim(seed, dim, width)
    result = paper.learn_model(oracle_of(truth), dim, width, key(seed))
    if result.ok:
        assert result.status is Status.RECOVERED
        assert result.network.width == width
        assert result.certificate < 1e-12
        assert error(result.network, truth) < 1e-12
    else:  # a kink beyond l: rare, and notified
        assert result.status in (Status.SEARCH_FAILED, Status.UNCERTIFIED)


@pytest.mark.parametrize(("dim", "width"), SIZES)
@pytest.mark.parametrize("traced", [False, True])
def test_cost_is_what_the_oracle_saw(counting_host, counting_traced, traced, dim, width):
    truth = victim(3, dim, width)
    seen = counting_traced(truth, real=every_row) if traced else counting_host(truth)
    result = paper.learn_model(seen.oracle, dim, width, key(3), delta=0.01)
    assert result.ok
    assert result.cost == seen.cost
    assert result.cost.values == 2 * width + paper.certificate_size(width, dim)


@pytest.mark.parametrize(("dim", "width"), SIZES)
def test_kernel_and_host_loop_agree(counting_host, dim, width):
    truth = victim(5, dim, width)
    traced = paper.learn_model(oracle_of(truth), dim, width, key(5), delta=0.01)
    host = paper.learn_model(counting_host(truth).oracle, dim, width, key(5), delta=0.01)
    assert traced.ok
    assert (traced.status, traced.cost) == (host.status, host.cost)
    np.testing.assert_allclose(traced.network.rows, host.network.rows, rtol=0, atol=1e-12)
    np.testing.assert_allclose(traced.network.weights, host.network.weights, rtol=1e-12)


def test_asks_every_point_once(counting_host):
    seen = counting_host(victim(1, 12, 12))
    paper.learn_model(seen.oracle, 12, 12, key(1))
    asked = np.concatenate(seen.log.gradients + seen.log.values)
    assert len(np.unique(asked, axis=0)) == len(asked)


def test_result_is_the_same_whatever_the_precision_outside():
    truth = victim(2, 6, 4)
    outside = paper.learn_model(oracle_of(truth), 6, 4, key(2))
    with jax.enable_x64(True):
        inside = paper.learn_model(oracle_of(truth), 6, 4, key(2))
    assert outside.ok
    assert outside.network.rows.dtype == np.float64
    np.testing.assert_array_equal(outside.network.rows, inside.network.rows)


# --- Algorithm 1a ------------------------------------------------------------------------------


def kinks(network: TwoLayer, planes: binary_search.Hyperplanes) -> np.ndarray:
    rows = np.asarray(network.rows)
    return -(rows @ planes.u) / (rows @ planes.v)


def test_rows_come_in_the_order_of_their_kinks():
    truth, eps = victim(4, 12, 12), 1e-7
    planes = binary_search.recover_z(oracle_of(truth), 12, 12, key(4), eps, 1000.0)
    t = kinks(truth, planes)
    order = np.argsort(t)
    assert planes.failure is None
    assert np.all(planes.t >= t[order])
    assert np.all(planes.t - t[order] <= eps)
    weighted = np.asarray(truth.weights[0])[order, None] * np.asarray(truth.rows)[order]
    sign = np.sign(np.sum(weighted * planes.Z, axis=1, keepdims=True))
    np.testing.assert_allclose(sign * planes.Z, weighted, rtol=0, atol=1e-14)


def test_search_asks_the_printed_midpoints_in_the_printed_order(counting_host):
    """A literal reading of Algorithm 1a, which asks again and again, on the same line."""
    truth, eps, l = victim(6, 5, 3), 1e-3, 500.0
    seen = counting_host(truth)
    planes = binary_search.recover_z(seen.oracle, 5, 3, key(6), eps, l)
    assert planes.failure is None
    first_asked: list[float] = []

    def gradient(t: float) -> np.ndarray:
        if t not in first_asked:
            first_asked.append(t)
        active = np.asarray(truth.rows) @ (planes.u + t * planes.v) > 0
        return np.asarray(truth.weights[0]) * active @ np.asarray(truth.rows)

    def printed_search(t_l: float, t_r: float) -> tuple[np.ndarray, float]:
        while True:
            t_m = (t_l + t_r) / 2
            if t_r - t_l <= eps:
                return gradient(t_r) - gradient(t_l), t_r
            if np.linalg.norm(gradient(t_l) - gradient(t_m)) > 1e-12:
                t_r = t_m
            else:
                assert np.linalg.norm(gradient(t_m) - gradient(t_r)) > 1e-12
                t_l = t_m

    t_l, rows = -l, []
    for _ in range(3):
        row, t_l = printed_search(t_l, l)
        rows.append(row)
    asked = np.concatenate(seen.log.gradients)
    near, far, midpoints = asked[0], asked[1], asked[2:]
    t = np.array([t for t in first_asked if t != l])  # needed late or never, asked up front here
    points = planes.u + t[:, None] * planes.v
    np.testing.assert_allclose([near, *midpoints], points, atol=1e-9)
    np.testing.assert_allclose(far, planes.u + l * planes.v, atol=1e-9)
    np.testing.assert_allclose(planes.Z, rows, rtol=0, atol=1e-13)


def test_a_kink_in_the_last_stretch_is_a_row():
    """Within eps of the far end the printed search returns at once, without a midpoint."""
    truth, l = planted(np.eye(2), np.array([1.0, -2.0])), 100.0
    for seed in range(20):
        planes = binary_search.recover_z(oracle_of(truth), 2, 2, key(seed), 1.2 * l, l)
        first, last = np.sort(kinks(truth, planes))
        if -l < first < 0 < last < l:
            break
    assert -l < first < 0 < last < l
    assert planes.failure is None
    assert planes.cost.gradients == 3  # both ends and one midpoint, 0
    np.testing.assert_allclose(planes.t, [0, l])
    np.testing.assert_allclose(np.abs(planes.Z).sum(0), [1, 2])


def test_eps_below_rounding_still_ends():
    truth = victim(8, 6, 4)
    result = paper.learn_model(oracle_of(truth), 6, 4, key(8), eps=1e-300, reach=1e4)
    assert result.ok
    assert error(result.network, truth) < 1e-12


def test_gradients_that_round_differently_at_every_point(counting_host):
    """A batched or parallel victim repeats a gradient to rounding only."""
    truth, noise = victim(9, 6, 4), np.random.default_rng(0)
    fn = counting_host(truth).oracle.fn

    def jittered(x):
        value, gradient = fn(x)
        return value, gradient * (1 + 4e-16 * noise.normal(size=gradient.shape))

    result = paper.learn_model(oracles.from_host(jittered), 6, 4, key(9))
    assert result.ok
    assert error(result.network, truth) < 1e-12


# --- Algorithm 1b ------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from(SIZES))
@settings(max_examples=25)
def test_linear_program_puts_x_in_one_cell_with_full_rank(seed, size):
    dim, width = size
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(width, dim)) * 10.0 ** rng.uniform(-4, 4, size=(width, 1))
    X = paper.choose_x(Z)
    assert X.shape == (dim, width)
    N = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    assert np.all(N @ X > 0)
    assert np.linalg.matrix_rank(N @ X) == width


@pytest.mark.parametrize(("dim", "width"), SIZES)
def test_signs_equal_those_of_the_pseudoinverse_construction(dim, width):
    """X = pinv(Z) P with P > 0 of rank h needs no linear program and must give the same s."""
    truth = victim(10, dim, width)
    flip = np.resize([1.0, -1.0], width)
    Z = flip[:, None] * np.asarray(truth.weights[0])[:, None] * np.asarray(truth.rows)
    signs = paper.recover_s(oracle_of(truth), Z)
    P = np.ones((width, width)) + np.eye(width)
    X = np.linalg.pinv(Z) @ P
    M = np.block([[P.T, np.zeros_like(P)], [np.zeros_like(P), P.T]])
    expected = np.linalg.solve(M, evaluate(truth, np.concatenate([X.T, -X.T])))
    np.testing.assert_allclose(signs.s, expected, rtol=0, atol=1e-8)
    # Section 3.2: sgn(w_i) in the first half where z_i = |w_i| A_i, else in the second.
    sign = np.sign(np.asarray(truth.weights[0]))
    along = flip * sign > 0
    planted_s = np.concatenate([np.where(along, sign, 0), np.where(along, 0, sign)])
    np.testing.assert_allclose(signs.s, planted_s, rtol=0, atol=1e-8)
    assert signs.cost == Cost(values=2 * width, numbers=2 * width, rounds=1)


@pytest.mark.parametrize(
    "Z",
    [
        [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]],
        [[1.0, 2.0, 3.0], [-2.0, -4.0, -6.0]],
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]],
        [[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]],
        [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
    ],
)
def test_dependent_rows_have_no_x(Z):
    assert paper.choose_x(np.array(Z)) is None


# --- The certificate ----------------------------------------------------------------------------


def certificate(truth: TwoLayer, found: TwoLayer, seed: int) -> float:
    with jax.enable_x64(True):
        Z = np.asarray(found.rows) * np.asarray(found.weights[0])[:, None]
        return paper.certify(oracle_of(truth), found, Z, key(seed), 1e3, 1e-12)[0]


@pytest.mark.parametrize("seed", range(30))
def test_certificate_sees_a_unit_that_is_missing(seed):
    truth = victim(seed, 6, 3)
    network = TwoLayer(*(np.asarray(a) for a in jax.tree.leaves(truth)))
    assert certificate(truth, network, seed) < 1e-14
    fewer = TwoLayer(
        network.rows[:2], network.bias[:2], network.weights[:, :2], network.slope, network.offset
    )
    assert certificate(truth, fewer, seed) > 1e-4


@pytest.mark.parametrize("bias", [-30.0, 30.0])
def test_certificate_sees_a_unit_that_a_bias_keeps_off_nearby(bias):
    truth = victim(0, 6, 3)
    network = TwoLayer(*(np.asarray(a) for a in jax.tree.leaves(truth)))
    far = TwoLayer(
        network.rows, np.array([bias, 0, 0]), network.weights, network.slope, network.offset
    )
    fewer = TwoLayer(
        network.rows[1:], network.bias[1:], network.weights[:, 1:], network.slope, network.offset
    )
    for seed in range(10):
        assert certificate(far, fewer, seed) > 1e-4


# --- Failures are values ------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from([(6, 2), (6, 4)]))
@settings(max_examples=20)
def test_width_too_small_is_never_ok(seed, size):
    dim, width = size
    result = paper.learn_model(oracle_of(victim(seed, dim, width)), dim, width - 1, key(seed))
    assert not result.ok


def test_width_too_large_is_notified():
    result = paper.learn_model(oracle_of(victim(0, 8, 3)), 8, 5, key(0))
    assert result.status is Status.SEARCH_FAILED
    assert result.network is None
    assert "3 of 5 rows" in result.detail


def test_more_rows_than_dimensions_cost_nothing():
    result = paper.learn_model(oracle_of(victim(0, 3, 6)), 3, 6, key(0))
    assert result.status is Status.UNSOLVED
    assert result.cost == Cost()


@pytest.mark.parametrize("seed", range(4))
def test_dependent_rows_are_unsolved(seed):
    rows = np.random.default_rng(seed).normal(size=(3, 5))
    rows[2] = rows[0] - 2 * rows[1]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    truth = planted(rows, np.array([1.0, -0.7, 0.4]))
    result = paper.learn_model(oracle_of(truth), 5, 3, key(seed), delta=1e-3)
    assert result.status is Status.UNSOLVED


@pytest.mark.parametrize(("width", "expected"), [(3, Status.SEARCH_FAILED), (2, Status.RECOVERED)])
def test_repeated_rows_count_once(width, expected):
    rows = np.eye(3)[[0, 1, 1]]
    truth = planted(rows, np.array([1.0, -0.7, 0.4]))
    result = paper.learn_model(oracle_of(truth), 3, width, key(0), delta=1e-3)
    assert result.status is expected


@pytest.mark.parametrize(
    ("width", "expected"), [(3, Status.SEARCH_FAILED), (2, Status.UNCERTIFIED)]
)
def test_antiparallel_rows_fail(width, expected):
    rows = np.array([[1.0, 0, 0], [0, 1, 0], [0, -1, 0]])
    truth = planted(rows, np.array([1.0, -0.7, 0.4]))
    result = paper.learn_model(oracle_of(truth), 3, width, key(0), delta=1e-3)
    assert result.status is expected


@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-9, 1e-11])
@pytest.mark.parametrize("weights", [(1.0, 0.8), (1.0, -0.8)])
@pytest.mark.parametrize("width", [1, 2])
def test_nearly_parallel_rows_taken_for_one_are_not_ok(angle, weights, width):
    """They differ from a single unit on a sliver only, which Gaussian points do not meet."""
    rows = np.array([[1.0, 0, 0], [math.cos(angle), math.sin(angle), 0]])
    truth = planted(rows, np.array(weights))
    result = paper.learn_model(oracle_of(truth), 3, width, key(1), eps=1e-2)
    assert not (result.ok and width == 1)
    if result.ok:
        assert result.network.width == 2


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 30.0, 1e4])
def test_biases_are_never_ok(scale):
    for seed in range(3):
        truth = victim(seed, 5, 3, bias=True)
        bias, offset = scale * np.asarray(truth.bias), np.zeros(1)
        truth = TwoLayer(truth.rows, bias, truth.weights, truth.slope, offset)
        assert not paper.learn_model(oracle_of(truth), 5, 3, key(seed)).ok


def test_constant_and_linear_functions_have_no_kinks():
    for f in (lambda x: 0 * x.sum(), lambda x: 0 * x.sum() + 3, lambda x: x.sum()):
        result = paper.learn_model(oracles.from_jax(f), 4, 2, key(0))
        assert result.status is Status.SEARCH_FAILED
        assert "0 of 2 rows" in result.detail


def test_a_smooth_function_is_not_ok():
    result = paper.learn_model(oracles.from_jax(lambda x: jnp.sum(jnp.tanh(x))), 4, 2, key(0))
    assert not result.ok


@given(st.integers(0, 200))
@settings(max_examples=20)
def test_budget_is_kept(counting_host, budget):
    seen = counting_host(victim(11, 6, 4))
    result = paper.learn_model(seen.oracle, 6, 4, key(11), budget=budget)
    assert result.cost == seen.cost
    assert result.cost.queries <= budget
    enough = paper.learn_model(oracle_of(victim(11, 6, 4)), 6, 4, key(11))
    assert enough.ok
    assert result.ok == (budget >= enough.cost.queries)
    assert result.ok or result.status is Status.BUDGET


def test_budget_stops_the_kernel_where_it_stops_the_host(counting_host):
    truth = victim(11, 6, 4)
    for budget in (20, 60, 100):
        traced = paper.learn_model(oracle_of(truth), 6, 4, key(11), budget=budget)
        host = paper.learn_model(counting_host(truth).oracle, 6, 4, key(11), budget=budget)
        assert (traced.status, traced.cost, traced.detail) == (host.status, host.cost, host.detail)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim 0"),
        ({"dim": -3}, "dim -3"),
        ({"width": 0}, "width 0"),
        ({"width": -1}, "width -1"),
        ({"eps": 0.0}, "eps"),
        ({"eps": math.nan}, "eps"),
        ({"reach": -1.0}, "reach"),
        ({"reach": math.inf}, "reach"),
        ({"delta": 2.0}, "delta"),
        ({"separation": 0.0}, "separation"),
        ({"budget": -1}, "budget"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    arguments = {"dim": 4, "width": 2} | arguments
    with pytest.raises(ValueError, match=message):
        paper.learn_model(oracle_of(victim(0, 4, 2)), key=key(0), **arguments)


def test_search_refuses_a_budget_below_its_two_ends():
    with pytest.raises(ValueError, match="budget 1"):
        binary_search.recover_z(oracle_of(victim(0, 4, 2)), 4, 2, key(0), 1e-6, 10.0, budget=1)


def test_several_outputs_are_refused(counting_host):
    with jax.enable_x64(True):
        truth = random_network(jax.random.key(0), 4, 2, outputs=3)
    for oracle in (oracle_of(truth), counting_host(truth).oracle):
        with pytest.raises(ValueError, match="K = 3"):
            paper.learn_model(oracle, 4, 2, key(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("after", [0, 5])
def test_replies_that_are_not_finite_raise(counting_host, bad, after):
    fn, calls = counting_host(victim(0, 4, 2)).oracle.fn, []

    def broken(x):
        value, gradient = fn(x)
        calls.append(len(x))
        return value, np.full_like(gradient, bad) if len(calls) > after else gradient

    with pytest.raises(ReplyError, match="query row 0"):
        paper.learn_model(oracles.from_host(broken), 4, 2, key(0))
    assert len(calls) == after + 1

    def traced(x):
        return jnp.sum(jnp.where(x > 1e3, bad * x, jnp.maximum(x, 0)))

    with pytest.raises(ReplyError, match="not finite"):
        paper.learn_model(oracles.from_jax(traced), 4, 2, key(0), reach=1e6)


def test_an_oracle_that_raises_is_heard():
    def broken(x):
        raise ConnectionError("the service is gone")

    with pytest.raises(ConnectionError, match="gone"):
        paper.learn_model(oracles.from_host(broken), 4, 2, key(0))


@pytest.mark.parametrize("seed", range(3))
def test_float32_victims_at_float32_accuracy(counting_host, seed):
    truth = victim(seed, 6, 4)
    params = jax.tree.map(lambda a: np.asarray(a, np.float32), truth)
    traced = oracles.from_jax(lambda p, x: p(x.astype(jnp.float32)), params)
    host = counting_host(truth, np.float32).oracle
    single = oracles.from_host(
        lambda x: tuple(np.float32(a) for a in host.fn(np.float32(x))),
        lambda x: np.float32(host.value_fn(np.float32(x))),
    )
    for oracle in (traced, single):
        result = paper.learn_model(oracle, 6, 4, key(seed), delta=0.01)
        assert result.ok, str(result)
        assert error(result.network, truth) < 1e-5


# --- One layer ----------------------------------------------------------------------------------


@given(st.sampled_from([1, 2, 40]), st.integers(0, 10**6))
@settings(max_examples=20)
def test_linear_model_from_one_gradient(dim, seed):
    w = np.random.default_rng(seed).normal(size=dim)

    def fn(x):
        return x @ w, np.tile(w, (len(x), 1))

    found, cost = one_layer.learn_linear(oracles.from_host(fn), dim)
    np.testing.assert_array_equal(found, w)
    assert cost == Cost(gradients=1, values=1, numbers=dim + 2, rounds=2)


def sigmoid(params: tuple[np.ndarray, float], x: jax.Array) -> jax.Array:
    w, bias = params
    return jax.nn.sigmoid(w @ x + bias)


def logistic(w: np.ndarray, bias: float = 0.0) -> oracles.Oracle:
    return oracles.from_jax(sigmoid, (w, bias))


@given(st.sampled_from([1, 2, 40]), st.integers(0, 10**6), st.floats(-3, 3))
@settings(max_examples=20)
def test_logistic_model_from_one_gradient_and_one_value(dim, seed, log_scale):
    w = 10**log_scale * np.random.default_rng(seed).normal(size=dim)
    found, cost = one_layer.learn_logistic(logistic(w), dim)
    np.testing.assert_allclose(found, w, rtol=1e-12)
    assert cost == Cost(gradients=1, values=1, numbers=dim + 2, rounds=2)
    elsewhere, _ = one_layer.learn_logistic(logistic(w), dim, x=w / (w @ w))
    np.testing.assert_allclose(elsewhere, w, rtol=1e-12)


@pytest.mark.parametrize("along", [1000.0, -1000.0, 40.0])
def test_a_saturated_sigmoid_says_so(along):
    w = np.array([1.0, -2.0, 0.5])
    with pytest.raises(ValueError, match="saturated"):
        one_layer.learn_logistic(logistic(w), 3, x=along * w / (w @ w))


@pytest.mark.parametrize("bias", [0.5, 1e-6])
def test_other_models_are_not_taken_for_one_layer(bias):
    w = np.array([1.0, -2.0, 0.5])
    with pytest.raises(ValueError, match="not sigmoid"):
        one_layer.learn_logistic(logistic(w, bias), 3)
    with pytest.raises(ValueError, match="not sigmoid"):
        one_layer.learn_logistic(oracles.from_jax(lambda x: jnp.sum(x) + 0.5), 3)
    with pytest.raises(ValueError, match="saturated"):
        one_layer.learn_logistic(oracle_of(victim(0, 3, 2)), 3)
    with pytest.raises(ValueError, match="not <w, x>"):
        one_layer.learn_linear(oracles.from_jax(lambda x: jnp.sum(x) + bias), 3)
    with pytest.raises(ValueError, match="not <w, x>"):
        one_layer.learn_linear(oracle_of(victim(0, 3, 2)), 3)
    with pytest.raises(ValueError, match="not <w, x>"):
        one_layer.learn_linear(logistic(w), 3)


def test_one_layer_refuses_other_shapes():
    with pytest.raises(ValueError, match="K = 3"):
        one_layer.learn_linear(oracles.from_jax(lambda x: x), 3)
    with pytest.raises(ValueError, match="dim 0"):
        one_layer.learn_linear(oracles.from_jax(jnp.sum), 0)
    with pytest.raises(ValueError, match="shape"):
        one_layer.learn_logistic(logistic(np.ones(3)), 3, x=np.ones(2))
