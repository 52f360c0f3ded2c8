"""Keras 3 models on the backend that KERAS_BACKEND names, JAX's if none."""

import os

import jax
import numpy as np
import pytest
from agree import held

from recon import exact
from recon.victims import brought

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")
layers = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Keras promotes as JAX does by default."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def sequential(*more):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((5,)), layers.Dense(9, "tanh"), *more])


def forward(model, shape=(5,)):
    return lambda x: np.asarray(
        keras.ops.convert_to_numpy(model(x.astype("float32").reshape(-1, *shape), training=False))
    )


def test_an_image_model_is_asked_as_in_inference_and_left_alone():
    inputs = keras.Input((6, 6, 1))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="tanh")(inputs))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(3)(x))
    weights = [a * 1.1 for a in model.get_weights()]
    model.set_weights(weights)
    taken = brought.bring(model)
    assert taken.dim == 36
    held(taken.oracle, forward(model, (6, 6, 1)), 36, exact=False)
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def ends():
    yield [layers.Dense(3, "softmax")], "probabilities"
    yield [layers.Dense(3), layers.Softmax()], "probabilities"
    yield [layers.Dense(3), layers.Activation("log_softmax")], "log_probabilities"
    yield [layers.Dense(1, "sigmoid")], "probabilities"
    yield [keras.Sequential([keras.Input((9,)), layers.Dense(3, "softmax")])], "probabilities"


@pytest.mark.parametrize("i", range(5))
def test_a_softmax_at_the_end_makes_a_view_and_logits_leaves_it_out(i):
    last, word = list(ends())[i]
    model = sequential(*last)
    oracle = brought.oracle(model)
    assert str(oracle.view) == f"{word}, jacobian of {word}"
    held(oracle, forward(model), 5, exact=False)
    first, bias, rows, offset = model.get_weights()
    held(
        brought.oracle(model, logits=True),
        lambda x: np.tanh(x @ first + bias) @ rows + offset,
        5,
        exact=False,
    )
    assert float(forward(model)(np.ones((1, 5))).max()) <= 1


def test_what_cannot_be_taken_is_one_sentence():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return keras.ops.softmax(self.dense(x))

    own = Own()
    with pytest.raises(ValueError, match="not built"):
        brought.oracle(own)
    own(np.zeros((1, 5), "float32"))
    with pytest.raises(ValueError, match="Keras Own returns probabilities"):
        brought.oracle(own, shape=(5,))
    with pytest.raises(ValueError, match="no softmax or sigmoid"):
        brought.oracle(sequential(layers.Dense(3)), logits=True)
    with pytest.raises(ValueError, match="sigmoids of 3 outputs"):
        brought.oracle(sequential(layers.Dense(3, "sigmoid")))
    a, b = keras.Input((2,)), keras.Input((2,))
    with pytest.raises(ValueError, match="takes several inputs"):
        brought.oracle(keras.Model([a, b], layers.Add()([a, b])))


def test_a_saved_model_is_recovered(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(12, "relu"), layers.Dense(3, "softmax")]
    )
    model.compile(loss="sparse_categorical_crossentropy")
    model.save(tmp_path / "net.keras")
    for logits, atol in ((True, 1e-5), (False, 1e-3)):  # float32, as logits or as probabilities
        oracle = brought.oracle(brought.load(tmp_path / "net.keras"), logits=logits)
        found = exact.recover(oracle, dim=5, key=0)
        assert found.ok or not logits, str(found)
        x = np.random.default_rng(0).standard_normal((50, 5))
        odds = np.exp(found.network(x))
        odds = odds / odds.sum(1, keepdims=True)
        assert not found.ok or np.abs(odds - forward(model)(x)).max() < atol


def test_a_file_with_a_lambda_needs_trust(tmp_path):
    model = sequential(layers.Dense(3), layers.Lambda(lambda x: 2 * x))
    model.save(tmp_path / "net.keras")
    with pytest.raises(ValueError, match=r"net.keras could not be read: .*ambda"):
        brought.load(tmp_path / "net.keras")
    model.save(tmp_path / "old.h5")
    with pytest.raises(ValueError, match=r"old.h5 was not opened: Keras does not check.*--trust"):
        brought.load(tmp_path / "old.h5")
    trusted = brought.load(tmp_path / "net.keras", trust=True)
    held(brought.oracle(trusted), forward(model), 5, exact=False)
