"""curate/duplicates.py: which of several rows is kept, whatever parts and buckets they come in."""

import hashlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from diptych.curate import duplicates
from diptych.curate.duplicates import SameBytes, SameLook, SamePair
from diptych.errors import ConfigError
from diptych.measures.perceptual_hash import perceptual_hash
from diptych.rows.columns import pairs_table
from diptych.rows.stage import DROPPED, CurateStage, Grouping, Judged
from stages import run_grouping


def rows_of(*rows: dict, columns: dict[str, pa.Array] | None = None) -> pa.Table:
    full = [{"key": f"{i:032x}", "text": "t", "source": 0, **row} for i, row in enumerate(rows)]
    table = pairs_table(full)
    for name, column in (columns or {}).items():
        table = table.append_column(name, column)
    return table


def looking(looks, mirrored=None, detail=None, **columns) -> pa.Table:
    """Rows with these hashes; the others as given."""
    looks = np.asarray(looks, np.uint64)
    count = len(looks)
    given = {
        "look": pa.array(looks),
        "look_mirrored": pa.array(np.asarray(mirrored if mirrored is not None else ~looks, np.uint64)),
        "detail": pa.array(np.full(count, 30.0) if detail is None else detail, pa.float32()),
    }
    rows = [{name: column[i] for name, column in columns.items()} for i in range(count)]
    return rows_of(*rows, columns=given)


def verdict(judged: Judged) -> dict[str, str]:
    return dict(zip(judged.dropped["key"].to_pylist(), judged.dropped["value"].to_pylist(), strict=True))


def key(i: int) -> str:
    return f"{i:032x}"


def pair_by_pair(rows: pa.Table, is_same: Callable[[dict, dict], bool], better: Callable[[dict], tuple]) -> dict:
    """The plain twin: each row against each, and the best of those that are better."""
    table = rows.to_pylist()
    found = {}
    for row in table:
        others = [other for other in table if better(other) < better(row) and is_same(row, other)]
        if others:
            found[row["key"]] = min(others, key=better)["key"]
    return found


