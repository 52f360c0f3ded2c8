"""MNIST and CIFAR-10 from their official files: tiny ones here, the real ones if they are there."""

import gzip
import hashlib
import http.server
import io
import os
import shutil
import sys
import tarfile
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from recon import data
from recon.data import official

COUNTS = {"train": 60, "test": 7}  # tiny: the pool is 10 (mnist) or 12 (cifar10)


def truth(source):
    """Images and labels by part; every image is different, every label occurs."""
    random = np.random.default_rng(len(source.name))
    return {
        part: official.Part(
            random.integers(0, 256, (n, *source.shape)).astype(np.uint8),
            (np.arange(n) % 10).astype(np.uint8),
        )
        for part, n in COUNTS.items()
    }


def idx_file(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.tobytes())


def contents_of(source):
    """The files of a tiny data set in the official format, by name."""
    parts, files = truth(source), {}
    for part, names in (("train", source.train), ("test", source.test)):
        images, labels = parts[part]
        if source.name == "mnist":
            files |= zip(names, (idx_file(images[..., 0]), idx_file(labels)), strict=True)
        else:
            records = [
                bytes([y]) + x.transpose(2, 0, 1).tobytes()
                for x, y in zip(images, labels, strict=True)
            ]
            chunks = np.array_split(np.arange(len(records)), len(names))
            files |= {
                name: b"".join(records[i] for i in chunk)
                for name, chunk in zip(names, chunks, strict=True)
            }
    return files


