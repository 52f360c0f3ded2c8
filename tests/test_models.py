import math

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import data, models, oracles, victims

SHAPES = {**data.SHAPES, "odd": (5, 7, 2), "dot": (1, 1, 1)}
# narrow forms of a model differ from it in numbers of channels alone
ANY = [(n, kind) for n in models.MODELS for kind in SHAPES if "-" not in n or kind == "odd"]
SLOWLY = pytest.param("resnet18-quarter", marks=pytest.mark.slow)  # to compile
CHEAP = ["linear", "mlp", "conv", "conv_large"]  # to compile


def start(name, shape, classes=10):
    """The model as a function, random variables, and a batch [3, d]."""
    module, random = models.build(name, shape, classes), np.random.default_rng(1)
    x = random.uniform(size=(3, math.prod(shape))).astype(np.float32)
    return models.logits(module), drawn.variables(module, x[0]), jnp.asarray(x)


@pytest.mark.parametrize(("name", "kind"), ANY)
def test_any_image_shape_and_class_count(name, kind):
    # shapes alone: nothing is compiled
    shape = SHAPES[kind]
    module, d = models.build(name, shape, 7), math.prod(shape)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(d))
    for batch in ((), (4,), (2, 3)):
        out = jax.eval_shape(models.logits(module), variables, jnp.zeros((*batch, d)))
        assert out.shape == (*batch, 7)
        assert out.dtype == jnp.float32


def conv_parameters(shape, kernel, channels, dense, sides):
    """Counted by hand: kernels and biases of two convolutions and two dense layers."""
    first, second = channels
    return (
        kernel**2 * shape[2] * first + first
        + kernel**2 * first * second + second
        + sides**2 * second * dense + dense
        + dense * 10 + 10
    )  # fmt: skip


