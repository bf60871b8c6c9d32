import shutil
from pathlib import Path

import pytest

from diptych.errors import DataError
from diptych.eval.find_sets import find_sets, one_set


def test_sets_are_found_by_their_layout_and_by_name(labelled_sets: Path):
    (labelled_sets / "results").mkdir()
    (labelled_sets / "results" / "a.json").write_text("{}")
    (labelled_sets / ".hidden" / "test").mkdir(parents=True)
    plain = labelled_sets / "plain"
    shutil.copytree(labelled_sets / "colours" / "test", plain)  # CLASS/picture, without splits
    found = {one.name: (one.kind, one.split, one.train_split) for one in find_sets(labelled_sets)}
    assert found == {
        "captioned": ("retrieval", "test", None),
        "colours": ("classification", "test", "train"),
        "plain": ("classification", "test", None),
        "shades": ("classification", "test", "train"),
    }
    assert [one.name for one in find_sets(labelled_sets, ["shades", "plain"])] == ["shades", "plain"]
    assert [one.name for one in find_sets(labelled_sets / "colours")] == ["colours"]  # one set itself
    (labelled_sets / "captioned" / "test").rename(labelled_sets / "captioned" / "val")
    assert find_sets(labelled_sets, ["captioned"])[0].split == "val"


def test_one_set_says_what_cannot_be(labelled_sets: Path, tmp_path: Path):
    with pytest.raises(DataError, match="nowhere must be a folder of labelled pictures"):
        one_set(tmp_path / "nowhere", "zero-shot")
    with pytest.raises(DataError, match=r"The splits of a probe must differ\. Got train, train\."):
        one_set(labelled_sets / "colours", "linear-probe", split="train")
    (labelled_sets / "captioned").rename(labelled_sets / "flickr30k")
    with pytest.raises(DataError, match=r"a set for zero-shot\. It is flickr30k \(retrieval\), for retrieval\."):
        one_set(labelled_sets / "flickr30k", "zero-shot")
