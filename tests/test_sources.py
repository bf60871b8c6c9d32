import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import png
from diptych.errors import ConfigError, DataError, ShardError
from diptych.pairs.folders import PictureFolder
from diptych.pairs.remote import RemoteConfig
from diptych.pairs.shards import ShardSet, ShardWriter
from diptych.pairs.sources import Source, open_pairs
from diptych.pairs.tables import PairTable

PICTURE = png(Image.new("RGB", (4, 4), "red"))


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    files = {
        "10.png": PICTURE,
        "10.txt": b"ten\nthe tenth\n",
        "9.PNG": PICTURE,
        "9.txt": b"nine",
        "sub/a.b.png": PICTURE,
        "sub/a.b.txt": b"deep",
        "mute.png": PICTURE,
        ".hidden.png": PICTURE,
        ".trash/x.png": PICTURE,
        "notes.md": b"no picture",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_of_pictures_with_texts_beside_is_a_source(album):
    pairs = open_pairs(Source(path=str(album)))
    assert isinstance(pairs, PictureFolder)
    assert [pairs[n].key for n in range(len(pairs))] == ["9.PNG", "10.png", "mute.png", "sub/a.b.png"]
    assert pairs[1].picture == PICTURE
    assert [pairs.captions(n) for n in (0, 1, 3)] == [["nine"], ["ten", "the tenth"], ["deep"]]
    assert pairs.shard_ends == [4]
    with pytest.raises(DataError, match=r"^no caption$"):
        pairs.captions(2)
    (album / "10.png").unlink()
    with pytest.raises(DataError, match=r"10\.png must be a picture, and no such file exists"):
        pairs[1]


def test_the_fingerprint_of_a_folder_holds_for_a_copy_and_changes_with_its_files(album, tmp_path):
    before = PictureFolder(album).fingerprint()
    shutil.copytree(album, tmp_path / "copy")
    assert PictureFolder(tmp_path / "copy").fingerprint() == before
    (album / "9.txt").write_bytes(b"another caption")
    assert PictureFolder(album).fingerprint() != before


def test_what_a_source_is_its_path_tells(album, pair_shards, tmp_path):
    assert isinstance(open_pairs(Source(path=str(pair_shards))), ShardSet)
    assert isinstance(open_pairs(Source(path=str(next(pair_shards.glob("*.tar"))))), ShardSet)
    assert isinstance(open_pairs(Source(path="embedded:emoji")), ShardSet)
    (album / "captions.csv").write_text("image,caption\n10.png,ten\n")
    assert isinstance(open_pairs(Source(path=str(album / "captions.csv"))), PairTable)
    (album / "metadata.jsonl").write_text('{"file_name": "10.png", "text": "ten"}')
    table = open_pairs(Source(path=str(album)))
    assert isinstance(table, PairTable)
    assert (table[0].picture, table.captions(0)) == (PICTURE, ["ten"])
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ShardError, match=r"must be a folder with \.tar shards of pairs"):
            open_pairs(Source(path=str(path / "empty")))


def test_a_remote_source_needs_room_for_the_shards_that_are_shuffled_together(tmp_path):
    with ShardWriter(tmp_path / "set", samples_per_shard=2) as writer:
        for number in range(8):
            writer.add(str(number), {"txt": b"x" * 5000})
    url = f"file://{tmp_path / 'set'}"
    small = RemoteConfig(cache=str(tmp_path / "cache"), cache_gb=50_000 / 1e9)
    with pytest.raises(ConfigError, match=r"cache_gb must hold all shards of file://.*Got 5e-05, and they need"):
        open_pairs(Source(path=url), remote=small)
    pairs = open_pairs(Source(path=url, shuffle_shards=1), remote=small)
    assert [pairs[n].key for n in range(8)] == [str(n) for n in range(8)]


def test_reading_from_afar_without_fsspec_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(Exception, match=r"reading s3://bucket/set needs an extra: pip install 'diptych\[remote\]'"):
        open_pairs(Source(path="s3://bucket/set"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "each with a weight above 0. Got 0.0"),
        ({"weight": float("nan")}, "each with a weight above 0"),
        ({"captions": "last"}, "must be draw, first, turns or join. Got 'last'"),
        ({"captions": "turns", "replace": True}, "must not be turns with replace=true"),
        ({"shuffle_shards": -1}, "must be 0 with replace=true, else at least 0. Got -1"),
        ({"shuffle_shards": 2, "replace": True}, "must be 0 with replace=true"),
        ({"templates": ("a photo",)}, "{}"),
        ({"quoting": "all"}, "must be auto, quotes or none. Got 'all'"),
        ({"separator": ", "}, "must be one character, no quote. Got ', '"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises((ConfigError, DataError), match=message):
        Source(path="a", **options)


def test_options_of_tables_reach_them(album, tmp_path):
    (tmp_path / "list.csv").write_text("image^caption\n10.png^'ten', and more\n")
    pairs = open_pairs(Source(path=str(tmp_path / "list.csv"), separator="^", image_folder=str(album)))
    assert (pairs[0].picture, pairs.captions(0), pairs.check()) == (PICTURE, ["'ten', and more"], [])


def test_members_of_shards_are_named_as_columns_are(tmp_path):
    with ShardWriter(tmp_path / "set") as writer:
        writer.add("a", {"webp": b"small", "orig.png": PICTURE, "json": b'{"alt": "one"}'})
    source = Source(path=str(tmp_path / "set"), image_column="orig", caption_columns=("json:alt",))
    pairs = open_pairs(source)
    assert (pairs[0].picture, pairs.captions(0)) == (PICTURE, ["one"])


@pytest.mark.parametrize("name", ["emoji", "icons"])
def test_nothing_is_said_of_what_is_as_it_should_be(name):
    assert open_pairs(Source(path=f"embedded:{name}")).check() == []
