from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon import data, models, victims
from recon.victims import classifiers, training
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


CONV = pytest.param("conv", 0.93, marks=pytest.mark.slow)


@pytest.mark.parametrize(("model", "floor"), [("linear", 0.9), ("mlp", 0.93), CONV])
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


class Killed(Exception):
    """Stands for a process that ends."""


def test_a_killed_training_goes_on_to_the_same_bits(digits, cache, monkeypatch):
    monkeypatch.setattr(training, "SAVED", 30)
    monkeypatch.setattr(training, "EVERY", 20)
    long = Training(steps=100, augmented=True, warmup=0.1, weight_decay=0.1)
    whole = victims.classifier(digits, "linear", training=long, keep=False)
    heard = []

    def killed(done, of, loss):
        heard.append(done)
        if done == 80:
            raise Killed

    with pytest.raises(Killed):
        victims.classifier(digits, "linear", training=long, tell=killed)
    (half,) = cache.iterdir()
    assert half.name.endswith(".state.npz")
    heard.clear()
    again = victims.classifier(
        digits, "linear", training=long, tell=lambda *of: heard.append(of[0])
    )
    assert heard == [80, 100]  # on from the 60th
    assert same(whole, again)
    assert not half.exists()


def test_a_damaged_state_starts_anew(digits, cache, monkeypatch):
    short = Training(steps=20)
    whole = victims.classifier(digits, "linear", training=short)
    (path,) = cache.iterdir()
    path.unlink()
    path.with_suffix(".state.npz").write_bytes(b"PK damaged")
    assert same(whole, victims.classifier(digits, "linear", training=short))


bent = jax.jit(training.moved, static_argnums=2)


@given(st.integers(0, 2**32 - 1))
def test_an_augmented_image_is_a_moved_one_or_its_mirror_image(seed):
    x = jax.random.uniform(jax.random.key(seed), (3, 6 * 5 * 2))
    moved = np.asarray(bent(jax.random.key(seed + 1), x, (6, 5, 2))).reshape(3, 6, 5, 2)
    for image, other in zip(np.asarray(x).reshape(3, 6, 5, 2), moved, strict=True):
        around = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        crops = [around[i : i + 6, j : j + 5] for i in range(9) for j in range(9)]
        assert any(np.array_equal(other, c) or np.array_equal(other, c[:, ::-1]) for c in crops)


def test_images_are_moved_by_all_amounts_and_half_of_them_mirrored():
    ramp = np.arange(12 * 12, dtype=np.float32).reshape(1, -1) + 1
    many = np.asarray(bent(jax.random.key(0), np.repeat(ramp, 2_000, 0), (12, 12, 1)))
    middle = many.reshape(-1, 12, 12)[:, 5:7, 5:7]  # never black
    right = middle[:, 0, 1] - middle[:, 0, 0]
    assert set(right) == {1, -1}
    assert abs(np.mean(right == 1) - 0.5) < 0.05
    down = (middle[:, 0, 0] - 1) // 12
    assert set(down) == set(range(1, 10))


def test_experiments_train_each_victim_by_its_own_schedule():
    assert victims.schedule("mnist", "conv") == Training()
    colour = victims.schedule("cifar10", "conv")
    assert colour.augmented
    assert colour.steps * colour.batch > 40_000
