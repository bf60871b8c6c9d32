"""Films that tell where their camera went, and films that do not: written by ffmpeg, and boxes by hand."""

import io
import struct
from pathlib import Path

import pytest

from diptych.data.film_places import may_tell_places
from films import WAY, film

av = pytest.importorskip("av", reason="pip install 'diptych[video]'")


def told(path: Path) -> bool:
    with path.open("rb") as file:
        return may_tell_places(file)


@pytest.mark.parametrize("ending", ["mp4", "mov", "webm", "mkv"])
def test_a_film_of_pictures_alone_tells_no_place(tmp_path, ending):
    assert not told(film(tmp_path / f"a.{ending}", tags={"title": "a walk"}))


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_a_place_among_the_tags_is_seen(tmp_path, ending):
    assert told(film(tmp_path / f"a.{ending}", tags={"location": "+48.8566+002.3522/"}))


def test_apples_names_of_tags_are_seen(tmp_path):
    tags = {"com.apple.quicktime.location.ISO6709": "+48.8566+002.3522+035/"}
    assert told(film(tmp_path / "a.mov", tags=tags, options={"movflags": "use_metadata_tags"}))


def test_subtitles_in_which_drones_write_their_way_are_seen(tmp_path):
    said = tmp_path / "way.srt"
    said.write_text(WAY)
    path = film(tmp_path / "a.mkv", subtitles=said)
    with av.open(str(path)) as opened:
        assert len(opened.streams.subtitles) == 1
    assert told(path)


@pytest.mark.parametrize("ending", ["avi", "ts"])
def test_kinds_in_which_it_cannot_be_told_may(tmp_path, ending):
    assert told(film(tmp_path / f"a.{ending}"))


def box(kind: bytes, *parts: bytes) -> bytes:
    inside = b"".join(parts)
    return struct.pack(">I4s", 8 + len(inside), kind) + inside


def with_track(handler: bytes, entry: bytes) -> bytes:
    table = box(b"stbl", box(b"stsd", bytes(4), struct.pack(">I", 1), entry))
    media = box(b"mdia", box(b"hdlr", bytes(8), handler, bytes(13)), box(b"minf", table))
    return box(b"ftyp", b"qt  ", bytes(4)) + box(b"moov", box(b"mvhd", bytes(100)), box(b"trak", media))


@pytest.mark.parametrize(
    ("handler", "entry", "is_told"),
    [
        (b"vide", box(b"avc1", bytes(70)), False),
        (b"meta", box(b"gpmd", bytes(8)), True),  # GoPro
        (b"camm", box(b"camm", bytes(8)), True),  # Android
        (b"sbtl", box(b"tx3g", bytes(8)), True),  # drones
        (b"meta", box(b"mebx", b"com.apple.quicktime.video-orientation"), False),
        (b"meta", box(b"mebx", b"com.apple.quicktime.location.ISO6709"), True),
        (b"meta", b"", True),
    ],
)
def test_a_track_of_notes_is_seen(handler, entry, is_told):
    assert may_tell_places(io.BytesIO(with_track(handler, entry))) == is_told


@pytest.mark.parametrize(("cover", "is_told"), [(1000, False), (2**20 + 1, True)])
def test_tags_that_go_on_behind_a_large_cover_may_tell_one(cover, is_told):
    film = with_track(b"vide", box(b"avc1", bytes(70))) + box(b"udta", bytes(cover))
    assert may_tell_places(io.BytesIO(film)) == is_told


@pytest.mark.parametrize("data", [b"", b"ftyp", box(b"ftyp", b"isom"), with_track(b"vide", b"")[:60]])
def test_what_is_damaged_may_tell_one(data):
    assert may_tell_places(io.BytesIO(data))
