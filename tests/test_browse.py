import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browsing import browsing
from diptych.errors import ConfigError
from diptych.serve import browse as browse_module
from diptych.serve.browse import Browser, ViewFilters
from diptych.serve.refusals import RefusedError


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browse")) as browser:
        yield browser


def names(browser: Browser, asked: ViewFilters, features: np.ndarray | None = None) -> list[str]:
    view = browser.view(asked, str(features), features)
    return [facts["name"] for facts in browser.facts(view, 0, 100)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (ViewFilters(), ["2022/d.jpg", "2021/hill/c.jpg", "2021/sea/b.jpg", "2021/sea/a.jpg"]),
        (ViewFilters(oldest_first=True), ["2021/sea/a.jpg", "2021/sea/b.jpg", "2021/hill/c.jpg", "2022/d.jpg"]),
        (ViewFilters(folder="2021"), ["2021/hill/c.jpg", "2021/sea/b.jpg", "2021/sea/a.jpg"]),
        (ViewFilters(camera="Pixel 4"), ["2022/d.jpg", "2021/hill/c.jpg"]),
        (ViewFilters(country="France"), ["2022/d.jpg", "2021/sea/a.jpg"]),
        (ViewFilters(after="2021-07-02", before="2021-09"), ["2021/hill/c.jpg", "2021/sea/b.jpg"]),
        (ViewFilters(min_side=100), ["2022/d.jpg"]),
        (ViewFilters(area=(0, 100, 10, 110)), ["2021/sea/b.jpg"]),
        (ViewFilters(kind="video"), []),
        (ViewFilters(folder="2021", camera="Canon EOS", country="Singapore"), ["2021/sea/b.jpg"]),
    ],
)
def test_a_view_shows_what_passes_all_filters(browser: Browser, asked: ViewFilters, expected: list[str]):
    # The one that tells no date has the time of its file, which is today's.
    assert [name for name in names(browser, asked) if name != "e.jpg"] == expected


def test_a_search_is_ordered_by_score_or_by_date_and_keeps_filters(browser: Browser):
    wanted = browser.library.features_of(browser.number_of(one(browser, "2021/hill/c.jpg")["id"]))
    view = browser.view(ViewFilters(), "c", wanted)
    facts = browser.facts(view, 0, 9)
    assert facts[0]["name"] == "2021/hill/c.jpg"
    assert facts[0]["score"] == pytest.approx(1, abs=1e-5)
    scores = [fact["score"] for fact in facts]
    assert scores == sorted(scores, reverse=True)
    assert len(facts) == 5
    by_date = names(browser, ViewFilters(by_date=True, folder="2021"), wanted)
    assert by_date == ["2021/hill/c.jpg", "2021/sea/b.jpg", "2021/sea/a.jpg"]
    without = browser.view(ViewFilters(), "without c", wanted, browser.number_of(facts[0]["id"]))
    assert [fact["name"] for fact in browser.facts(without, 0, 9)] == [fact["name"] for fact in facts[1:]]


def one(browser: Browser, name: str) -> dict[str, Any]:
    view = browser.view(ViewFilters(), None, None)
    return next(facts for facts in browser.facts(view, 0, 100) if facts["name"] == name)


def test_facts_say_what_a_picture_tells(browser: Browser):
    facts = one(browser, "2022/d.jpg")
    told = {key: facts[key] for key in ("width", "height", "when", "is_taken", "camera", "country", "is_video", "time")}
    assert told == {
        **{"width": 400, "height": 300, "when": "2022-01-05 08:00:00", "is_taken": True},
        **{"camera": "Pixel 4", "country": "France", "is_video": False, "time": None},
    }
    assert facts["place"] == pytest.approx([48.86, 2.35])
    untold = one(browser, "e.jpg")
    assert (untold["is_taken"], untold["camera"], untold["place"], untold["country"]) == (False, None, None, None)


def test_spread_counts_the_view_alone(browser: Browser):
    asked = ViewFilters(folder="2021")
    spread = browser.spread(browser.view(asked, None, None), asked)
    assert spread["folders"] == [("2021/hill", 1), ("2021/sea", 2)]
    assert spread["months"] == [("2021-08", 1), ("2021-07", 2)]
    assert spread["countries"] == [("France", 1), ("Singapore", 1)]
    assert (spread["kinds"], spread["placed"]) == ([("picture", 3)], 2)


def test_an_id_holds_after_a_restart_and_leads_to_files_of_the_index_alone(browser: Browser):
    known = one(browser, "2022/d.jpg")["id"]
    again = Browser(browser.library, name="again")
    assert again.gallery.draw(known, 100).startswith(b"\xff\xd8")
    assert again.facts_of(known)["name"] == "2022/d.jpg"
    for unknown in ("x" * 12, "2022/d.jpg", ""):
        with pytest.raises(RefusedError, match="must be the id of a picture"):
            again.gallery.draw(unknown, 100)
        assert not again.gallery.knows(unknown)


