from pathlib import Path

import pyarrow as pa
import pytest

from diptych.curate.copies import THRESHOLD
from diptych.curate.decontaminate import Decontaminate
from diptych.errors import ConfigError, DataError
from diptych.rows.columns import PAIRS, pairs_table
from diptych.rows.stage import CurateStage, Judged, Whole, WithPictures
from scenes import CHANGES, jpeg, scene


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sets: clouds with a test split, and a set without splits."""
    for name, numbers in (("clouds/test/a", range(4)), ("clouds/train/a", range(50, 54)), ("others/b", range(20, 24))):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in numbers:
            (folder / f"{number}.jpg").write_bytes(jpeg(scene(number)))
    return tmp_path / "data"


def rows_of(pictures: dict[str, bytes | None]) -> pa.Table:
    rows = pairs_table([{"key": key, "text": "a sky", "source": 0} for key in pictures])
    return rows.append_column("picture", pa.array(list(pictures.values()), pa.binary()))


PICTURES = {
    "new": jpeg(scene(300)),
    "mirrored": jpeg(CHANGES["mirrored"](scene(2))),
    "of train": jpeg(scene(51)),  # no evaluation picture
    "broken": b"no picture",
    "cropped": jpeg(CHANGES["crop 75 %"](scene(21))),
    "absent": None,
    "new too": jpeg(scene(301)),
}


def test_copies_of_evaluation_pictures_are_dropped_with_the_picture_that_they_are(data: Path):
    stage = Decontaminate(data=(str(data),))
    judged = stage.apply(rows_of(PICTURES), Whole())
    assert judged.kept["key"].to_pylist() == ["new", "of train", "broken", "absent", "new too"]
    assert judged.kept.schema == PAIRS  # the pictures stay as they are
    assert judged.dropped.to_pylist() == [
        {
            "key": key,
            "cause": "evaluation picture",
            "value": f"{value}.jpg",
            "limit": f"score below {THRESHOLD:g}",
        }
        for key, value in (("mirrored", "clouds/test/a/2"), ("cropped", "others/test/b/21"))
    ]


def test_any_partition_gives_the_same(data: Path):
    stage = Decontaminate(data=(str(data),))
    rows = rows_of(PICTURES)
    whole = stage.apply(rows, Whole())
    for size in (1, 3):
        parts = [stage.apply(rows.slice(first, size), Whole()) for first in range(0, len(rows), size)]
        joined = Judged(
            kept=pa.concat_tables([part.kept for part in parts]),
            dropped=pa.concat_tables([part.dropped for part in parts]),
        )
        assert joined.kept.equals(whole.kept)
        assert joined.dropped.equals(whole.dropped)
    assert len(stage.apply(rows.slice(0, 0), Whole()).kept) == 0


def test_a_higher_threshold_drops_less_and_one_set_is_a_folder_too(data: Path):
    only = Decontaminate(data=(str(data / "others"),), threshold=0.999)
    assert len(only.apply(rows_of(PICTURES), Whole()).dropped) == 0
    assert Decontaminate(data=(str(data / "others"),)).apply(rows_of(PICTURES), Whole()).dropped["key"].to_pylist() == [
        "cropped"
    ]


def test_it_is_a_stage_that_looks_at_pictures(data: Path):
    stage = Decontaminate(data=(str(data),))
    assert isinstance(stage, CurateStage)
    assert isinstance(stage, WithPictures)
    assert stage.name == "overlap"


def test_what_cannot_be_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"overlap\.data must name"):
        Decontaminate(data=())
    with pytest.raises(ConfigError, match=r"overlap\.threshold must lie between 0 and 1. Got 2"):
        Decontaminate(data=("x",), threshold=2)
    with pytest.raises(DataError, match="no such folder"):
        Decontaminate(data=(str(tmp_path / "none"),)).apply(rows_of(PICTURES), Whole())
