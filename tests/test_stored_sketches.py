from pathlib import Path

import numpy as np
import pytest

from diptych.audit.stored_sketches import PictureList, StoredSketches
from diptych.curate.copies import Sketches, small_grey
from diptych.errors import DataError
from scenes import jpeg, scene

FILES = {f"k{number}": jpeg(scene(number)) for number in range(7)} | {"bad": b"no picture", "none": None}


def pictures(asked: list[int] | None = None, fingerprint: str = "a") -> PictureList:
    def read(number: int) -> tuple[str, bytes | None]:
        if asked is not None:
            asked.append(number)
        return list(FILES.items())[number]

    return PictureList(name="train", count=len(FILES), fingerprint=fingerprint, read=read)


def test_parts_hold_what_was_sketched_and_count_what_cannot_be_read(tmp_path: Path):
    stored = StoredSketches(pictures(), tmp_path, part_size=4)
    seen: list[tuple[int, int]] = []
    stored.make(lambda done, all_: seen.append((done, all_)))
    parts = list(stored.parts())
    assert [part.keys for part in parts] == [("k0", "k1", "k2", "k3"), ("k4", "k5", "k6"), ()]
    assert [part.numbers.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6], []]
    assert [part.skipped for part in parts] == [{}, {"not an image": 1}, {"no picture": 1}]
    assert seen == [(4, 9), (8, 9), (9, 9)]
    twin = Sketches.of([small_grey(picture) for picture in list(FILES.values())[4:7] if picture])
    np.testing.assert_array_equal(parts[1].sketches.small, twin.small)
    np.testing.assert_allclose(parts[1].sketches.features, twin.features, atol=1e-3)  # kept as float16
    np.testing.assert_array_equal(parts[1].sketches.hashes, twin.hashes)


def test_only_what_is_absent_is_made(tmp_path: Path):
    StoredSketches(pictures(), tmp_path, part_size=4).make()
    asked: list[int] = []
    again = StoredSketches(pictures(asked), tmp_path, part_size=4)
    again.make()
    assert asked == []
    (again.folder / "part-000001.safetensors").unlink()
    again.make()
    assert sorted(asked) == [4, 5, 6, 7]


def test_other_pictures_have_another_folder(tmp_path: Path):
    folders = {
        StoredSketches(pictures(), tmp_path).folder,
        StoredSketches(pictures(fingerprint="b"), tmp_path).folder,
        StoredSketches(pictures(), tmp_path, part_size=3).folder,
    }
    assert len(folders) == 3


def test_a_part_that_is_damaged_or_absent_is_named(tmp_path: Path):
    stored = StoredSketches(pictures(), tmp_path)
    with pytest.raises(DataError, match=r"part-000000\.safetensors must hold sketches"):
        list(stored.parts())
    stored.make()
    (stored.folder / "part-000000.safetensors").write_bytes(b"xx")
    with pytest.raises(DataError, match="Remove it, and start again"):
        list(stored.parts())