def bits(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def near(distance: int) -> Callable[[dict, dict], bool]:
    def is_near(a: dict, b: dict) -> bool:
        mirrored = (bits(a["look_mirrored"], b["look"]), bits(a["look"], b["look_mirrored"]))
        return min(bits(a["look"], b["look"]), *mirrored) <= distance

    return is_near


def by_size(row: dict) -> tuple:
    return (-(row["width"] or 0) * (row["height"] or 0), -len(row["text"]), row["key"])


STAGES = (SamePair(), SamePair(texts="one"), SameBytes(), SameLook())


def hashed(*names: str | None) -> pa.Array:
    return pa.array([None if n is None else hashlib.sha256(n.encode()).hexdigest() for n in names], pa.string())


def crowd(seed: int, count: int = 150) -> pa.Table:
    """Rows of which many are near each other, in steps, some mirrored, with sizes, texts and keys that tie."""
    draw = np.random.default_rng(seed)
    looks = draw.integers(0, 2**64, 12, np.uint64)[draw.integers(0, 12, count)]
    steps = draw.integers(0, 6, count)
    for step in range(5):
        looks ^= np.where(steps > step, np.uint64(1) << draw.integers(0, 64, count, np.uint64), np.uint64(0))
    mirror = np.uint64(0x5555_5555_5555_5555)
    looks ^= np.where(draw.random(count) < 0.3, mirror, np.uint64(0))
    order = draw.permutation(count)
    return looking(
        looks,
        looks ^ mirror,
        key=[key(i) for i in order],
        width=[None if i % 7 == 0 else int(i % 3 + 1) for i in order],
        height=[2] * count,
        text=["t" * int(n) for n in draw.integers(1, 3, count)],
    )


def test_they_are_stages_with_names_of_their_own():
    assert all(isinstance(stage, CurateStage) and isinstance(stage, Grouping) for stage in STAGES)
    assert len({stage.name for stage in STAGES}) == 3


def test_of_the_same_pair_the_first_is_kept():
    rows = rows_of({"key": "a"}, {"key": "b"}, {"key": "a"}, {"key": "a"})
    judged = run_grouping(SamePair(), rows, parts=2)
    assert judged.kept["key"].to_pylist() == ["a", "b"]
    assert judged.dropped.to_pylist() == [
        {"key": "a", "cause": "same pair", "value": "a", "limit": None} for _ in range(2)
    ]


def test_an_address_may_have_several_texts_or_only_the_longest():
    rows = rows_of(
        {"url": "https://a.example/1", "text": "short", "width": 9, "height": 9},
        {"url": "https://a.example/1", "text": "longer text"},
        {"url": None, "text": "x"},
        {"url": None, "text": "x"},
    )
    assert len(run_grouping(SamePair(), rows).dropped) == 0
    judged = run_grouping(SamePair(texts="one"), rows)
    assert verdict(judged) == {key(0): key(1)}
    assert judged.dropped["cause"].to_pylist() == ["same address"]
    assert verdict(run_grouping(SamePair(texts="one", keep="first"), rows)) == {key(1): key(0)}


def test_of_the_same_bytes_the_longest_text_is_kept_and_no_bytes_are_the_same_as_none():
    sha = hashed("a", None, "a", "b", None, "a")
    rows = rows_of(*({"text": text} for text in ("x", "x", "xxx", "x", "x", "xx")), columns={"sha256": sha})
    judged = run_grouping(SameBytes(), rows, parts=3)
    assert verdict(judged) == {key(0): key(2), key(5): key(2)}
    assert verdict(run_grouping(SameBytes(keep="first"), rows, parts=3)) == {key(2): key(0), key(5): key(0)}


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ({"width": [2, 3], "height": [2, 2], "text": ["xxx", "x"]}, 1),  # pixels before letters
        ({"width": [2, 2], "height": [2, 2], "text": ["x", "xx"]}, 1),  # letters before keys
        ({"key": [key(5), key(4)]}, 4),
        ({"width": [None, 1], "height": [1, 1]}, 1),  # what is not known is least
    ],
)
def test_better_is_larger_then_longer_then_the_smaller_key(columns, kept):
    judged = run_grouping(SameLook(), looking([7, 7], **columns))
    assert [int(k, 16) for k in judged.kept["key"].to_pylist()] == [kept]


def test_the_first_is_kept_where_that_is_asked_for():
    rows = looking([7, 7, 7], width=[1, 2, 3], height=[1, 1, 1])
    assert verdict(run_grouping(SameLook(), rows)) == {key(0): key(2), key(1): key(2)}
    for parts in (1, 2, 3):
        assert verdict(run_grouping(SameLook(keep="first"), rows, parts=parts)) == {key(1): key(0), key(2): key(0)}


def test_hashes_are_near_up_to_the_distance_and_not_beyond():
    looks = [0, 0b111111 << 20, 0b1111111 << 40]
    assert verdict(run_grouping(SameLook(distance=6), looking(looks))) == {key(1): key(0)}
    assert verdict(run_grouping(SameLook(distance=5), looking(looks))) == {}
    assert verdict(run_grouping(SameLook(distance=7), looking(looks))) == {key(1): key(0), key(2): key(0)}
    judged = run_grouping(SameLook(distance=0), looking([5, 5, 4]))
    assert judged.dropped.to_pylist() == [
        {"key": key(1), "cause": "same look", "value": key(0), "limit": "at least 1 bits apart"}
    ]


def test_a_mirrored_picture_is_the_same_unless_told_otherwise():
    grey = np.random.default_rng(0).integers(0, 256, (1, 32, 32), np.uint8)
    looks, mirrored, _ = perceptual_hash(np.concatenate([grey, grey[:, :, ::-1]]))
    rows = looking(looks, mirrored)
    assert verdict(run_grouping(SameLook(distance=0), rows)) == {key(1): key(0)}
    assert verdict(run_grouping(SameLook(mirrored=False), rows)) == {}


def test_plain_pictures_are_nobodys_duplicates():
    rows = looking([0] * 4, [0] * 4, detail=[0.0, 1.9, 2.0, None])
    assert verdict(run_grouping(SameLook(), rows)) == {}
    assert verdict(run_grouping(SameLook(min_detail=0), rows)) == {key(1): key(0), key(2): key(0)}


