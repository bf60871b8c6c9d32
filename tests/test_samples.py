import json

import pytest

from diptych.errors import DataError
from diptych.pairs.samples import Columns, Ledger, Members, Sample, as_lines, captions_of, texts_of


def shaped(parts: dict[str, bytes], *columns) -> tuple[bytes | None, list[str]]:
    sample = Sample("a", Members(*columns).shaped(parts))
    return sample.picture, captions_of(sample)


@pytest.mark.parametrize(
    ("parts", "columns", "captions"),
    [
        ({"jpg": b"P", "txt": b"one\ntwo", "json": b'{"caption": "no"}'}, (), ["one", "two"]),  # img2dataset
        ({"jpg": b"P", "json": b'{"caption": "one\\n two"}'}, (), ["one two"]),  # cc12m
        ({"image.png": b"P", "caption.txt": b"one", "cls": b"3"}, (), ["one"]),  # Hugging Face
        ({"seg.png": b"mask", "jpg": b"P", "caption": b"one"}, (), ["one"]),
        ({"jpeg": b"P", "json": b'{"texts": [["a", "one"], ["a", "2"]]}'}, ("image", ("json:texts",)), ["one", "2"]),
        ({"orig": b"P", "jpg": b"thumbnail", "alt": b"one"}, ("orig", ("alt",)), ["one"]),
        ({"jpg": b"P", "title.txt": b"one", "json": b'{"b": "two"}'}, ("jpg", ("title", "json:b")), ["one", "two"]),
        ({"jpg": b"P", "txt": "one".encode("utf-16")}, (), ["one"]),
    ],
)  # fmt: skip
def test_members_that_others_write_are_a_picture_and_captions(parts, columns, captions):
    assert shaped(parts, *columns) == (b"P", captions)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"{", "JSON unreadable"),
        (b'{"caption": 5}', "caption is no text"),
        (b'{"caption": "\\u0000"}', "caption not UTF-8"),
        (b'{"caption": "\\ud800"}', "caption not UTF-8"),
        (b'{"caption": null}', "no caption"),
        (b"[]", "no caption"),
    ],
)
def test_a_json_without_a_caption_says_why(content, cause):
    with pytest.raises(DataError, match=f"^{cause}$"):
        shaped({"jpg": b"P", "json": content})


def test_captions_are_the_lines_of_the_text():
    assert captions_of(Sample("a", {"txt": "a cat\r\n\n  un café \n".encode()})) == ["a cat", "un café"]
    assert captions_of(Sample("a", {"txt": b"\xef\xbb\xbfa cat"})) == ["a cat"]
    for parts in ({"png": b""}, {"txt": b" \n"}):
        with pytest.raises(DataError, match=r"^no caption$"):
            captions_of(Sample("a", parts))


def test_a_caption_of_a_table_is_one_line_and_comes_once():
    assert as_lines(["a\n b", "c\u2028d", "a b", ""]) == b"a b\nc d"


def test_values_that_hold_captions():
    assert texts_of(["a", None, {"raw": "b"}, ["en", "c"]]) == ["a", "b", "c"]
    assert texts_of(None) == []
    with pytest.raises(DataError, match=r"^caption is no text$"):
        texts_of(7)


def test_names_in_common_use_stand_for_the_defaults_alone():
    names = ["filepath", "title", "caption_length"]
    assert Columns("image", ("caption",), "").among(names) == Columns("filepath", ("title",), "")
    assert Columns("picture", ("alt",), "").among(names) == Columns("picture", ("alt",), "")
    assert Columns("image", ("caption",), "").among(["image", "file_name", "caption", "text"]) == Columns(
        "image", ("caption",), ""
    )


def test_a_ledger_accounts_for_every_member():
    ledger, members = Ledger(), Members()
    for parts in (["jpg", "txt"], ["jpg", "json"], ["jpg"], ["txt"], ["jpg", "txt", "xmp", "teacher-image.npy"]):
        ledger.add(parts, members)
    ledger.outside.update({"links": 2})
    assert (ledger.samples, ledger.paired, ledger.no_picture, ledger.no_caption) == (5, 3, 1, 1)
    assert json.dumps(ledger.sentences()) == json.dumps(
        [
            "the captions of 1 samples are a field of their JSON",
            "1 of 5 samples have no picture",
            "1 of 5 samples have no caption",
            "members that no rule reads: .xmp 1",
            "members of no sample: links 2",
        ]
    )
