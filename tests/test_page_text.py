"""crawl/page_text.py: bytes of a page as UTF-8."""

import codecs
import random

import pytest

from diptych.crawl.page_text import body_of, utf8_of

TEXT = "<p>Füße, kávé, naïve</p>"


@pytest.mark.parametrize(
    ("text", "codec", "header", "meta"),
    [
        (TEXT, "utf-8", "", ""),
        (TEXT, "utf-8", "text/html; charset=ISO-8859-1", ""),  # the bytes say more than the label
        (TEXT, "latin-1", 'text/html; charset="iso-8859-1"', ""),
        (TEXT, "latin-1", "", ""),
        ("<p>“quoted” €</p>", "cp1252", "text/html; charset=latin1", ""),
        ("<p>собака</p>", "cp1251", "text/html", '<meta charset="windows-1251">'),
        ("<p>собака</p>", "koi8-r", "text/html;charset=koi8-r", '<meta charset="utf-8">'),
        ("<p>犬と猫</p>", "cp932", "", '<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS">'),
        ("<p>犬と猫</p>", "iso-2022-jp", "text/html; charset=iso-2022-jp", ""),
        ("<p>狗和猫𠀀</p>", "gb18030", "", "<meta charset=gb2312>"),
        ("<p>개와 고양이</p>", "cp949", "text/html; charset=euc-kr", ""),
        (TEXT, "utf-16-le", "text/html; charset=utf-16le", ""),
        (TEXT, "utf-8", "", "<meta charset=utf-16>"),
    ],
)
def test_the_charset_is_that_of_the_header_the_meta_tag_or_the_bytes(text, codec, header, meta):
    assert utf8_of((meta + text).encode(codec), header).decode() == meta + text


@pytest.mark.parametrize(
    ("mark", "codec"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
)
def test_a_byte_order_mark_goes_before_all_else(mark, codec):
    content = mark + TEXT.encode(codec)
    assert utf8_of(content, "text/html; charset=koi8-r").decode().removeprefix("\ufeff") == TEXT


@pytest.mark.parametrize(
    "name", ["no-such-charset", "base64", "rot13", "utf-7", "idna", "punycode", "undefined", "hex"]
)
def test_names_that_are_none_and_broken_bytes_stop_nothing(name):
    draw = random.Random(0)
    for _ in range(50):
        content = draw.randbytes(draw.randrange(100))
        utf8_of(content, f"text/html; charset={name}").decode()
        utf8_of(f"<meta charset={name}>".encode() + content, "").decode()


def test_broken_bytes_become_replacement_characters():
    assert utf8_of(b"caf\xc3\xa9 \xff", "text/html; charset=utf-8").decode() == "café \ufffd"


def test_chunks_are_put_together_as_far_as_they_go():
    headers = [("transfer-encoding", "chunked")]
    whole = b"4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\n\r\n"
    assert body_of(whole, headers, 100) == b"abcdefg"
    assert body_of(whole[:9], headers, 100) == b"abcd"
    assert body_of(whole[:16], headers, 100).startswith(b"abcd")
    assert body_of(b"4\r\nabcd\r\nzz\r\n", headers, 100) == b"abcd"
    for plain in (b"", b"plain text", b"<p>\r\n", b"deadbeefdeadbeef\r\n", b"12 monkeys\r\n"):
        assert body_of(plain, headers, 100) == plain


def test_any_bytes_are_survived():
    draw = random.Random(1)
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, br", "nonsense"):
        for _ in range(50):
            content = draw.choice([b"", b"\x1f\x8b", b"\x78\x9c"]) + draw.randbytes(30)
            try:
                body_of(content, [("content-encoding", coding)], 1000)
            except ValueError as error:
                raise AssertionError(coding) from error
            except Exception as error:
                assert str(error).startswith("content encoding ")  # noqa: PT017
