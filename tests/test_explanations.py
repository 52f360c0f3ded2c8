from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from recon import explanations
from recon.explanations import EXPLANATIONS
from recon.paths import Path

DIM, OUTPUTS = 5, 3
each = pytest.mark.parametrize("name", EXPLANATIONS)
TOP = {"top", "smooth_top"}
PRODUCTS = {"input_x_gradient", "integrated_gradients"}


@pytest.fixture(scope="module")
def weights():
    return jax.random.normal(jax.random.key(0), (OUTPUTS, DIM))


@pytest.fixture(scope="module")
def batch():
    return jax.random.normal(jax.random.key(1), (6, DIM))


def smooth(weights):
    """A function with curvature, so that a wrong point or a wrong axis shows."""
    return lambda x: jnp.sin(weights @ x) * jnp.arange(1.0, OUTPUTS + 1)


@each
def test_of_a_linear_function_every_explanation_is_its_matrix(name, weights, batch):
    def f(x):
        return weights @ x + jnp.arange(3.0)

    for x in batch:
        row = weights[jnp.argmax(f(x))]
        expected = row if name in TOP else weights
        expected = expected * x[None] if name in PRODUCTS else expected
        got = EXPLANATIONS[name](f, x, jax.random.key(2))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("x", [-1.0, -0.2, 0.0, 0.3, 1.5])
@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_smoothgrad_of_a_kink_is_the_normal_distribution_function(x, sigma):
    n = 20_000
    got = explanations.smoothgrad(jax.nn.relu, jnp.array([x]), jax.random.key(3), n=n, sigma=sigma)
    p = norm.cdf(x / sigma)
    assert got.shape == (1, 1)
    assert abs(float(got[0, 0]) - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-6


def test_smoothgrad_uses_sigma_as_a_standard_deviation():
    # E d/dx (x + z)^3 = 3 (x^2 + sigma^2): sigma^2 I, not sigma I
    got = explanations.smoothgrad(
        lambda x: x**3, jnp.array([0.5]), jax.random.key(4), n=200_000, sigma=0.2
    )
    assert abs(float(got[0, 0]) - 3 * (0.25 + 0.04)) < 5e-3


def test_gradients_agree_with_finite_differences(weights, batch):
    with jax.enable_x64(True):
        f = smooth(weights.astype(jnp.float64))
        for x in batch.astype(jnp.float64):
            steps = 1e-6 * np.eye(DIM)
            columns = [(f(x + e) - f(x - e)) / 2e-6 for e in steps]
            expected = np.stack(columns, axis=1)
            np.testing.assert_allclose(explanations.jacobian(f, x), expected, atol=1e-8)
            top = int(jnp.argmax(f(x)))
            np.testing.assert_allclose(explanations.top_gradient(f, x), expected[top], atol=1e-8)
            for label in range(OUTPUTS):
                got = explanations.class_gradient(f, x, label)
                np.testing.assert_allclose(got, expected[label], atol=1e-8)


def test_smoothgrad_is_the_mean_over_its_own_noise(weights, batch):
    f, key, x = smooth(weights), jax.random.key(5), batch[0]
    points = x[None] + 0.4 * jax.random.normal(key, (7, DIM))
    rows = jnp.stack([explanations.jacobian(f, z) for z in points])
    got = explanations.smoothgrad(f, x, key, n=7, sigma=0.4)
    np.testing.assert_allclose(got, rows.mean(0), rtol=1e-5, atol=1e-6)
    label = int(jnp.argmax(f(x)))
    top = explanations.smooth_top_gradient(f, x, key, n=7, sigma=0.4)
    np.testing.assert_allclose(top, rows.mean(0)[label], rtol=1e-5, atol=1e-6)


@each
def test_smoothgrad_of_either_without_noise_is_the_explanation(name, weights, batch):
    f, explain = smooth(weights), EXPLANATIONS[name]
    got = explanations.smoothgrad(f, batch[0], jax.random.key(6), explain=plain(name), sigma=0.0)
    assert np.any(got)
    np.testing.assert_allclose(got, plain(name)(f, batch[0], None), rtol=1e-5, atol=1e-6)
    assert got.shape == explain(f, batch[0], jax.random.key(6)).shape


def plain(name):
    return explanations.top_gradient if name in TOP else explanations.jacobian


def test_integrated_gradients_sum_to_what_the_values_change_from_the_origin(weights, batch):
    f = smooth(weights)
    for x in batch:
        got = explanations.integrated_gradients(f, x)
        np.testing.assert_allclose(got.sum(1), f(x) - f(0 * x), rtol=1e-4, atol=1e-5)
        assert np.abs(got - explanations.input_x_gradient(f, x)).max() > 0.1
    x = jnp.array([0.7])  # of x^3 / 3: x times the mean of (a x)^2
    cube = explanations.integrated_gradients(lambda z: z**3 / 3, x, path=Path(steps=2))
    np.testing.assert_allclose(cube, [[0.7**3 / 3]], rtol=1e-5)


# --- the forms in which they are shown --------------------------------------------------------

ROWS = np.array([[-3.0, 1.0, 2.0, 0.25, 0.0, -0.5], [0.0] * 6], np.float32)
AS_SHOWN = {
    "plain": ROWS,
    "absolute": [[3, 1, 2, 0.25, 0, 0.5], [0] * 6],
    "channel_sum": [[0, -0.25], [0, 0]],
    "channel_max": [[3, 0.5], [0, 0]],
    "digits_6": ROWS,
    "digits_4": ROWS,
    "digits_3": ROWS,
    "heat_map": [[255, 85, 170, 21, 0, 42], [0] * 6],  # 255 / 12 = 21.25, 255 / 6 = 42.5 to even
}


@pytest.mark.parametrize("name", explanations.SHOWN)
def test_a_form_is_its_definition_and_what_a_student_matches_is_near_it(name):
    form = explanations.SHOWN[name]
    shown, matched = form.show(jnp.asarray(ROWS)), form.match(jnp.asarray(ROWS))
    np.testing.assert_allclose(shown, AS_SHOWN[name], atol=1e-6)
    np.testing.assert_allclose(matched, np.asarray(shown, float), atol=0.5)
    assert matched.dtype == jnp.float32
    assert explanations.numbers(name, 6) == shown.shape[1]
    slope = jax.grad(lambda rows: jnp.sum(form.match(rows) ** 2))(jnp.asarray(ROWS))
    assert np.isfinite(slope).all()
    assert np.any(slope)
    two = form.match(jnp.asarray(ROWS[:1])) + form.match(jnp.asarray(-ROWS[:1]))
    assert form.linear == (np.abs(two).max() == 0)


@pytest.mark.parametrize("places", [3, 4, 6])
def test_digits_are_decimals(places):
    with jax.enable_x64(True):
        got = explanations.SHOWN[f"digits_{places}"].show(jnp.array([1 / 3, -2 / 3]))
    np.testing.assert_allclose(got, np.round([1 / 3, -2 / 3], places), rtol=0, atol=1e-15)


def test_channels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="pictures of 3 channels, not 64 inputs"):
        explanations.numbers("channel_sum", 64)


