import gzip
import pickle
import struct

import numpy as np
import pytest
import scipy.io

from diptych.errors import DataError
from diptych.sets.open import read_labelled

RNG = np.random.default_rng(0)


def shown(data, index: int) -> np.ndarray:
    return np.asarray(data.open(index))


def test_cifar10_is_read_from_its_binary_version(tmp_path):
    pictures = RNG.integers(256, size=(3, 32, 32, 3), dtype=np.uint8)
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()
    records = [bytes([label]) + p.transpose(2, 0, 1).tobytes() for label, p in zip((2, 0, 1), pictures, strict=True)]
    (root / "test_batch.bin").write_bytes(b"".join(records))
    (root / "data_batch_1.bin").write_bytes(records[0])
    (root / "data_batch_2.bin").write_bytes(records[1])
    (root / "batches.meta.txt").write_text("airplane\nbird\ncat\n\n")
    data = read_labelled(tmp_path)
    assert data.classnames == ("airplane", "bird", "cat")
    assert data.targets.tolist() == [2, 0, 1]
    assert np.array_equal(shown(data, 1), pictures[1])
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(data)).open(2)), pictures[2])
    assert read_labelled(tmp_path, split="train").targets.tolist() == [2, 0]
    (root / "test_batch.bin").write_bytes(records[0][:-1])
    with pytest.raises(DataError, match=r"records of 3,073 bytes. It has 3,072"):
        read_labelled(tmp_path)
    with pytest.raises(DataError, match=r"no split 'val'. It has: test, train"):
        read_labelled(tmp_path, split="val")


def test_cifar100_goes_by_its_fine_classes(tmp_path):
    picture = RNG.integers(256, size=(32, 32, 3), dtype=np.uint8)
    (tmp_path / "test.bin").write_bytes(bytes([7, 1]) + picture.transpose(2, 0, 1).tobytes())
    (tmp_path / "fine_label_names.txt").write_text("apple\naquarium_fish\n")
    (tmp_path / "coarse_label_names.txt").write_text("fish\n")
    data = read_labelled(tmp_path)
    assert (data.classnames, data.targets.tolist()) == (("apple", "aquarium fish"), [1])
    assert np.array_equal(shown(data, 0), picture)


def test_pickles_are_refused_with_the_cure(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(b"x")
    with pytest.raises(DataError, match=r"could run any code. Fetch the binary version"):
        read_labelled(tmp_path)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_packed_or_not(tmp_path, packed):
    pictures = RNG.integers(256, size=(2, 28, 28), dtype=np.uint8)
    images = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + pictures.tobytes()
    labels = struct.pack(">4BI", 0, 0, 8, 1, 2) + bytes([7, 0])
    for name, content in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
        path = tmp_path / f"{name}{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
    data = read_labelled(tmp_path)
    assert data.targets.tolist() == [7, 0]
    assert np.array_equal(shown(data, 1)[:, :, 0], pictures[1])
    assert len(data.classnames) == 10
    (tmp_path / ("t10k-images-idx3-ubyte" + (".gz" if packed else ""))).write_bytes(images[:100])
    with pytest.raises(DataError, match=r"must be an idx file, whole"):
        read_labelled(tmp_path)


def test_stl10_lies_column_by_column_and_counts_from_one(tmp_path):
    pictures = RNG.integers(256, size=(2, 96, 96, 3), dtype=np.uint8)
    (tmp_path / "test_X.bin").write_bytes(pictures.transpose(0, 3, 2, 1).tobytes())
    (tmp_path / "test_y.bin").write_bytes(bytes([2, 1]))
    (tmp_path / "class_names.txt").write_text("airplane\nbird\n")
    data = read_labelled(tmp_path)
    assert (data.classnames, data.targets.tolist()) == (("airplane", "bird"), [1, 0])
    assert np.array_equal(shown(data, 0), pictures[0])
    (tmp_path / "test_y.bin").write_bytes(bytes([2, 3]))
    with pytest.raises(DataError, match=r"one of 2 classes. It has 2 pictures and 2 classes from 1 to 2"):
        read_labelled(tmp_path)


def test_ten_stands_for_zero_in_svhn(tmp_path):
    pictures = RNG.integers(256, size=(32, 32, 3, 2), dtype=np.uint8)
    scipy.io.savemat(tmp_path / "test_32x32.mat", {"X": pictures, "y": np.array([[10], [3]])})
    data = read_labelled(tmp_path)
    assert data.targets.tolist() == [0, 3]
    assert np.array_equal(shown(data, 1), pictures[:, :, :, 1])
    with pytest.raises(DataError, match=r"no split 'train'. It has: test"):
        read_labelled(tmp_path, split="train")


def test_fer2013_has_its_splits_in_one_list(tmp_path):
    pixels = " ".join(map(str, RNG.integers(256, size=48 * 48)))
    rows = [f"3,{pixels},PrivateTest", f"0,{pixels},PublicTest", f"6,{pixels},Training"]
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "\n".join(rows))
    assert [read_labelled(tmp_path, split=s).targets.tolist() for s in ("test", "val", "train")] == [[3], [0], [6]]
    assert shown(read_labelled(tmp_path), 0)[0, 1, 0] == int(pixels.split()[1])
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n1,1 2 3,PrivateTest\n")
    with pytest.raises(DataError, match=r"48 x 48 pixels"):
        read_labelled(tmp_path)
