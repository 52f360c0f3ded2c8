"""Networks of both kinds in .npz and JSON: bit for bit, or a sentence that says why not."""

import json
import zipfile

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon import networks
from recon.networks import Deep, TwoLayer

SIZES = [(3, 4, 2), (1, 1, 1), (3, 5, 4, 2), (4, 2, 7, 3, 1), (3, 0, 2), (3, 4, 0, 2)]


def made(kind, sizes, dtype=np.float64, seed=0):
    """A network of numbers of all sizes, among them -0.0 and the smallest."""
    r = np.random.default_rng(seed)

    def numbers(shape):
        array = r.standard_normal(shape) * 10.0 ** r.integers(-30, 30, shape)
        array = array.astype(dtype)
        for at, number in enumerate((-0.0, np.finfo(dtype).smallest_subnormal)):
            array.flat[at : at + 1] = number
        return array

    arrays = {name: numbers(shape) for name, shape in kind.shapes(sizes).items()}
    if kind is TwoLayer:
        return TwoLayer(**arrays)
    parts = (tuple(a for n, a in arrays.items() if n.startswith(p)) for p in ("weights", "biases"))
    return Deep(*parts)


def alike(back, network):
    assert type(back) is type(network)
    assert jax.tree.structure(back) == jax.tree.structure(network)
    for ours, theirs in zip(*map(jax.tree.leaves, (back, network)), strict=True):
        assert isinstance(ours, np.ndarray)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


KINDS = st.sampled_from([(Deep, sizes) for sizes in SIZES] + [(TwoLayer, a) for a in SIZES[:2]])


@settings(max_examples=40)
@given(KINDS, st.sampled_from([np.float32, np.float64]), st.integers(0, 2**32 - 1))
def test_files_come_back_bit_for_bit(tmp_path_factory, kind, dtype, seed):
    network = made(*kind, dtype, seed)
    path = network.save(tmp_path_factory.mktemp("saved") / "more" / "net.v2")
    assert path.suffix == ".npz"
    alike(networks.load(path), network)
    text = network.to_json()
    assert json.loads(text)["function"] == network.function
    assert json.loads(text)["sizes"] == list(kind[1])
    alike(networks.from_json(text), network)


def test_files_that_are_older_than_the_sizes_are_read(tmp_path):
    network = made(TwoLayer, (3, 4, 2))
    np.savez(tmp_path / "old.npz", **network.arrays())
    alike(networks.load(tmp_path / "old.npz"), network)
    old = json.loads(network.to_json())
    del old["sizes"]
    alike(networks.from_json(json.dumps(old)), network)
    none = json.loads(made(TwoLayer, (3, 0, 2)).to_json())
    del none["sizes"]
    assert networks.from_json(json.dumps(none)).sizes == (3, 0, 2)


DEEP = made(Deep, (3, 5, 4, 2))
WITHOUT = [
    ({"weights_1"}, "it lacks weights_1"),
    ({"weights_2", "biases_2"}, "it lacks weights_2, biases_2"),  # no smaller network
    ({"sizes"}, "it does not say its sizes"),
    ({*DEEP.arrays()}, "it lacks rows, bias, weights, slope, offset"),
]
INSTEAD = [
    ({"weights_1": np.zeros((5, 4))}, r"weights_1 has shape \(5, 4\), its sizes say \(4, 5\)"),
    ({"biases_0": np.zeros((5, 1))}, r"biases_0 has shape \(5, 1\)"),
    ({"biases_0": np.array(["a"] * 5)}, "biases_0 does not hold real numbers but <U1"),
    ({"biases_0": np.zeros(5, complex)}, "biases_0 does not hold real numbers"),
    ({"sizes": np.array([3, 5, 2])}, "its sizes have no weights_2, biases_2"),
    ({"sizes": np.array([3.0, 5.0, 4.0, 2.0])}, "it does not say its sizes"),
    ({"sizes": np.array([3, -5, 4, 2])}, "it does not say its sizes"),
    ({"sizes": np.array([3, 2])}, r"sizes \(3, 2\) have no hidden layer"),
    ({"biases_0": np.array([None] * 5)}, "allow_pickle"),
]


@pytest.mark.parametrize(
    ("without", "instead", "why"), [(a, {}, b) for a, b in WITHOUT] + [(set(), *a) for a in INSTEAD]
)
def test_a_file_with_other_arrays_is_refused(without, instead, why, tmp_path):
    arrays = {"sizes": np.array(DEEP.sizes), **DEEP.arrays()} | instead
    path = tmp_path / "net.npz"
    np.savez(path, **{name: a for name, a in arrays.items() if name not in without})
    with pytest.raises(ValueError, match=f"net.npz is not a saved network: .*{why}"):
        networks.load(path)


JSON = json.loads(DEEP.to_json())


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"weights_1": JSON["weights_1"][:-1]}, "weights_1 has shape"),
        ({"weights_1": [[1.0], [1.0, 2.0]]}, "inhomogeneous"),
        ({"sizes": [3, 5, 4]}, "its sizes have no weights_2, biases_2"),
        ({"sizes": [3, 5, 4, 2, 7]}, "it lacks weights_3, biases_3"),
        ({"sizes": [10**30, 5, 4, 2]}, "sizes"),
        ({"sizes": None}, "it does not say its sizes"),
        ({"sizes": "3-5-4-2"}, "it does not say its sizes"),
        ({"dtype": "object"}, "real numbers"),
        ({"dtype": "no"}, "no"),
    ],
)
def test_json_of_something_else_is_refused(other, why):
    with pytest.raises(ValueError, match="this is no network in JSON") as caught:
        networks.from_json(json.dumps(JSON | other))
    assert why in str(caught.value)


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", "null", "[" * 100_000, '{"dtype": "f8"}'])
def test_text_that_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match="this is no network in JSON"):
        networks.from_json(text)


@pytest.mark.parametrize("network", [DEEP, made(TwoLayer, (3, 4, 2))], ids=str)
def test_no_truncated_or_damaged_file_is_another_network(network, tmp_path):
    """Every cut is refused; a changed byte is refused, or changes nothing that is read."""
    whole, path = network.save(tmp_path / "whole").read_bytes(), tmp_path / "net.npz"
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is not a saved network"):
            networks.load(path)
    r = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[r.integers(len(whole))] ^= int(r.integers(1, 256))
        path.write_bytes(damaged)
        try:
            back = networks.load(path)
        except ValueError as error:
            assert "is not a saved network" in str(error)  # noqa: PT017
        else:
            alike(back, network)


def test_foreign_files_are_refused_and_a_missing_one_is_missing(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("weights")
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04N.")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        file.writestr("weights_0.npy", "no array")
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=f"{path.name} is not a saved network: .+"):
            networks.load(path)
    with pytest.raises(FileNotFoundError):
        networks.load(tmp_path / "none.npz")


def test_what_json_has_not_is_refused():
    network = Deep(DEEP.weights, (*DEEP.biases[:-1], np.array([np.inf, 0.0])))
    with pytest.raises(ValueError, match="JSON"):
        network.to_json()
