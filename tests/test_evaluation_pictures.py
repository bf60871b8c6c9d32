import shutil
from pathlib import Path

import numpy as np
import pytest

from diptych.curate.copies import small_grey
from diptych.curate.evaluation_pictures import evaluation_pictures, known_pictures
from diptych.errors import DataError
from scenes import jpeg, scene


def test_each_split_that_is_measured_is_read_and_training_is_not(labelled_sets: Path):
    found = {(one.name, one.split): len(one) for one in evaluation_pictures(labelled_sets)}
    assert ("shades", "test") in found
    assert "train" not in {split for _, split in found}
    assert {name for name, _ in found} == {"captioned", "colours", "shades"}
    (one,) = evaluation_pictures(labelled_sets / "shades")
    assert (one.name, len(one)) == ("shades", found["shades", "test"])


def test_pictures_are_known_by_set_split_and_key_and_bad_ones_are_passed_over(tmp_path: Path):
    folder = tmp_path / "sky" / "clouds"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(jpeg(scene(1)))
    (folder / "b.jpg").write_bytes(b"no picture")
    (folder / "c.jpg").write_bytes(jpeg(scene(2)))
    keys, sketches = known_pictures((str(tmp_path / "sky"),))
    assert keys == ("sky/test/clouds/a.jpg", "sky/test/clouds/c.jpg")
    np.testing.assert_array_equal(sketches.small[1], small_grey(jpeg(scene(2))))
    shutil.rmtree(folder)
    assert known_pictures((str(tmp_path / "sky"),))[0] == keys  # once a process


def test_a_folder_without_sets_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="It has none"):
        evaluation_pictures(tmp_path)