@each
def test_jit_vmap_and_a_loop_agree(name, weights, batch):
    f, keys = smooth(weights), jax.random.split(jax.random.key(7), len(batch))
    explain = partial(EXPLANATIONS[name], f)
    loop = jnp.stack([explain(x, key) for x, key in zip(batch, keys, strict=True)])
    np.testing.assert_allclose(jax.vmap(explain)(batch, keys), loop, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(explain))(batch, keys), loop, rtol=1e-5, atol=1e-6)
    assert loop.shape == ((6, DIM) if name in TOP else (6, OUTPUTS, DIM))


@each
def test_explanations_follow_the_precision_of_the_input(name, weights, batch):
    with jax.enable_x64(True):
        f = smooth(weights.astype(jnp.float64))
        got = EXPLANATIONS[name](f, batch[0].astype(jnp.float64), jax.random.key(8))
        assert got.dtype == jnp.float64


def test_smoothgrad_over_no_points_is_refused(weights, batch):
    with pytest.raises(ValueError, match="n >= 1"):
        explanations.smoothgrad(smooth(weights), batch[0], jax.random.key(9), n=0)


def test_the_gradients_agree_with_captum(weights, batch):
    torch = pytest.importorskip("torch", reason="the cross-check with captum needs PyTorch")
    attr = pytest.importorskip("captum.attr", reason="the cross-check needs captum")
    matrix = torch.tensor(np.asarray(weights))
    scale = torch.arange(1.0, OUTPUTS + 1)
    saliency = attr.Saliency(lambda x: torch.sin(x @ matrix.T) * scale)
    x = torch.tensor(np.asarray(batch), requires_grad=True)
    rows = jax.vmap(partial(explanations.jacobian, smooth(weights)))(batch)
    for label in range(OUTPUTS):
        got = saliency.attribute(x, target=label, abs=False).detach().numpy()
        np.testing.assert_allclose(got, rows[:, label], rtol=1e-4, atol=1e-5)
    paths = attr.IntegratedGradients(lambda x: torch.sin(x @ matrix.T) * scale)
    rows = jax.vmap(partial(explanations.integrated_gradients, smooth(weights)))(batch)
    for label in range(OUTPUTS):
        got = paths.attribute(x, target=label).detach().numpy()
        np.testing.assert_allclose(got, rows[:, label], rtol=1e-4, atol=1e-5)
    # Both draw their own noise, so they agree to within the error of a mean of n.
    n, sigma = 4000, 0.3
    tunnel = attr.NoiseTunnel(saliency)
    torch.manual_seed(0)
    theirs = tunnel.attribute(
        x, nt_type="smoothgrad", nt_samples=n, stdevs=sigma, target=1, abs=False
    )
    key = jax.random.key(10)
    ours = jax.vmap(
        lambda x: explanations.smoothgrad(smooth(weights), x, key, n=n, sigma=sigma)[1]
    )(batch)
    np.testing.assert_allclose(theirs.detach().numpy(), ours, atol=0.2)