def test_a_picture_has_its_place_in_the_view_that_it_is_in(browser: Browser):
    known = one(browser, "2022/d.jpg")["id"]
    placed = browser.placed(browser.view(ViewFilters(folder="2022"), None, None), known)
    assert placed is not None
    assert (placed[0], placed[1]["name"]) == (0, "2022/d.jpg")
    elsewhere = browser.placed(browser.view(ViewFilters(folder="2021"), None, None), known)
    assert elsewhere is not None
    assert elsewhere[0] == -1
    assert browser.placed(browser.view(ViewFilters(), None, None), "x" * 12) is None


def test_a_query_names_a_picture_by_its_path_or_the_end_of_it(browser: Browser):
    number = browser.number_of(one(browser, "2021/sea/a.jpg")["id"])
    assert [browser.named(name) for name in ("2021/sea/a.jpg", "sea/a.jpg", "A.JPG")] == [number] * 3
    assert [browser.named(name) for name in ("a/a.jpg", "jpg", "../a.jpg", "/etc/passwd")] == [None] * 4


def test_spots_join_near_places_until_they_are_few(browser: Browser):
    spots = browser.spots(browser.view(ViewFilters(), None, None), 100)
    assert sorted((round(a, 2), round(b, 2), n) for a, b, n, _ in spots) == [(1.35, 103.8, 1), (48.86, 2.35, 2)]
    [(_, _, count, _)] = browser.spots(browser.view(ViewFilters(), None, None), 1)
    assert count == 3


def test_albums_and_what_is_hidden_are_views(tmp_path: Path):
    with browsing(tmp_path) as browser:
        assert len(names(browser, ViewFilters())) == 5
        browser.shelf.change_album("sea", add={"2021/sea/b.jpg": "", "gone.jpg": ""})
        browser.shelf.change_hidden(hide={"2022/d.jpg": ""})
        assert names(browser, ViewFilters(album="sea")) == ["2021/sea/b.jpg"]
        assert names(browser, ViewFilters(album="none such")) == []
        assert names(browser, ViewFilters(hidden=True)) == ["2022/d.jpg"]
        assert "2022/d.jpg" not in names(browser, ViewFilters())  # though the view was made before
        assert browser.spread(browser.view(ViewFilters(), None, None), ViewFilters())["albums"] == [("sea", 1)]


def test_what_is_kept_of_a_file_goes_with_it_where_it_is_moved_and_not_to_a_copy(tmp_path: Path):
    with browsing(tmp_path) as browser:
        folder = browser.library.folder
        shutil.copy(folder / "2021/hill/c.jpg", folder / "copy.jpg")
        browser.library.update()  # pyright: ignore[reportAttributeAccessIssue]
        for name, path in (("sea", "2021/sea/a.jpg"), ("hill", "copy.jpg")):
            browser.shelf.change_album(name, add=browser.known_by([one(browser, path)["id"]]))
        browser.shelf.change_hidden(hide=browser.known_by([one(browser, "2022/d.jpg")["id"]]), gone=["e.jpg"])
        (folder / "2022/d.jpg").rename(folder / "d of 2022.jpg")
        (folder / "2021/sea").rename(folder / "sea")
        (folder / "copy.jpg").unlink()  # its twin is no album of its own
        (folder / "e.jpg").unlink()
        browser.library.update()  # pyright: ignore[reportAttributeAccessIssue]
        assert names(browser, ViewFilters(album="sea")) == ["sea/a.jpg"]
        assert names(browser, ViewFilters(hidden=True)) == ["d of 2022.jpg"]
        assert names(browser, ViewFilters(album="hill")) == []
        _, kept = browser.shelf.read()
        assert (kept.albums["sea"], kept.hidden) == (("sea/a.jpg",), {"d of 2022.jpg"})
        assert (browser.how_many(kept.albums["hill"]), browser.how_many(kept.hidden)) == (0, 1)
        browser.shelf.change_album("sea", remove=["sea/a.jpg"])
        assert names(browser, ViewFilters(album="sea")) == []


def test_what_comes_into_the_index_is_shown_and_views_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with browsing(tmp_path) as browser:
        before = browser.view(ViewFilters(), None, None)
        assert browser.view(ViewFilters(), None, None) is before
        (browser.library.folder / "e.jpg").rename(browser.library.folder / "f.jpg")
        browser.library.update()  # pyright: ignore[reportAttributeAccessIssue]
        after = browser.view(ViewFilters(), None, None)
        assert after.version != before.version
        assert {"f.jpg"} == set(names(browser, ViewFilters())) - {str(path) for path in before.catalogue.paths}
        monkeypatch.setattr(browse_module, "_VIEWS", 2)
        for side in range(1, 6):
            browser.view(ViewFilters(min_side=side), None, None)
        assert len(browser._views) == 2


@pytest.mark.parametrize("asked", [ViewFilters(country="Atlantis"), ViewFilters(after="2021-13-01")])
def test_what_is_no_country_or_day_is_one_sentence(browser: Browser, asked: ViewFilters):
    with pytest.raises(ConfigError, match="must be"):
        browser.view(asked, None, None)
