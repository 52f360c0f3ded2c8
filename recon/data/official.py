"""The official files of MNIST and CIFAR-10: where they may lie, their checksums, how they are read.

MNIST is four gzipped IDX files; CIFAR-10 is the binary version, as the archive that is
downloaded or unpacked.  Every file is read once, held against its SHA-256 and only then used.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np


class DataError(ValueError):
    """Data that is missing or cannot be used; one line names the file and says what to do."""


class Part(NamedTuple):
    """n official examples: `images` [n, height, width, channels] and `labels` [n], as uint8."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Source:
    """One data set as its authors distribute it.

    shape: of an image (height, width, channels); sums: the SHA-256 of each file by name; train and
    test: the files of each part; decode: the contents of these files and the shape -> Part;
    url: the folder tensorflow-datasets downloads from, when asked to; archive: the one file that
    is downloaded and may stand for all, or None where the files are downloaded themselves.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    sums: Mapping[str, str]
    train: tuple[str, ...]
    test: tuple[str, ...]
    decode: Callable[[list[bytes], tuple[int, int, int]], Part]
    url: str
    archive: str | None = None


def idx(contents: list[bytes], shape: tuple[int, int, int]) -> Part:
    """Images and labels as two gzipped IDX files: 0, 0, type, axes, their lengths, the bytes."""

    def array(content: bytes) -> np.ndarray:
        axes = content[3]
        lengths = np.frombuffer(content, ">u4", count=axes, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(lengths.tolist())

    images, labels = (array(gzip.decompress(content)) for content in contents)
    return Part(images.reshape(-1, *shape), labels)


def batches(contents: list[bytes], shape: tuple[int, int, int]) -> Part:
    """Files of records: one label byte, then the image, channel by channel."""
    height, width, channels = shape
    records = np.concatenate([np.frombuffer(content, np.uint8) for content in contents])
    records = records.reshape(-1, 1 + height * width * channels)
    images = records[:, 1:].reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return Part(images, records[:, 0])


MNIST = Source(
    name="mnist",
    shape=(28, 28, 1),
    classes=10,
    sums={
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
    train=("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    test=("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
    decode=idx,
    url="https://storage.googleapis.com/cvdf-datasets/mnist/",  # where tfds' own builder goes
)

CIFAR10 = Source(
    name="cifar10",
    shape=(32, 32, 3),
    classes=10,
    sums={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    decode=batches,
    url="https://www.cs.toronto.edu/~kriz/",
    archive="cifar-10-binary.tar.gz",
)


def find(source: Source, data_dir: Path) -> dict[str, Path]:
    """The files by name, or only the archive, in data_dir/name or data_dir itself.

    Empty if neither folder holds any; DataError if one holds some but not all of them.
    """
    for place in (data_dir / source.name, data_dir):
        paths = {name: place / name for name in source.sums}
        there = [name for name, path in paths.items() if path.is_file()]
        if len(there) == len(paths):
            return paths
        if source.archive and (place / source.archive).is_file():
            return {source.archive: place / source.archive}
        if there:
            missing = ", ".join(name for name in paths if name not in there)
            raise DataError(f"{place} holds a part of {source.name}; it lacks {missing}")
    return {}


def read(source: Source, paths: Mapping[str, Path]) -> dict[str, Part]:
    """The parts "train" and "test", in the official order of their examples.

    `paths` as `find` gives them.  DataError names the file that cannot be read, is truncated,
    or is not the official one.
    """
    if source.archive and source.archive in paths:
        contents = _members(source, paths[source.archive])
    else:
        contents = {
            name: _checked(source, name, _bytes(path), path) for name, path in paths.items()
        }
    return {
        part: source.decode([contents[name] for name in names], source.shape)
        for part, names in (("train", source.train), ("test", source.test))
    }


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _members(source: Source, archive: Path) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                handle = tar.extractfile(member) if name in source.sums else None
                if handle is not None:
                    contents[name] = _checked(source, name, handle.read(), archive / name)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive}: damaged or incomplete ({error}); get it again") from error
    missing = ", ".join(name for name in source.sums if name not in contents)
    if missing:
        raise DataError(f"{archive}: lacks {missing}; get it again")
    return contents


def _checked(source: Source, name: str, content: bytes, path: Path) -> bytes:
    found, expected = hashlib.sha256(content).hexdigest(), source.sums[name]
    if found != expected:
        raise DataError(
            f"{path}: damaged or not the official file ({len(content)} bytes, SHA-256 "
            f"{found[:12]}..., expected {expected[:12]}...); get it again"
        )
    return content
