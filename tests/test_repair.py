"""Damage to an index: each flip is noticed or harmless, and what is damaged is encoded anew."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import DataError
from diptych.search.library import Library
from diptych.search.repair import repair_index
from diptych.search.writing import Entry, Writer
from libraries import assert_true, draw_ten, stored


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_bundle) -> Path:
    """A folder with pictures and index."""
    place = tmp_path_factory.mktemp("whole")
    draw_ten(place / "pictures")
    with Library.open(place / "pictures", tiny_bundle, index=place / "index", model="tiny") as library:
        library.update()
    return place


@pytest.fixture
def place(whole, tmp_path) -> Path:
    shutil.copytree(whole / "index", tmp_path / "index")
    return tmp_path


def opened(whole: Path, place: Path, bundle) -> Library:
    return Library.open(whole / "pictures", bundle, index=place / "index", model="tiny")


def repaired(whole: Path, place: Path, bundle) -> list[str]:
    dimensions = bundle.model.config.embed_dim
    return repair_index(whole / "pictures", bundle.fingerprint(), dimensions, place / "index")


def seen(library: Library) -> dict[str, list[float]]:
    return {str(row.path): [row.score, row.width] for row in library.search("a red kite", count=99)}


def flip(file: Path, draw: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


def test_no_flip_is_silent(whole, tmp_path, tiny_bundle):
    draw = random.Random(0)
    with opened(whole, whole, tiny_bundle) as library:
        true = seen(library)
    names = [path.relative_to(whole / "index") for path in (whole / "index").rglob("*") if path.is_file()]
    names = [name for name in names if name.name != ".lock"]
    assert {name.name for name in names} == {"index.json", "files.sqlite", "features-0.f32", "sums.json"}
    noticed = 0
    for i in range(48):
        shutil.copytree(whole / "index", tmp_path / str(i) / "index")
        flip(tmp_path / str(i) / "index" / names[i % len(names)], draw)
        try:
            with opened(whole, tmp_path / str(i), tiny_bundle) as library:
                assert seen(library) == true, names[i % len(names)]
                assert library.check() == []
        except DataError:
            noticed += 1
    assert noticed > 40  # the others are in spaces between what is said


def test_damaged_features_are_encoded_anew_and_the_others_stay(whole, place, tiny_bundle, monkeypatch):
    monkeypatch.setattr("diptych.search.checked.BLOCK", 4)
    for name in ("store", "writing"):
        monkeypatch.setattr(f"diptych.search.{name}.BLOCK", 4)
    shutil.rmtree(place / "index")
    with opened(whole, place, tiny_bundle) as library:
        library.update()
    (features,) = (place / "index").rglob("*.f32")
    data = bytearray(features.read_bytes())
    data[5 * 4 * tiny_bundle.model.config.embed_dim] ^= 1  # in the second of three blocks
    features.write_bytes(data)
    assert repaired(whole, place, tiny_bundle) == ["4 files had damaged features."]
    with opened(whole, place, tiny_bundle) as library:
        assert library.update().added == 4
        assert_true(library)
    assert repaired(whole, place, tiny_bundle) == []


def test_a_damaged_database_costs_the_features_and_nothing_else(whole, place, tiny_bundle):
    (database,) = (place / "index").rglob("files.sqlite")
    database.write_bytes(b"no database, but long enough to look at " * 200)
    assert repaired(whole, place, tiny_bundle)[0].startswith("All features go")
    with opened(whole, place, tiny_bundle) as library:
        assert library.update().added == 10
        assert_true(library)


def test_a_damaged_description_is_written_anew_beside_its_features(whole, place, tiny_bundle):
    before = stored(opened(whole, whole, tiny_bundle))
    (place / "index" / "index.json").write_text("{")
    with pytest.raises(DataError, match="diptych index repair FOLDER"):
        opened(whole, place, tiny_bundle)
    assert repaired(whole, place, tiny_bundle) == ["index.json was damaged, and is written anew."]
    with opened(whole, place, tiny_bundle) as library:
        assert library.update().added == 0
        assert {path: row.tolist() for path, row in stored(library).items()} == {
            path: row.tolist() for path, row in before.items()
        }


def test_entries_without_their_counterpart_go(whole, place, tiny_bundle):
    dimensions = tiny_bundle.model.config.embed_dim
    (part,) = (path.parent for path in (place / "index").rglob("files.sqlite"))
    with Writer(part, dimensions) as writer:
        writer.write([Entry(path="x.png", size=1, modified=1, features=np.eye(dimensions, dtype=np.float32)[:1])])
        with writer._database.transaction("IMMEDIATE"):
            writer._database.execute("DELETE FROM files WHERE path = 'x.png'")
    assert repaired(whole, place, tiny_bundle) == ["1 entries had lost their counterpart."]


def test_what_is_no_index_is_told(whole, tmp_path, tiny_bundle):
    with pytest.raises(DataError, match="must have an index to be mended"):
        repaired(whole, tmp_path, tiny_bundle)
