from typing import Any

import numpy as np

from browsing import SHOTS, rows_of
from diptych.search.catalogue import Catalogue


def paths(catalogue: Catalogue, rows: Any) -> list[str]:
    return [catalogue.paths[row] for row in rows]


def test_files_are_ordered_by_date_and_what_tells_none_by_when_it_was_written():
    catalogue = Catalogue.of(rows_of())
    everything = np.arange(len(catalogue))
    latest = [*("2022/d.jpg", "2021/hill/c.jpg", "2021/sea/b.jpg", "2021/sea/a.jpg"), "e.jpg"]
    assert paths(catalogue, catalogue.by_date(everything)) == latest
    assert paths(catalogue, catalogue.by_date(everything, oldest_first=True)) == latest[::-1]
    assert str(catalogue.when[catalogue.paths.index("e.jpg")]) == "2020-03-04T00:00:00"
    assert catalogue.is_taken.tolist() == [bool(SHOTS[i].taken) for i in (2, 0, 1, 3, 4)]  # by path


def test_months_add_up_to_the_rows_in_their_order():
    catalogue = Catalogue.of(rows_of())
    rows = catalogue.by_date(np.arange(len(catalogue)))
    assert catalogue.months(rows) == [("2022-01", 1), ("2021-08", 1), ("2021-07", 2), ("2020-03", 1)]
    assert catalogue.months(rows[:0]) == []


def test_counts_are_of_the_rows_that_are_asked_for():
    catalogue = Catalogue.of(rows_of())
    everything = np.arange(len(catalogue))
    assert catalogue.count_folders(everything) == [("2021", 3), ("2022", 1)]
    assert catalogue.count_folders(everything, "2021") == [("2021/hill", 1), ("2021/sea", 2)]
    assert catalogue.count_folders(np.flatnonzero(catalogue.in_folder("2021/sea")), "2021/sea") == []
    assert catalogue.count_cameras(everything) == [("Canon EOS", 2), ("Pixel 4", 2), ("", 1)]
    assert catalogue.count_years(everything) == [("2022", 1), ("2021", 3), ("2020", 1)]


def test_a_folder_is_no_other_that_begins_alike():
    rows = [(i, path, 1, 0, 1, 1, None, "", None, None) for i, path in enumerate(["a/1.jpg", "ab/2.jpg", "a/b/3.jpg"])]
    catalogue = Catalogue.of(rows)
    assert paths(catalogue, np.flatnonzero(catalogue.in_folder("a"))) == ["a/1.jpg", "a/b/3.jpg"]
    assert catalogue.in_folder("").all()


def test_an_area_may_lie_over_the_date_line():
    rows = [(i, f"{i}.jpg", 1, 0, 1, 1, None, "", 10.0, x) for i, x in enumerate([179.0, -179.0, 0.0])]
    rows.append((3, "3.jpg", 1, 0, 1, 1, None, "", None, None))
    catalogue = Catalogue.of(rows)
    assert catalogue.in_area(0, 170, 20, -170).tolist() == [True, True, False, False]
    assert catalogue.in_area(0, -10, 20, 10).tolist() == [False, False, True, False]


def test_an_empty_library_has_a_catalogue():
    catalogue = Catalogue.of([])
    assert (len(catalogue), catalogue.sides.shape, catalogue.places.shape) == (0, (0, 2), (0, 2))
    assert catalogue.in_folder("x").tolist() == []
    assert catalogue.count_folders(np.arange(0)) == catalogue.count_years(np.arange(0)) == []


def test_a_film_is_one_by_its_ending():
    rows = [(i, name, 1, 0, 1, 1, None, "", None, None) for i, name in enumerate(["a.MP4", "b.jpg", "mp4"])]
    assert Catalogue.of(rows).is_video.tolist() == [True, False, False]