def pack(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty cache, an empty folder for data, and no network by default."""
    monkeypatch.setenv("RECON_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RECON_DATA", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def plant(monkeypatch, name, place):
    """The tiny files of mnist or cifar10 in `place`, with their checksums injected."""
    constant = {"mnist": "MNIST", "cifar10": "CIFAR10"}[name]
    source = getattr(official, constant)
    files = contents_of(source)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    source = replace(source, sums=sums)
    monkeypatch.setattr(official, constant, source)
    place.mkdir(exist_ok=True)
    for file, content in files.items():
        (place / file).write_bytes(content)
    return source


def check(dataset, source):
    parts = truth(source)
    x = parts["train"].images.reshape(COUNTS["train"], -1).astype(np.float32) / np.float32(255)
    y = parts["train"].labels
    share = {"mnist": 6, "cifar10": 5}[source.name]
    assert (dataset.name, dataset.shape, dataset.classes) == (source.name, source.shape, 10)
    assert len(dataset.pool.x) == COUNTS["train"] // share
    ours = [np.concatenate([dataset.train[k], dataset.pool[k]]) for k in (0, 1)]
    assert (ours[0].dtype, ours[1].dtype) == (np.float32, np.int32)
    found = [int(np.flatnonzero((x == row).all(axis=1))[0]) for row in ours[0]]
    assert sorted(found) == list(range(COUNTS["train"]))  # each once: disjoint, and nothing lost
    assert found != sorted(found)
    assert np.array_equal(ours[1], y[found])
    held = parts["test"]  # the official test part, in its official order
    assert np.array_equal(
        dataset.test.x * np.float32(255), held.images.reshape(len(held.images), -1)
    )
    assert np.array_equal(dataset.test.y, held.labels)


def test_without_tensorflow_datasets_one_line_says_what_to_do(desk, monkeypatch):
    plant(monkeypatch, "mnist", desk)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'recon\[data\]'"):
        data.mnist(data_dir=desk)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("nested", [True, False])
def test_official_files_are_prepared_once(desk, monkeypatch, name, nested):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    source = plant(monkeypatch, name, desk / name if nested else desk)
    load = data.DATASETS[name]
    first = load(seed=3, data_dir=desk)
    assert first.seed == 3
    check(first, source)
    shutil.rmtree(desk)  # from now on the prepared form is enough
    again = load(seed=3)
    for ours, theirs in zip((first.train, first.pool), (again.train, again.pool), strict=True):
        assert np.array_equal(ours.x, theirs.x)
    assert not np.array_equal(load(seed=4).train.x, first.train.x)


def test_more_examples_than_a_block_keep_their_order(desk, monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    source = plant(monkeypatch, "mnist", desk)
    monkeypatch.setattr(data.prepared, "BLOCK", 8)
    check(data.mnist(data_dir=desk), source)


def test_the_environment_names_the_folder_and_an_archive_will_do(desk, monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    source = plant(monkeypatch, "cifar10", desk / "cifar10")
    shutil.rmtree(desk / "cifar10")
    pack(desk / source.archive, contents_of(source))
    monkeypatch.setenv("RECON_DATA", str(desk))
    check(data.cifar10(), source)


def test_missing_data_is_one_line_at_once(desk, monkeypatch):
    with pytest.raises(data.DataError, match=r"set RECON_DATA to a folder .*idx3.*download=True"):
        data.mnist()
    with pytest.raises(data.DataError, match=f"neither in {desk}/cifar10 nor in {desk}.*tar.gz"):
        data.cifar10(data_dir=desk)
    plant(monkeypatch, "mnist", desk)
    (desk / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(data.DataError, match=f"{desk} .*lacks t10k-labels-idx1-ubyte.gz"):
        data.mnist(data_dir=desk)


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "corrupted": lambda content: content[:30] + bytes([content[30] ^ 1]) + content[31:],
    "emptied": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("name", "file"), [("mnist", "t10k-images-idx3-ubyte.gz"), ("cifar10", "data_batch_2.bin")]
)
def test_a_damaged_file_is_named_and_repaired_by_the_right_one(
    desk, monkeypatch, name, file, damage
):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    source = plant(monkeypatch, name, desk)
    good = (desk / file).read_bytes()
    (desk / file).write_bytes(DAMAGES[damage](good))
    with pytest.raises(data.DataError, match=rf"{desk / file}: damaged .*get it again"):
        data.DATASETS[name](data_dir=desk)
    (desk / file).write_bytes(good)
    check(data.DATASETS[name](data_dir=desk), source)


def test_an_unreadable_file_is_named(desk, monkeypatch):
    source = plant(monkeypatch, "mnist", desk)
    paths = official.find(source, desk)
    (desk / source.test[0]).unlink()
    with pytest.raises(data.DataError, match=r"t10k-images.*: cannot be read \(No such file"):
        official.read(source, paths)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_archive_is_named(desk, monkeypatch, damage):
    source = plant(monkeypatch, "cifar10", desk)
    files = contents_of(source)
    pack(desk / source.archive, files)
    archive = {source.archive: desk / source.archive}
    check_parts = official.read(source, archive)
    assert np.array_equal(check_parts["train"].images, truth(source)["train"].images)
    content = (desk / source.archive).read_bytes()
    (desk / source.archive).write_bytes(DAMAGES[damage](content))
    with pytest.raises(data.DataError, match=source.archive):
        official.read(source, archive)
    files.pop("data_batch_3.bin")
    pack(desk / source.archive, files)
    with pytest.raises(data.DataError, match=r"lacks data_batch_3.bin; get it again"):
        official.read(source, archive)


def test_damaged_prepared_data_is_named(desk, monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    source = plant(monkeypatch, "mnist", desk)
    data.mnist(data_dir=desk)
    (file,) = data.cache_folder().glob("mnist/*/*-train*")
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(data.DataError, match=rf"{file.parent}: the prepared data is damaged"):
        data.mnist(data_dir=desk)
    shutil.rmtree(file.parent)
    check(data.mnist(data_dir=desk), source)


def test_a_cache_that_cannot_be_written_is_named(desk, monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    plant(monkeypatch, "mnist", desk)
    (desk / "file").write_text("not a folder")
    monkeypatch.setenv("RECON_CACHE", str(desk / "file"))
    with pytest.raises(data.DataError, match=r"cannot be written .*set RECON_CACHE"):
        data.mnist(data_dir=desk)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A folder served over HTTP on this machine, and its address."""
    served = tmp_path / "served"
    served.mkdir()
    handler = partial(Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield served, f"http://127.0.0.1:{http_server.server_port}/"
        http_server.shutdown()


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_download_when_asked(desk, monkeypatch, server, name):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    served, url = server
    source = plant(monkeypatch, name, served)
    if source.archive:
        pack(served / source.archive, contents_of(source))
    monkeypatch.setattr(official, name.upper(), replace(source, url=url))
    with pytest.raises(data.DataError, match="download=True"):
        data.DATASETS[name]()
    file = served / (source.archive or source.test[0])
    good = file.read_bytes()
    file.write_bytes(good[:-40])
    with pytest.raises(data.DataError, match="get it again"):
        data.DATASETS[name](download=True)
    file.write_bytes(good)
    check(data.DATASETS[name](download=True), source)


def test_a_download_without_network_fails_at_once(desk, monkeypatch):
    gone = replace(official.MNIST, url="http://127.0.0.1:9/")  # nobody listens on this port
    monkeypatch.setattr(official, "MNIST", gone)
    with pytest.raises(data.DataError, match=r"cannot be downloaded .*refused.*set RECON_DATA"):
        data.mnist(download=True)


REAL = os.environ.get("RECON_DATA")
MEANS = {"mnist": [0.1307], "cifar10": [0.4914, 0.4822, 0.4465]}  # of the official training files


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_real_data(name, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason="needs the data extra")
    source = {"mnist": official.MNIST, "cifar10": official.CIFAR10}[name]
    if not REAL or not official.find(source, Path(REAL)):
        pytest.skip(f"RECON_DATA names no folder with the official files of {name}")
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    dataset = data.DATASETS[name]()
    total = 60_000 if name == "mnist" else 50_000
    sizes = [len(p.y) for p in (dataset.train, dataset.pool, dataset.test)]
    assert sizes == [total - 10_000, 10_000, 10_000]
    channels = source.shape[-1]
    sums = sum(
        p.x.reshape(-1, channels).sum(axis=0, dtype=np.float64)
        for p in (dataset.train, dataset.pool)
    )
    np.testing.assert_allclose(sums / total / np.prod(source.shape[:2]), MEANS[name], atol=5e-5)
    first = {"mnist": [7, 2, 1, 0, 4], "cifar10": [3, 8, 8, 0, 6]}[name]
    assert dataset.test.y[:5].tolist() == first