def test_the_table_of_parameter_counts():
    table = {row["model"]: row for row in victims.sizes()}
    assert table.keys() == models.MODELS.keys()
    for kind, shape in data.SHAPES.items():
        d = math.prod(shape)
        assert table["linear"][kind] == 10 * d + 10
        assert table["mlp"][kind] == 128 * d + 128 + 1290
        # two 2x2 pools after convolutions that keep the size
        large = conv_parameters(shape, 5, (32, 64), 512, shape[0] // 4)
        assert table["conv_large"][kind] == large
    assert table["mlp"]["mnist"] == 101_770
    # 28 -> 24 -> 12 -> 8 -> 4 and 32 -> 28 -> 14 -> 10 -> 5 without padding
    assert table["conv"]["mnist"] == conv_parameters((28, 28, 1), 5, (10, 20), 50, 4) == 21_840
    assert table["conv"]["cifar10"] == conv_parameters((32, 32, 3), 5, (10, 20), 50, 5)
    assert table["conv"]["digits"] == conv_parameters((8, 8, 1), 3, (10, 20), 50, 2)


@pytest.mark.parametrize(("name", "share"), [("", 1), ("-half", 2), ("-quarter", 4)])
def test_vgg11_and_resnet18_have_their_published_layers(name, share):
    # counted for 32x32x3 and 10 classes: kernels, two numbers a channel for the norm, the head
    c, d, e, f = (channels // share for channels in (64, 128, 256, 512))
    vgg = [(3, c), (c, d), (d, e), (e, e), (e, f), (f, f), (f, f), (f, f)]
    count = sum(9 * a * b + 2 * b for a, b in vgg) + f * 10 + 10
    assert models.parameters(f"vgg11{name}", (32, 32, 3), 10) == count
    blocks = [(c, c), (c, c), (c, d), (d, d), (d, e), (e, e), (e, f), (f, f)]
    count = 27 * c + 2 * c + f * 10 + 10
    for a, b in blocks:
        count += 9 * a * b + 9 * b * b + 4 * b + (a * b + 2 * b if a != b else 0)
    assert models.parameters(f"resnet18{name}", (32, 32, 3), 10) == count


@pytest.mark.parametrize("name", CHEAP)
def test_one_input_and_a_batch_are_answered_alike(name):
    f, variables, x = start(name, (8, 8, 1))
    batch, one = jax.jit(f)(variables, x), jax.jit(f)(variables, x[1])
    np.testing.assert_allclose(one, batch[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vgg11", SLOWLY])
def test_an_input_does_not_see_the_others_of_its_batch(name):
    f, variables, x = start(name, (8, 8, 1))
    answer = jax.jit(f)
    before, after = answer(variables, x), answer(variables, x.at[1:].set(0.0))
    np.testing.assert_allclose(after[0], before[0], rtol=1e-4, atol=1e-5)
    assert np.abs(after[1] - before[1]).max() > 1e-3


def straight_conv(params, x, kernel, pad):
    """The conv model on one grey image, in NumPy float64, written out."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    image = np.asarray(x, np.float64)
    for layer in ("Conv_0", "Conv_1"):
        weight, bias = params[layer]["kernel"], params[layer]["bias"]
        image = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(image, (kernel, kernel), axis=(0, 1))
        image = np.maximum(np.einsum("hwcab,abco->hwo", windows, weight) + bias, 0)
        h, w = image.shape[0] // 2, image.shape[1] // 2
        corners = [image[i : 2 * h : 2, j : 2 * w : 2] for i in (0, 1) for j in (0, 1)]
        image = np.maximum.reduce(corners)
    hidden = image.reshape(-1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    return np.maximum(hidden, 0) @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


@pytest.mark.parametrize(
    ("name", "shape", "kernel", "pad"),
    [
        ("conv", (28, 28, 1), 5, 0),
        ("conv", (18, 17, 1), 5, 0),  # odd sides: the last row or column is dropped
        ("conv", (8, 8, 1), 3, 1),
        ("conv_large", (8, 8, 1), 5, 2),
    ],
)
def test_the_convolutional_models_written_out(name, shape, kernel, pad):
    f, variables, x = start(name, shape)
    answer = jax.jit(f)
    for row in x[:2]:
        expected = straight_conv(variables["params"], row.reshape(shape), kernel, pad)
        np.testing.assert_allclose(answer(variables, row), expected, rtol=1e-4, atol=1e-5)


def test_linear_is_softmax_regression():
    f, variables, x = start("linear", (8, 8, 1))
    output = variables["params"]["output"]
    np.testing.assert_allclose(f(variables, x), x @ output["kernel"] + output["bias"][None], 1e-5)
    reply = oracles.from_jax(f, variables)(x)
    for gradient in reply.gradient:
        np.testing.assert_allclose(gradient, output["kernel"].T, rtol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_gradients_are_derivatives_and_can_be_matched(name):
    f, variables, x = start(name, (8, 8, 1))
    direction = jax.random.normal(jax.random.key(2), x[0].shape)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
        row, along = jnp.asarray(x[0], jnp.float64), jnp.asarray(direction, jnp.float64)
        answer = jax.jit(lambda r: f(double, r))
        _, slope = jax.jvp(answer, (row,), (along,))
        step = 1e-7  # small enough to cross no kink here
        change = (answer(row + step * along) - answer(row - step * along)) / (2 * step)
        np.testing.assert_allclose(slope, change, rtol=1e-5, atol=1e-7)

    @jax.jit
    def loss(v):  # the gradient part of section 4's loss
        jacobian = jax.jacobian(lambda r: f(v, r))(x[0])
        return jnp.sum(jacobian**2)

    value, gradient = jax.jit(jax.value_and_grad(loss))(variables)
    norms = {k: float(jnp.abs(v["kernel"]).max()) for k, v in gradient["params"].items()}
    assert value > 0
    assert all(norm > 0 for norm in norms.values())
    # all kernels scaled by s scale a Jacobian by s^layers, up to the masks; along one layer, by s
    last = list(variables["params"])[-1]
    scaled = {
        **variables["params"],
        last: jax.tree.map(lambda a: 2.0 * a, variables["params"][last]),
    }
    np.testing.assert_allclose(loss({"params": scaled}), 4 * value, rtol=1e-5)
    inner = jnp.vdot(gradient["params"][last]["kernel"], variables["params"][last]["kernel"])
    np.testing.assert_allclose(inner, 2 * value, rtol=1e-4)  # Euler: homogeneous of degree 2


@pytest.mark.parametrize("name", ["vgg11-quarter", SLOWLY])
def test_accelerators_have_the_same_variables_and_values(name, monkeypatch):
    _, variables, x = start(name, (8, 8, 3))
    answers = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        module = models.build(name, (8, 8, 3), 10)
        drawn = jax.eval_shape(module.init, jax.random.key(0), x[0])
        assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, variables)
        lowered = jax.jit(lambda v, x, module=module: module.apply(v, x)).lower(variables, x)
        assert ("stablehlo.convolution" in lowered.as_text()) == (backend == "gpu")
        answers.append(lowered.compile()(variables, x))
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-4)


def test_equal_modules_share_a_function():
    shape = (8, 8, 1)
    for name in models.MODELS:
        first, again = (models.logits(models.build(name, shape, 10)) for _ in range(2))
        assert first is again
    assert models.logits(models.conv(shape, 10)) is not models.logits(models.conv(shape, 9))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"no model 'vgg19'; there are linear, mlp, .*resnet18"):
        models.build("vgg19", (8, 8, 1), 10)
    for build, factor in ((models.vgg11, 0.3), (models.resnet18, 1 / 8), (models.vgg11, -1)):
        with pytest.raises(ValueError, match=rf"factor of {factor} leaves .* of 64 .*1/2 and 1/4"):
            build((32, 32, 3), 10, factor)
    f, variables, _ = start("conv", (8, 8, 1))
    with pytest.raises(ValueError, match=r"inputs of 784 numbers are not images of .*\(8, 8, 1\)"):
        f(variables, jnp.zeros(784))
