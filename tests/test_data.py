import subprocess
import sys

import numpy as np
import pytest

from recon import data


def test_digits_are_scikit_learn_s():
    from sklearn.datasets import load_digits

    digits = data.digits(3)
    assert (digits.name, digits.classes, digits.shape, digits.seed) == ("digits", 10, (8, 8, 1), 3)
    parts = (digits.train, digits.pool, digits.test)
    assert [len(part.x) for part in parts] == [1285, 256, 256]
    for part in parts:
        assert part.x.shape == (len(part.y), 64)
        assert (part.x.dtype, part.y.dtype) == (np.float64, np.int32)
        assert part.x.min() == 0.0
        assert part.x.max() == 1.0
    # disjoint parts that make up the whole: the same rows with the same labels, each once
    x, y = load_digits(return_X_y=True)
    truth = np.column_stack([x, y])
    ours = np.column_stack(
        [np.concatenate([p.x for p in parts]) * 16, np.concatenate([p.y for p in parts])]
    )
    assert np.array_equal(ours[np.lexsort(ours.T)], truth[np.lexsort(truth.T)])


def test_the_seed_decides_the_split():
    first, again, other = data.digits(0), data.digits(0), data.digits(1)
    assert np.array_equal(first.train.x, again.train.x)
    assert not np.array_equal(first.train.x, other.train.x)


def test_split_keeps_rows_with_their_labels():
    x = np.arange(20.0)[:, None]
    parts = data.split("twenty", x, np.arange(20) % 4, seed=0, parts=(2, 1, 1))
    assert [len(p.y) for p in (parts.train, parts.pool, parts.test)] == [10, 5, 5]
    assert parts.classes == 4
    assert parts.shape == (1,)
    for part in (parts.train, parts.pool, parts.test):
        assert np.array_equal(part.x[:, 0] % 4, part.y)


def test_validation_holds_out_of_train_and_hides_test():
    whole = data.digits(0)
    tuning = data.validation(whole, 200, seed=1)
    assert tuning.name == "digits-validation"
    assert (len(tuning.train.y), len(tuning.test.y)) == (1085, 200)
    assert tuning.pool is whole.pool
    both = np.concatenate([tuning.train.x, tuning.test.x])
    labels = np.concatenate([tuning.train.y, tuning.test.y])
    ours, theirs = np.column_stack([both, labels]), np.column_stack([*whole.train])
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])
    assert not np.array_equal(tuning.test.x, data.validation(whole, 200, seed=2).test.x)
    for n in (0, -1, 1285):
        with pytest.raises(ValueError, match=f"cannot hold {n} of 1285"):
            data.validation(whole, n)


def test_without_scikit_learn_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        data.digits()


def test_nothing_heavy_is_imported_with_recon():
    code = (
        "import sys; from recon import data, networks, oracles, tables, victims; "
        "heavy = ('flax', 'optax', 'sklearn', 'matplotlib', 'tensorflow_datasets'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