def test_a_row_is_dropped_for_the_best_near_it_and_chains_are_not_closed():
    steps = [(1 << 4 * i) - 1 for i in range(4)]  # each 4 bits from the one before, and 8 from the next but one
    falling = looking(steps, width=[4, 3, 2, 1], height=[1] * 4)
    assert verdict(run_grouping(SameLook(), falling)) == {key(1): key(0), key(2): key(1), key(3): key(2)}
    valley = looking(steps, width=[3, 1, 2, 4], height=[1] * 4)
    assert verdict(run_grouping(SameLook(), valley)) == {key(1): key(0), key(2): key(3)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distance", [0, 2, 6, 9])
def test_verdicts_are_those_of_comparing_every_pair(seed, distance):
    rows = crowd(seed)
    expected = pair_by_pair(rows, near(distance), by_size)
    assert expected
    assert verdict(run_grouping(SameLook(distance=distance), rows)) == expected


@pytest.mark.parametrize("stage", [*STAGES, SameLook(distance=2), SameLook(keep="first")], ids=str)
def test_neither_parts_nor_buckets_change_what_is_kept(stage):
    rows = crowd(1)
    numbers = np.arange(len(rows)) % 40
    rows = rows.append_column("sha256", hashed(*map(str, numbers)))
    rows = rows.set_column(2, "url", pa.array([f"https://a.example/{n}" for n in numbers]))
    if stage.name == "duplicates-pair":
        rows = rows.set_column(0, rows.schema.field("key"), pa.array([key(n) for n in numbers.tolist()]))
    once = run_grouping(stage, rows)
    assert len(once.dropped) > 20
    for parts, buckets in ((1, 2), (4, 1), (7, 3), (2, 64), (150, 100)):
        again = run_grouping(stage, rows, parts=parts, buckets=buckets)
        assert again.kept.equals(once.kept)
        assert again.dropped.equals(once.dropped)


def test_the_order_of_the_rows_changes_nothing():
    rows = crowd(2)
    order = np.random.default_rng(0).permutation(len(rows))
    assert verdict(run_grouping(SameLook(), rows)) == verdict(run_grouping(SameLook(), rows.take(pa.array(order))))


@pytest.mark.parametrize("stage", STAGES, ids=str)
@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row_stay(stage, count):
    rows = looking(np.arange(count)).append_column("sha256", hashed(*["a"] * count))
    judged = run_grouping(stage, rows)
    assert judged.kept.equals(rows)
    assert judged.dropped.schema == DROPPED


@pytest.mark.parametrize("stage", STAGES, ids=str)
@pytest.mark.parametrize("buckets", [1, 8])
def test_ten_thousand_equal_rows_become_one(stage, buckets):
    count = 10_000
    rows = looking(np.full(count, 7), np.full(count, 7), url=["https://a.example/1"] * count)
    rows = rows.append_column("sha256", hashed(*["a"] * count))
    if stage == SamePair():
        rows = rows.set_column(0, rows.schema.field("key"), pa.array([key(0)] * count))
    judged = run_grouping(stage, rows, parts=3, buckets=buckets)
    assert judged.kept["key"].to_pylist() == [key(0)]
    assert set(judged.dropped["value"].to_pylist()) == {key(0)}


def test_there_are_more_buckets_only_when_one_would_not_fit():
    assert [SamePair().buckets(n) for n in (0, 1, 2_000_000, 2_000_001)] == [1, 1, 1, 2]
    look = SameLook(distance=6)
    assert [look.buckets(n) for n in (0, 1_000_000)] == [1, 1]
    assert look.buckets(1_000_001) == 8  # 2 hashes, 7 bands each
    assert duplicates.ROWS_OF_BUCKET == 2_000_000


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        (SameLook, {"distance": 16}, r"distance must be 0 to 15 of 64 bits"),
        (SameLook, {"keep": "best"}, r"duplicates-look.keep must be 'largest' or 'first'\. Got 'best'"),
        (SamePair, {"texts": "two"}, r"duplicates-pair.texts must be 'all' or 'one'\. Got 'two'"),
    ],
)
def test_options_that_cannot_be_are_refused(stage, options, message):
    with pytest.raises(ConfigError, match=message):
        stage(**options)
