from dataclasses import replace

import jax
import numpy as np
import pytest

from recon import data, models, victims
from recon.victims import classifiers
from recon.victims.classifiers import Training

SHORT = Training(steps=300, learning_rate=1e-2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    return tmp_path / "victims"


@pytest.fixture(scope="module")
def digits():
    return data.digits(0)


def same(first, second):
    leaves = zip(jax.tree.leaves(first.variables), jax.tree.leaves(second.variables), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


@pytest.mark.parametrize(("model", "floor"), [("linear", 0.9), ("mlp", 0.93), ("conv", 0.93)])
def test_digits_are_learned(digits, model, floor):
    victim = victims.classifier(digits, model, training=SHORT)
    assert (victim.dataset, victim.model, victim.seed) == ("digits", model, 0)
    assert victim.f is models.logits(models.build(model, digits.shape, digits.classes))
    # measured once more, row by row and without the module's own accuracy
    value = victim.oracle.value(np.asarray(digits.test.x, np.float32))
    measured = np.mean(np.argmax(value, axis=1) == digits.test.y)
    assert victim.accuracy == measured > floor
    assert all(isinstance(a, np.ndarray) for a in jax.tree.leaves(victim.variables))


def test_a_classifier_is_trained_once(digits, cache):
    heard = []
    tell = lambda *report: heard.append(report)  # noqa: E731
    first = victims.classifier(digits, "linear", training=SHORT, tell=tell)
    assert [(done, steps) for done, steps, _ in heard] == [(100, 300), (200, 300), (300, 300)]
    assert heard[-1][2] < heard[0][2] < np.log(10)  # the loss falls from guessing
    assert len(list(cache.iterdir())) == 1
    again = victims.classifier(digits, "linear", training=SHORT, tell=tell)
    assert len(heard) == 3
    assert same(first, again)
    assert jax.tree.structure(first.variables) == jax.tree.structure(again.variables)
    assert (again.accuracy, again.f) == (first.accuracy, first.f)


def test_seed_and_precision(digits):
    short = Training(steps=20)
    first = victims.classifier(digits, "linear", training=short, keep=False)
    with jax.enable_x64(True):
        double = victims.classifier(digits, "linear", training=short, keep=False)
    other = victims.classifier(digits, "linear", seed=1, training=short, keep=False)
    assert same(first, double)
    assert first.accuracy == double.accuracy
    assert not same(first, other)


def test_whatever_changes_the_result_changes_the_file(digits, cache, monkeypatch):
    def untrained(init, *_):
        shapes = jax.eval_shape(init, jax.random.key(0), jax.numpy.zeros(64))
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)

    monkeypatch.setattr(classifiers, "fit", untrained)  # what is kept does not matter here
    short = Training(steps=2)
    flipped = data.Examples(digits.train.x, digits.train.y[::-1].copy())
    variants = [
        (digits, "linear", 0, short),
        (digits, "mlp", 0, short),
        (digits, "linear", 1, short),
        (digits, "linear", 0, replace(short, batch=8)),
        (digits, "linear", 0, replace(short, steps=3)),
        (digits, "linear", 0, replace(short, learning_rate=1.0)),
        (data.digits(1), "linear", 0, short),
        (replace(digits, train=flipped), "linear", 0, short),
        (data.validation(digits, 100), "linear", 0, short),
    ]
    for variant in variants:
        victims.classifier(*variant)
    assert len(list(cache.iterdir())) == len(variants)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "another"])
def test_a_damaged_file_is_made_again(digits, cache, damage):
    first = victims.classifier(digits, "linear", training=Training(steps=5))
    (path,) = cache.iterdir()
    if damage == "another":
        np.savez(path, accuracy=1.0, other=np.zeros(3))
    else:
        path.write_bytes(path.read_bytes()[:500] if damage == "truncated" else b"")
    again = victims.classifier(digits, "linear", training=Training(steps=5))
    assert same(first, again)
    assert again.accuracy == first.accuracy
    with np.load(path) as file:
        assert "params/output/kernel" in file


def test_a_victim_that_cannot_be_kept_is_not_lost(digits, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RECON_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"file/victims.*cannot be written .*set RECON_CACHE"):
        victim = victims.classifier(digits, "linear", training=Training(steps=5))
    assert victim.variables["params"]["output"]["kernel"].shape == (64, 10)


def test_a_loss_that_is_not_finite_stops(digits, cache):
    x = digits.train.x.copy()
    x[:] = np.nan
    broken = replace(digits, train=data.Examples(x, digits.train.y))
    with pytest.raises(FloatingPointError, match=r"linear on digits has loss nan after step 100"):
        victims.classifier(broken, "linear")
    assert not cache.exists()


def test_small_data_is_one_batch(digits):
    few = replace(digits, train=data.Examples(digits.train.x[:5], digits.train.y[:5]))
    victim = victims.classifier(few, "mlp", training=SHORT, keep=False)
    assert classifiers.accuracy(victim.f, victim.variables, few.train) == 1.0


def test_accuracy_counts_every_chunk(digits):
    victim = victims.classifier(digits, "linear", training=SHORT, keep=False)
    whole = classifiers.accuracy(victim.f, victim.variables, digits.test)
    assert classifiers.accuracy(victim.f, victim.variables, digits.test, chunk=100) == whole


def test_an_unknown_name_is_named(digits):
    with pytest.raises(ValueError, match="no model 'forest'; there are linear"):
        victims.classifier(digits, "forest")
    with pytest.raises(ValueError, match="no data set 'svhn'; there are digits, mnist, cifar10"):
        data.load("svhn")
    assert data.load("digits", 2).seed == 2
    assert set(data.SHAPES) == set(data.DATASETS)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "floor"), [("linear", 0.92), ("mlp", 0.97), ("conv", 0.988)])
def test_the_victims_of_real_mnist(model, floor, tmp_path):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    try:
        mnist = data.mnist()
    except data.DataError as error:
        pytest.skip(str(error))
    assert victims.classifier(mnist, model).accuracy >= floor
