"""curate/write_shards.py: what is left becomes shards that others read."""

import io

import pytest
from PIL import Image

from diptych.curate.write_shards import ending_of, sample_parts


@pytest.mark.parametrize(
    ("kind", "ending"),
    [(kind, kind.lower()) for kind in ("PNG", "WEBP", "GIF", "BMP", "AVIF")] + [("JPEG", "jpg"), ("TIFF", "tif")],
)
def test_a_member_is_named_by_what_its_bytes_are(kind, ending):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, kind)
    assert ending_of(buffer.getvalue()) == ending


def test_a_sample_tells_where_it_is_from_and_nothing_that_it_lacks():
    row = {"key": "k", "text": "a dog\nein Hund", "picture": b"\xff\xd8\xff", "url": "https://é.example", "page": None}
    assert sample_parts(row) == {
        "jpg": b"\xff\xd8\xff",
        "txt": b"a dog\nein Hund",
        "json": '{"url": "https://é.example"}'.encode(),
    }
