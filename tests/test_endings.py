import pytest

from diptych.data import endings
from diptych.data.endings import kind_of
from diptych.data.images import PICTURE_ENDINGS
from diptych.data.video import VIDEO_ENDINGS


def test_each_ending_is_of_one_kind():
    kinds = [*PICTURE_ENDINGS, *VIDEO_ENDINGS, *endings._UNREAD]
    assert len(kinds) == len(set(kinds))
    assert all(ending == ending.lower() and ending.isalnum() for ending in kinds)


@pytest.mark.parametrize(
    "ending", ["JPG", "jfif", "jpe", "jif", "hif", "pnm", "apng", "tga", "ico", "avifs", "heics", "dng", "CR3", "nef"]
)
def test_pictures_are_known_by_their_ending(ending, monkeypatch):
    monkeypatch.setattr(endings, "_installed", lambda _: True)
    assert kind_of(f"some.folder/a.{ending}") == ("picture", "")


@pytest.mark.parametrize("ending", ["3gp", "MTS", "m2ts", "mpg", "wmv", "flv", "ogv", "ts", "vob", "mkv"])
def test_videos_are_known_by_their_ending(ending, monkeypatch):
    monkeypatch.setattr(endings, "_installed", lambda _: True)
    assert kind_of(f"a.{ending}").what == "video"


def test_what_is_passed_over_has_a_cause(monkeypatch):
    assert kind_of("a.psd") == ("unreadable", "a Photoshop file (.psd), which has no reader here")
    assert {kind_of(name).what for name in ("a.txt", "jpg", ".jpg", "a", "a.jpg.part", "")} == {"other"}
    monkeypatch.setattr(endings, "_installed", lambda _: False)
    assert "diptych[heif]" in kind_of("a.heic").why
    assert "diptych[video]" in kind_of("a.mp4").why
    assert kind_of("a.jpg").what == "picture"
