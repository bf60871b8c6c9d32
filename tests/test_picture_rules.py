"""curate/picture_rules.py: pictures by their size, form, bytes and detail."""

import pyarrow as pa
import pytest

from diptych.config import from_dict
from diptych.curate.picture_rules import PictureRules
from diptych.errors import ConfigError
from diptych.rows.stage import DROPPED, CurateStage, Whole
from pair_tables import pairs_of

NONE = {"min_side": None, "max_aspect": None, "min_bytes": None, "min_detail": None}


def described(*pictures):
    """Rows of (width, height, bytes, format, detail)."""
    names = ["width", "height", "bytes", "format", "detail"]
    types = [pa.int32(), pa.int32(), pa.int64(), pa.string(), pa.float32()]
    rows = pairs_of(*[f"picture {i}" for i in range(len(pictures))]).drop_columns(["width", "height"])
    for i, (name, kind) in enumerate(zip(names, types, strict=True)):
        rows = rows.append_column(name, pa.array([picture[i] for picture in pictures], kind))
    return rows


GOOD = (640, 480, 60_000, "jpeg", 40.0)


def causes(stage, *pictures):
    rows = described(*pictures)
    judged = stage.apply(rows, Whole())
    assert len(judged.kept) + len(judged.dropped) == len(rows)
    by_key = {row["key"]: row for row in judged.dropped.to_pylist()}
    return [by_key[key]["cause"] if key in by_key else None for key in rows["key"].to_pylist()]


def test_each_picture_falls_by_the_first_rule_that_it_breaks():
    pictures = [
        GOOD,
        (199, 480, 60_000, "jpeg", 40.0),
        (200, 600, 60_000, "jpeg", 40.0),  # on both limits
        (200, 601, 60_000, "jpeg", 40.0),
        (640, 480, 4_999, "png", 40.0),
        (640, 480, 60_000, "png", 0.2),  # blank
        (100, 900, 10, "png", 0.0),
    ]
    assert causes(PictureRules(), *pictures) == [None, "side", None, "aspect", "bytes", "detail", "side"]


@pytest.mark.parametrize(
    ("options", "picture", "cause", "value", "limit"),
    [
        ({"min_side": 200}, (640, 100, 1, "png", 0), "side", "640 x 100 px", "at least 200 px a side"),
        ({"max_side": 600}, (640, 100, 1, "png", 0), "side", "640 x 100 px", "at most 600 px a side"),
        ({"max_pixels": 9_000}, (100, 100, 1, "png", 0), "pixels", "10000 pixels", "at most 9,000 pixels"),
        ({"min_pixels": 2, "max_pixels": 5}, (1, 1, 1, "png", 0), "pixels", "1 pixels", "2 to 5 pixels"),
        ({"max_aspect": 2}, (100, 300, 1, "png", 0), "aspect", "3 times", "longer side at most 2 times the shorter"),
        ({"max_bytes": 9}, (1, 1, 10, "png", 0), "bytes", "10 bytes", "at most 9 bytes"),
        ({"formats": ("jpeg", "PNG")}, (1, 1, 1, "gif", 0), "format", "gif", "one of jpeg, PNG"),
        ({"min_detail": 2.5}, (1, 1, 1, "a", 1.25), "detail", "1.25 grey levels", "detail of at least 2.5 grey levels"),
        ({"max_pixels": 4_000_000_000}, (90_000, 90_000, 1, "a", 0), "pixels", "8100000000 pixels", None),
    ],
)
def test_what_was_measured_stands_beside_what_it_was_held_against(options, picture, cause, value, limit):
    judged = PictureRules(**(NONE | options)).apply(described(picture), Whole())
    assert judged.dropped.schema == DROPPED
    row = judged.dropped.to_pylist()[0]
    assert (row["cause"], row["value"]) == (cause, value)
    assert limit is None or row["limit"] == limit


def test_what_is_none_is_no_rule():
    assert causes(PictureRules(**NONE), (1, 900, 1, "odd", 0.0), (None, None, None, None, None)) == [None, None]
    assert causes(PictureRules(**NONE, formats=("Png",)), (1, 1, 1, "png", 0.0)) == [None]


def test_what_was_not_measured_is_dropped_by_the_rule_that_asks():
    assert causes(PictureRules(), (None, None, 60_000, "jpeg", 40.0), (640, 480, None, "jpeg", 40.0)) == [
        "side",
        "bytes",
    ]
    judged = PictureRules().apply(described((640, 480, 60_000, "jpeg", None)), Whole())
    assert judged.dropped["value"].to_pylist() == ["not known"]
    assert causes(PictureRules(), (0, 300, 60_000, "jpeg", 40.0)) == ["side"]


def test_no_row_at_all_is_judged():
    judged = PictureRules().apply(described(), Whole())
    assert (len(judged.kept), len(judged.dropped), judged.dropped.schema) == (0, 0, DROPPED)


def test_options_that_cannot_be_are_named():
    assert isinstance(from_dict(PictureRules, {"min_side": 64, "formats": ["jpeg"]}), CurateStage)
    with pytest.raises(ConfigError, match=r"min_side must be from 0 to max_side\. Got 200 and 100"):
        PictureRules(max_side=100)
    with pytest.raises(ConfigError, match=r"max_aspect must be at least 1"):
        PictureRules(max_aspect=0.3)
