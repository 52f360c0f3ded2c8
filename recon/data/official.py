"""The official files of MNIST and CIFAR-10: where they may lie, their checksums, how they are read.

MNIST is four gzipped IDX files; CIFAR-10 is the binary version, as the archive that is
downloaded or unpacked.  Every file is read once, held against its SHA-256 and only then used.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class DataError(ValueError):
    """Data that is missing or cannot be used; one line names the file and says what to do."""


@dataclass(frozen=True)
class Source:
    """One data set as its authors distribute it.

    sums: SHA-256 of each file by name; train and test: the names of the files of each part,
    for MNIST (images, labels), for CIFAR-10 the batches; archive: the file that may hold all of
    them, or None; urls: where tensorflow-datasets downloads each file from, when asked to.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    sums: Mapping[str, str]
    train: tuple[str, ...]
    test: tuple[str, ...]
    urls: tuple[str, ...]
    archive: str | None = None


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
    # the host tensorflow-datasets itself takes MNIST from
    urls=("https://storage.googleapis.com/cvdf-datasets/mnist/",),
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
    urls=("https://www.cs.toronto.edu/~kriz/",),
    archive="cifar-10-binary.tar.gz",
)


def folder(source: Source, data_dir: Path) -> Path | None:
    """The folder that holds the files: data_dir/name, data_dir itself, or None if neither does."""
    for place in (data_dir / source.name, data_dir / "cifar-10-batches-bin", data_dir):
        if any((place / name).is_file() for name in source.sums):
            return place
        if source.archive and (place / source.archive).is_file():
            return place
    return None


def read(source: Source, place: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The parts "train" and "test" as (images [n, *shape] uint8, labels [n] uint8).

    `place` holds the files, in the official order of their examples.  DataError names the file
    that is missing, truncated, or not the official one.
    """
    files = dict(_files(source, place))
    decode = _idx_pair if source is MNIST or source.archive is None else _batches
    return {
        part: decode(source, [files[name] for name in names], names)
        for part, names in (("train", source.train), ("test", source.test))
    }


def _files(source: Source, place: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of the source by name, checked; from the archive where the folder has no files."""
    archive = None if source.archive is None else place / source.archive
    if archive is not None and archive.is_file() and not (place / source.train[0]).is_file():
        yield from _members(source, archive)
        return
    for name, expected in source.sums.items():
        path = place / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        yield name, _checked(content, expected, path)


def _members(source: Source, archive: Path) -> Iterator[tuple[str, bytes]]:
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                handle = tar.extractfile(member) if name in source.sums else None
                if handle is not None:
                    found[name] = handle.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive}: the archive is damaged ({error}); get it again") from error
    for name, expected in source.sums.items():
        if name not in found:
            raise DataError(f"{archive}: the archive lacks {name}; get it again")
        yield name, _checked(found[name], expected, archive / name)


def _checked(content: bytes, expected: str, path: Path) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(
            f"{path}: damaged or not the official file ({len(content)} bytes, sha256 "
            f"{found[:12]}..., expected {expected[:12]}...); get it again"
        )
    return content


def _idx_pair(
    source: Source, contents: list[bytes], names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (_idx(gzip.decompress(content)) for content in contents)
    return images.reshape(-1, *source.shape), labels


def _idx(content: bytes) -> np.ndarray:
    """An IDX array of bytes: 0, 0, type 8, axes, the axes' lengths (big-endian), the numbers."""
    axes = content[3]
    lengths = np.frombuffer(content, ">u4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(lengths.tolist())


def _batches(
    source: Source, contents: list[bytes], names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label byte and the image, channel by channel."""
    height, width, channels = source.shape
    records = np.concatenate([np.frombuffer(content, np.uint8) for content in contents])
    records = records.reshape(-1, 1 + height * width * channels)
    images = records[:, 1:].reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return images, records[:, 0]
