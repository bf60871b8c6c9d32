from pathlib import Path

import pytest

from diptych.data.walk import FoundFile, Walk
from diptych.errors import DataError
from diptych.search.gone import Gone
from diptych.search.store import Known


def gone(walk: Walk, *known: str, mounts: tuple[str, ...] = ()) -> Gone:
    files = {path: Known(i, 1, 2, 3, True, None) for i, path in enumerate(known)}
    return Gone(Path("/pictures"), walk, files, list(mounts))


def walked(*paths: str, **rest) -> Walk:
    return Walk(files={path: FoundFile(path, 1, 2, 3) for path in paths}, **rest)


def test_what_is_gone_from_a_folder_that_was_listed_is_deleted():
    found = gone(walked("a.png"), "a.png", "b.png", "c/d.png")
    assert (found.to_forget(forget=False), found.kept) == (["b.png", "c/d.png"], {})


def test_what_lies_in_a_folder_that_cannot_be_listed_stays_whatever_is_asked_for():
    found = gone(walked("a.png", faults={"c/": "no"}), "a.png", "b.png", "c/d.png", "c/e/f.png", "cc/g.png")
    assert found.to_forget(forget=True) == ["b.png", "cc/g.png"]
    assert (found.kept, found.unseen) == ({}, 2)


def test_what_is_there_and_cannot_be_read_stays():
    walk = walked("a.png", faults={"b.png": "a loop"}, unread={"c.heic": "no extra"})
    found = gone(walk, "a.png", "b.png", "c.heic")
    assert (found.to_forget(forget=True), found.kept, found.unseen) == ([], {}, 2)


def test_a_disk_that_is_away_deletes_nothing_until_it_is_confirmed():
    walk = walked("a.png", mounts={"other/"})
    found = gone(walk, "a.png", "usb/b.png", "usb/c/d.png", "e.png", mounts=("usb/", "other/"))
    assert found.to_forget(forget=False) == ["e.png"]
    assert found.kept == {"/pictures/usb is no disk of its own any more": 2}
    assert found.mounts() == {"usb/", "other/"}  # it is looked for again
    sure = gone(walk, "a.png", "usb/b.png", mounts=("usb/", "other/"))
    assert (sure.to_forget(forget=True), sure.kept, sure.mounts()) == (["usb/b.png"], {}, {"other/"})


def test_a_folder_that_became_empty_may_be_the_place_of_a_disk():
    found = gone(walked("a.png", empty={"usb/"}), "a.png", "usb/b.png", "usb/c/d.png", "usb2/e.png")
    assert found.to_forget(forget=False) == ["usb2/e.png"]
    assert found.kept == {"/pictures/usb is empty": 2}


def test_a_folder_without_any_picture_is_refused_until_it_is_confirmed():
    for walk in (walked(), walked(empty={""})):
        with pytest.raises(DataError, match=r"holds no picture any more, and 2 are in its index.*add --forget"):
            gone(walk, "a.png", "b.png").refuse_all(forget=False)
    gone(walked(), "a.png").refuse_all(forget=True)
    gone(walked()).refuse_all(forget=False)  # nothing was known
    gone(walked("new.png"), "a.png").refuse_all(forget=False)
    gone(walked(left_out={"a.png": "*.png"}), "a.png").refuse_all(forget=False)


def test_more_than_half_of_a_large_index_is_not_forgotten_at_once():
    known = [f"{i}.png" for i in range(150)]
    found = gone(walked(*known[:50]), *known)
    assert (found.to_forget(forget=False), found.kept) == ([], {"more than half of the index is gone at once": 100})
    assert len(gone(walked(*known[:50]), *known).to_forget(forget=True)) == 100
    assert len(gone(walked(*known[:51]), *known).to_forget(forget=False)) == 99


def test_what_a_rule_leaves_out_is_forgotten():
    known = [f"@eaDir/{i}.png" for i in range(150)]
    found = gone(walked("a.png", left_out={"@eaDir/": "@eaDir/"}), "a.png", *known)
    assert len(found.to_forget(forget=False)) == 150
