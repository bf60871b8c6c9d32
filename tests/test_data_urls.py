import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.errors import ImageError
from diptych.serve.data_urls import is_url, picture_bytes


@given(st.binary(min_size=1, max_size=200))
def test_every_spelling_of_base64_gives_the_file(data: bytes):
    plain = base64.b64encode(data).decode()
    wrapped = "\r\n".join(plain[i : i + 7] for i in range(0, len(plain), 7))
    url_safe = base64.urlsafe_b64encode(data).decode().rstrip("=")
    for text in (plain, wrapped, url_safe, f"data:image/png;base64,{plain}", f"DATA:;BASE64,{plain}"):
        assert picture_bytes(text) == data
    assert picture_bytes(f"data:image/svg+xml;charset=utf-8;base64,{plain}") == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:image/png,%89PNG", "a data URL must say base64"),
        ("data:no comma", "a data URL must say base64"),
        ("this is no picture!", "a picture must be base64. Got 'this is no picture!'"),
        ("a", "a picture must be base64"),  # six bits are no byte
        ("", "is empty"),
        ("data:image/png;base64,", "is empty"),
        ("ab\x00cd", "must be base64"),
        ("änderung", "must be base64"),
    ],
)
def test_what_is_no_file_is_refused(text: str, message: str):
    with pytest.raises(ImageError, match=message):
        picture_bytes(text)


def test_urls_are_told_from_pictures():
    urls = ["https://example.org/a.png", "file:///etc/passwd", "HTTP://x", "ftp:x"]
    pictures = ["data:image/png;base64,AAAA", "Data:;base64,AAAA", "iVBORw0KGgo=", "", "/9j/4AAQ"]
    assert [is_url(text) for text in urls + pictures] == [True] * 4 + [False] * 5
