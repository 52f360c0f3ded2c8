"""flax and equinox modules, functions, and what is no model at all."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agree import held
from flax import linen, nnx

from recon import exact, oracles, victims
from recon.victims import brought
from recon.victims.brought.common import need


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = linen.BatchNorm(use_running_average=not train)(jnp.tanh(linen.Dense(9)(x)))
        return linen.Dense(3)(linen.Dropout(0.5, deterministic=not train)(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(jnp.tanh(self.norm(self.first(x)))).mean((1, 2)))


@pytest.mark.parametrize("bound", [False, True])
def test_linen_modules_are_asked_as_in_inference(bound):
    module = Linen()
    x = jax.random.normal(jax.random.key(0), (40, 5))
    variables = module.init(jax.random.key(1), x, train=False)
    _, moved = module.apply(
        variables, x, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)}
    )
    variables = {**variables, **moved}
    model = module.bind(variables) if bound else (module, variables)
    oracle = brought.oracle(model, shape=(5,))
    held(oracle, lambda x: module.apply(variables, x, train=False), 5, exact=False)


def test_nnx_modules_are_asked_as_in_inference_and_left_in_training():
    model = Nnx(nnx.Rngs(0))
    model(jnp.asarray(np.random.default_rng(0).standard_normal((9, 4, 4, 2)), jnp.float32))
    taken = brought.bring(model, shape=(4, 4, 2))
    assert taken.dim == 32
    assert not model.drop.deterministic
    assert not model.norm.use_running_average
    copy = nnx.clone(model)
    copy.eval()
    forward = lambda x: copy(jnp.asarray(x).reshape(-1, 4, 4, 2))  # noqa: E731
    held(taken.oracle, forward, 32, exact=False)


def test_equinox_modules_are_asked_as_in_inference():
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 2)
    parts = [
        eqx.nn.Linear(5, 9, key=keys[0]),
        eqx.nn.Lambda(jnp.tanh),
        eqx.nn.Dropout(0.5),
        eqx.nn.Linear(9, 3, key=keys[1]),
    ]
    model = eqx.nn.Sequential(parts)
    oracle = brought.oracle(model, shape=(5,))
    assert not model[2].inference
    inference = eqx.nn.inference_mode(model)
    held(oracle, jax.vmap(inference), 5, exact=False)


def test_a_recovered_network_can_be_attacked_again():
    with jax.enable_x64(True):
        network = victims.random_network(jax.random.key(0), 6, 4, bias=True)
    taken = brought.bring(network)
    assert taken.dim == 6
    assert exact.recover(taken.oracle, dim=6, key=0).ok


def test_functions_are_jaxs_and_probabilities_need_a_word():
    f = lambda x: jnp.stack([x @ x, 3 * x[0]])  # noqa: E731
    held(brought.oracle(f), jax.vmap(f), 4, exact=False)
    held(brought.oracle(jax.jit(f), shape=(4,)), jax.vmap(f), 4, exact=False)
    for g, word in ((jax.nn.softmax, "probabilities"), (jax.nn.log_softmax, "log-probabilities")):
        with pytest.raises(ValueError, match=f"JAX function returns {word}, as far as 16 inputs"):
            brought.oracle(lambda x, g=g: g(f(x)), shape=(4,))
    view = oracles.View("probabilities", of="probabilities")
    reply, _ = oracles.ask(brought.oracle(f, view=view), np.eye(4))
    np.testing.assert_allclose(reply.value.sum(1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="no softmax or sigmoid at its end"):
        brought.oracle(f, logits=True)


def test_what_is_no_model_is_one_sentence():
    for model in (SimpleNamespace(), 3, (), "net.onnx", (Nnx(nnx.Rngs(0)), {})):
        with pytest.raises(ValueError, match=r"is no model of scikit-learn, .* and no function"):
            brought.oracle(model)


def test_a_linen_module_without_variables_is_one_sentence():
    with pytest.raises(ValueError, match=r"give \(module, variables\)"):
        brought.oracle(Linen())


def test_a_missing_library_says_what_to_install():
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'recon\[torch\]'"):
        need("surely_absent.part", "torch")
