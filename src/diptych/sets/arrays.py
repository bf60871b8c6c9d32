"""Official archives whose pictures lie in one file as bare numbers: CIFAR, MNIST, STL-10, SVHN, FER2013.

CIFAR is read from its binary version: the pickles of the Python version could run any code.
"""

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from diptych.data.prompts import read_lines
from diptych.errors import DataError
from diptych.sets.matlab import read_mat
from diptych.sets.pictures import LabelledRows, Pixels
from diptych.sets.webdataset import no_split, which_split

T = TypeVar("T")


def cifar10(root: Path, split: str) -> LabelledRows:
    """`cifar-10-binary.tar.gz`: a byte of class, then 3,072 of red, green and blue."""
    splits = {"train": sorted(root.glob("data_batch_*.bin")), "test": [root / "test_batch.bin"]}
    names = [line.replace("_", " ") for line in read_lines(root / "batches.meta.txt")]
    return _cifar(root, names, _of(splits, split, root), label_bytes=1)


def cifar_pickles(root: Path, _split: str) -> LabelledRows:
    """The Python version of CIFAR, refused."""
    raise DataError(
        f"{root} holds CIFAR as pickles, which could run any code. Fetch the binary version instead: "
        "cifar-10-binary.tar.gz or cifar-100-binary.tar.gz."
    )


def cifar100(root: Path, split: str) -> LabelledRows:
    """`cifar-100-binary.tar.gz`: a byte of coarse class, one of the class, then the picture."""
    splits = {"train": [root / "train.bin"], "test": [root / "test.bin"]}
    names = [line.replace("_", " ") for line in read_lines(root / "fine_label_names.txt")]
    return _cifar(root, names, _of(splits, split, root), label_bytes=2)


def _cifar(root: Path, names: list[str], files: Sequence[Path], *, label_bytes: int) -> LabelledRows:
    size = label_bytes + 3072
    records = np.concatenate([_records(path, size) for path in files])  # [N, size]
    pictures = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return _numbered(root, names, pictures, records[:, label_bytes - 1])


def mnist(root: Path, split: str) -> LabelledRows:
    """The four idx files, packed or not; sets in the same format, such as Fashion-MNIST, are read too."""
    stem = _of({"train": "train", "test": "t10k"}, split, root)
    images = _idx(root, f"{stem}-images*idx3-ubyte*")
    return _numbered(root, [str(digit) for digit in range(10)], images, _idx(root, f"{stem}-labels*idx1-ubyte*"))


def _idx(root: Path, pattern: str) -> np.ndarray:
    path = next(iter(sorted(root.glob(pattern))), root / pattern.replace("*", ""))
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        dimensions = content[3]
        shape = np.frombuffer(content, ">u4", dimensions, 4)
        return np.frombuffer(content, np.uint8, int(shape.prod()), 4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{path} must be an idx file, whole. It is not: {error}.") from None


def stl10(root: Path, split: str) -> LabelledRows:
    """`stl10_binary.tar.gz`: pictures column by column, classes from 1."""
    stem = _of({"train": "train", "test": "test"}, split, root)
    columns = _records(root / f"{stem}_X.bin", 3 * 96 * 96).reshape(-1, 3, 96, 96)
    labels = _records(root / f"{stem}_y.bin", 1)[:, 0]
    return _numbered(root, read_lines(root / "class_names.txt"), columns.transpose(0, 3, 2, 1), labels.astype(int) - 1)


def svhn(root: Path, split: str) -> LabelledRows:
    """`test_32x32.mat`: single digits, the class of 0 written as 10."""
    path = root / f"{split}_32x32.mat"
    if not path.is_file():
        raise no_split(root, split, [one.name.partition("_")[0] for one in root.glob("*_32x32.mat")])
    values = read_mat(path)
    if values.get("X") is None or np.ndim(values["X"]) != 4:
        raise DataError(f"{path} must hold SVHN's pictures X [32, 32, 3, N] and classes y. It does not.")
    pictures, labels = values["X"].transpose(3, 0, 1, 2), np.asarray(values["y"]).astype(int) % 10
    return _numbered(root, [str(digit) for digit in range(10)], pictures, labels)


def fer2013(root: Path, split: str) -> LabelledRows:
    """`fer2013.csv` of the challenge: columns emotion, pixels and Usage."""
    usages = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
    usage = _of(usages, split, root)
    try:
        with (root / "fer2013.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["Usage"] == usage]
        pictures = np.array([[int(value) for value in row["pixels"].split()] for row in rows], dtype=np.uint8)
        labels = np.array([int(row["emotion"]) for row in rows])
        pictures = pictures.reshape(-1, 48, 48)
    except (KeyError, ValueError) as error:
        message = f"{root / 'fer2013.csv'} must have emotion, 48 x 48 pixels and Usage. Not so: {error}."
        raise DataError(message) from None
    names = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    return _numbered(root, names, pictures, labels)


def _of(splits: dict[str, T], split: str, root: Path) -> T:
    found = which_split(split, splits)
    if found is None:
        raise no_split(root, split, splits)
    return splits[found]


def _records(path: Path, size: int) -> np.ndarray:
    """[N, size] uint8, mapped."""
    try:
        length = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} must be there. It cannot be read: {error.strerror}.") from None
    if not length or length % size:
        raise DataError(f"{path} must hold records of {size:,} bytes. It has {length:,}: fetch it again.")
    return np.memmap(path, np.uint8, "r").reshape(-1, size)


def _numbered(root: Path, names: Sequence[str], pictures: np.ndarray, labels: np.ndarray) -> LabelledRows:
    if len(pictures) != len(labels) or labels.min() < 0 or labels.max() >= len(names):
        raise DataError(
            f"{root} must give each picture one of {len(names)} classes. It has {len(pictures):,} pictures and "
            f"{len(labels):,} classes from {labels.min()} to {labels.max()}."
        )
    rows = zip(pictures, labels.tolist(), strict=True)
    return LabelledRows(names, [(f"{number:06d}", Pixels(one), label) for number, (one, label) in enumerate(rows)])
