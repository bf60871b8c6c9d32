import datetime
import json
from pathlib import Path

from diptych.errors import DataError
from diptych.search.results import Hit, Results

FOUND = Results(
    (
        Hit(path=Path("/a/<b>&.jpg"), score=0.5, width=4, height=3, date=datetime.datetime(2020, 1, 2, 3, 4, 5)),
        Hit(path=Path("/a/film.mp4"), score=0.25, place=(1.5, -2.5), time=61.0, camera="X"),
    ),
    'a "red" <kite>',
    lambda path: b"JPEG of " + path.name.encode(),
)


def test_results_are_a_sequence():
    assert [row.score for row in FOUND] == [0.5, 0.25]
    assert len(FOUND[1:]) == 1
    assert FOUND[1:][0] is FOUND[1]


def test_json_holds_plain_values():
    first, second = json.loads(json.dumps(FOUND.to_json()))
    assert first == {
        "path": "/a/<b>&.jpg",
        "score": 0.5,
        "width": 4,
        "height": 3,
        "date": "2020-01-02 03:04:05",
        "camera": None,
        "place": None,
        "time": None,
    }
    assert (second["place"], second["camera"], second["time"]) == ([1.5, -2.5], "X", 61.0)


def test_a_notebook_shows_pictures_and_nothing_can_break_out_of_a_name():
    page = FOUND._repr_html_()
    assert "a &quot;red&quot; &lt;kite&gt;: 2 found" in page
    assert 'title="/a/&lt;b&gt;&amp;.jpg"' in page
    assert "<b>" not in page
    assert page.count("src=") == page.count('src="data:image/jpeg;base64,') == 2
    assert "0.250 film.mp4 at 61 s" in page


def test_a_picture_that_is_gone_does_not_cost_the_page():
    def gone(path: Path) -> bytes:
        raise DataError("gone")

    page = Results(FOUND.rows, "", gone)._repr_html_()
    assert page.count("no picture") == 2
    assert "<img" not in page


def test_a_long_list_is_cut_and_says_so():
    page = Results(FOUND.rows * 50)._repr_html_()
    assert page.count("<figure") == 60
    assert "40 more are not shown" in page


def test_the_latest_come_first_what_tells_no_date_last_and_what_scores_less_goes():
    rows = [Hit(path=Path(name), score=score, date=date) for name, score, date in (
        ("a", 0.5, None), ("b", 0.4, datetime.datetime(2020, 1, 1)), ("c", 0.3, datetime.datetime(2021, 1, 1)),
        ("d", 0.2, None), ("e", 0.1, datetime.datetime(2021, 1, 1)),
    )]  # fmt: skip
    found = Results(tuple(rows), "query", lambda path: b"")
    assert [row.path.name for row in found.by_date()] == ["c", "e", "b", "a", "d"]
    assert [row.path.name for row in found.from_score(0.3)] == ["a", "b", "c"]
    assert (found.by_date().query, found.by_date().thumbnail) == ("query", found.thumbnail)
