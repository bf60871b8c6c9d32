import io
import json

import numpy as np
import pytest
import safetensors.numpy

from diptych.embed import Embedded
from diptych.errors import DataError
from diptych.pairs.shards import Sample
from diptych.pairs.teacher import Teacher

PLAIN = Sample("a", {})


def npy(*rows: list[float]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(rows if len(rows) > 1 else rows[0], dtype=np.float16))
    return file.getvalue()


def test_what_embed_writes_is_read_by_key_with_or_without_its_folder(tmp_path):
    path = tmp_path / "features.safetensors"
    Embedded(("photos/a.jpg", "b"), np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)).save(path)
    teacher = Teacher(str(path), member="", folder="photos")
    np.testing.assert_allclose(teacher.features(PLAIN, "a.jpg", 0), [0.6, 0.8])
    np.testing.assert_allclose(teacher.features(PLAIN, "b", 0), [1.0, 0.0])
    with pytest.raises(DataError, match=r"^no teacher features$"):
        teacher.features(PLAIN, "c", 0)


def test_a_part_of_the_sample_has_one_row_or_one_for_each_caption():
    teacher = Teacher("shard", member="t.npy")
    one, several = Sample("a", {"t.npy": npy([3, 4])}), Sample("a", {"t.npy": npy([3, 4], [0, 2])})
    for number in (0, 5, None):
        np.testing.assert_allclose(teacher.features(one, "", number), [0.6, 0.8])
    np.testing.assert_allclose(teacher.features(several, "", 1), [0.0, 1.0])


@pytest.mark.parametrize(
    ("parts", "number", "cause"),
    [
        ({}, 0, "no teacher features"),
        ({"t.npy": b"<html>"}, 0, "teacher features unusable"),
        ({"t.npy": b""}, 0, "teacher features unusable"),
        ({"t.npy": npy([0, 0])}, 0, "teacher features unusable"),
        ({"t.npy": npy([1, float("nan")])}, 0, "teacher features unusable"),
        ({"t.npy": npy([1, 2], [3, 4])}, 2, "teacher features unusable"),  # no row for the third caption
        ({"t.npy": npy([1, 2], [3, 4])}, None, "teacher features unusable"),  # nor for several at once
    ],
)
def test_features_that_cannot_be_used_have_a_cause(parts, number, cause):
    with pytest.raises(DataError, match=f"^{cause}$"):
        Teacher("shard", member="t.npy").features(Sample("a", parts), "", number)


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "t.safetensors"
    for content in (b"", b"no features here"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"t\.safetensors must hold stored features as `diptych embed` writes them"):
            Teacher(str(path), member="")
    with pytest.raises(DataError, match=r"must hold stored features"):
        Teacher(str(tmp_path / "absent"), member="")
    rows = {"features": np.ones((2, 3), dtype=np.float32)}
    safetensors.numpy.save_file(rows, path)
    with pytest.raises(DataError, match=r"must hold stored features"):
        Teacher(str(path), member="")
    safetensors.numpy.save_file(rows, path, metadata={"keys": json.dumps(["a", "a"])})
    with pytest.raises(
        DataError, match=r"a row of features for each key, each once\. It has 1 keys and features \[2, 3\]"
    ):
        Teacher(str(path), member="")
