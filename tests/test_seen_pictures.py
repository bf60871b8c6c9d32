"""curate/seen_pictures.py: pictures of rows, decoded ahead."""

import pyarrow as pa
from PIL import Image

from conftest import png
from diptych.curate import seen_pictures
from diptych.curate.seen_pictures import model_of, seen, unreadable
from diptych.errors import ImageError
from diptych.rows.stage import DROPPED
from pair_tables import pairs_of


def test_pictures_come_in_order_and_what_cannot_be_read_in_its_place():
    pictures = [png(Image.new("RGB", (n, 2))) for n in (1, 2, 3)]
    rows = pairs_of(*"abcde", picture=[pictures[0], b"bad", None, *pictures[1:]])
    results = list(seen(rows, lambda picture: picture.width, ahead=1))
    assert [one for one in results if isinstance(one, int)] == [1, 2, 3]
    bad = [(row, one) for row, one in enumerate(results) if isinstance(one, ImageError)]
    assert [row for row, _ in bad] == [1, 2]
    ledger = unreadable(rows["key"], bad)
    assert ledger.schema == DROPPED
    assert ledger["key"].to_pylist() == rows["key"].take(pa.array([1, 2])).to_pylist()
    assert ledger["cause"].to_pylist() == ["not an image", "empty"]
    assert unreadable(rows["key"], []).schema == DROPPED


def test_a_model_is_loaded_once(monkeypatch):
    loads = []
    monkeypatch.setattr(seen_pictures, "load", lambda name: loads.append(name) or object())
    model_of.cache_clear()
    assert model_of("some") is model_of("some")
    assert loads == ["some"]
    model_of.cache_clear()
