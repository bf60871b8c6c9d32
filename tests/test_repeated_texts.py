"""captions/repeated_texts.py: texts beside many different pictures."""

import itertools

import pyarrow as pa
import pytest

from diptych.captions.repeated_texts import RepeatedTexts
from diptych.errors import ConfigError
from diptych.rows.stage import Grouping, Whole
from pair_tables import pairs_of


def judged(stage, parts, buckets):
    """The whole, as a runner does it: scatter, resolve, apply."""
    scattered = [
        stage.scatter(rows, Whole(), buckets).append_column("part", pa.array([part] * len(rows), pa.int32()))
        for part, rows in enumerate(parts)
    ]
    members = pa.concat_tables(scattered)
    verdicts = []
    for bucket in range(buckets):
        mine = members.filter(pa.array([b == bucket for b in members["bucket"].to_pylist()], pa.bool_()))
        verdicts.append(stage.resolve(mine.drop_columns(["bucket"]), Whole()))
    found = pa.concat_tables(verdicts)
    results = []
    for part, rows in enumerate(parts):
        mine = found.filter(pa.array([p == part for p in found["part"].to_pylist()], pa.bool_()))
        results.append(stage.apply(rows, Whole(verdicts=mine)))
    return results


ROWS = pairs_of("Site logo", "a dog", "SITE  logo", "site logo", "a dog", "a dog", "a cat")


@pytest.mark.parametrize("buckets", [1, 3])
@pytest.mark.parametrize("cut", [[7], [2, 5], [0, 3, 4]])
def test_a_text_of_more_pictures_than_allowed_is_dropped_however_rows_are_cut(buckets, cut):
    edges = [0, *[n for n in cut if n < 7], 7]
    parts = [ROWS.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    results = judged(RepeatedTexts(max_pictures=2), parts, buckets)
    assert [text for one in results for text in one.kept["text"].to_pylist()] == ["a cat"]
    dropped = pa.concat_tables([one.dropped for one in results])
    assert dropped["value"].to_pylist() == ["3 pictures"] * 6
    assert set(dropped["limit"].to_pylist()) == {"at most 2 pictures with one text"}


def test_one_picture_on_many_pages_is_one():
    rows = pairs_of(*["a dog"] * 4, url=["https://a.example/1"] * 3 + ["https://a.example/2"])
    (one,) = judged(RepeatedTexts(max_pictures=2), [rows], 1)
    assert len(one.kept) == 4
    same = pairs_of(*["a dog"] * 4, sha256=["x", "x", "x", None])
    (one,) = judged(RepeatedTexts(max_pictures=1), [same], 1)
    assert len(one.kept) == 0  # the bytes x, and the address of the row without
    (one,) = judged(RepeatedTexts(max_pictures=2), [same], 1)
    assert len(one.kept) == 4


def test_pictures_of_a_source_that_holds_them_differ_by_their_place():
    rows = pairs_of(*["a dog"] * 3).drop_columns(["url", "place"])
    rows = rows.append_column("url", pa.nulls(3, pa.string())).append_column("place", pa.array([1, 1, 2], pa.int64()))
    (one,) = judged(RepeatedTexts(max_pictures=2), [rows], 1)
    assert len(one.kept) == 3
    (one,) = judged(RepeatedTexts(max_pictures=1), [rows], 1)
    assert len(one.kept) == 0


def test_emoji_are_not_all_one_text():
    rows = pairs_of("😀", "😁", "😂")
    (one,) = judged(RepeatedTexts(max_pictures=1), [rows], 2)
    assert len(one.kept) == 3


def test_it_is_a_stage_that_groups_and_cannot_keep_none():
    assert isinstance(RepeatedTexts(), Grouping)
    assert RepeatedTexts().buckets(0) == 1
    assert RepeatedTexts().buckets(9_000_000) == 3
    with pytest.raises(ConfigError, match="max_pictures must be at least 1"):
        RepeatedTexts(max_pictures=0)
