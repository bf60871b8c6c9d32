"""crawl/web.py: pages of WARC and WAT files as rows."""

import collections
import gzip
import io
import random
import zlib

import pytest

pytest.importorskip("fastwarc")
pytest.importorskip("selectolax")

from diptych.crawl.collected import Collected
from diptych.crawl.picture_tags import PageRules
from diptych.crawl.web import read_warc, read_wat
from diptych.errors import DataError
from diptych.rows.columns import pair_key
from diptych.rows.stage import Judged
from warcs import PAGE, answer, warc, wat

BODY = '<html lang="de-AT"><img src="a.jpg" alt="ein Hund"><img src="b.jpg"></html>'


def rows(content: bytes, reader=read_warc, **rules) -> Judged:
    collected = Collected(3)
    reader(io.BytesIO(content), "crawl.warc.gz", collected, PageRules(**rules))
    return collected.judged()


def causes(judged: Judged) -> dict[str, int]:
    return dict(collections.Counter(judged.dropped["cause"].to_pylist()))


@pytest.mark.parametrize("packed", [True, False])
def test_each_tag_of_each_page_is_kept_or_dropped(packed):
    judged = rows(warc([answer(BODY), answer(BODY, url="https://other.example/")], gzip=packed))
    assert judged.kept["url"].to_pylist() == ["https://site.example/blog/a.jpg", "https://other.example/a.jpg"]
    first = judged.kept.to_pylist()[0]
    assert first["key"] == pair_key("https://site.example/blog/a.jpg", "ein Hund")
    assert (first["page"], first["language"], first["source"], first["place"]) == (PAGE, "de", 3, None)
    assert judged.dropped.to_pylist()[0] == {
        "key": pair_key("https://site.example/blog/b.jpg", ""),
        "cause": "no alt text",
        "value": None,
        "limit": None,
    }
    assert causes(judged) == {"no alt text": 2}


def test_pages_that_are_not_read_are_counted_with_their_address():
    judged = rows(
        warc(
            [
                answer(BODY, status="404 Not Found"),
                answer(BODY, status="301 Moved"),
                answer(b"\xff\xd8", ("Content-Type", "image/jpeg")),
                answer("plain words", ("Content-Type", "")),
                answer("<html>" + "x" * 5000),
            ]
        ),
        largest=4000,
    )
    assert len(judged.kept) == 0
    assert causes(judged) == {
        "page: status 404": 1,
        "page: status 301": 1,
        "page: not HTML": 2,
        "page: too large": 1,
    }
    assert set(judged.dropped["key"].to_pylist()) == {pair_key(PAGE, "")}


def test_a_page_without_a_type_is_read_when_it_looks_like_html():
    assert len(rows(warc([(PAGE, "200 OK", [], b"<!DOCTYPE html>" + BODY.encode())])).kept) == 1


def test_what_a_transfer_did_to_a_page_is_undone():
    page = BODY.encode()
    chunked = b"5;x=1\r\n" + page[:5] + b"\r\n%X\r\n" % len(page[5:]) + page[5:] + b"\r\n0\r\n\r\n"
    raw = zlib.compressobj(wbits=-15)
    bodies = {
        "gzip": gzip.compress(page),
        "deflate": zlib.compress(page),
        "deflate, raw": raw.compress(page) + raw.flush(),
        "gzip, that it is not": page,
        "br, that it is not": page,
        "identity": page,
    }
    answers = [answer(body, ("Content-Encoding", name.partition(",")[0])) for name, body in bodies.items()]
    answers += [answer(chunked, ("Transfer-Encoding", "chunked")), answer(page, ("Transfer-Encoding", "chunked"))]
    answers += [answer(gzip.compress(page + b"<p>" * 9000)[:-40], ("Content-Encoding", "gzip"))]  # cut short
    judged = rows(warc(answers))
    assert len(judged.kept) == len(answers)
    assert causes(judged) == {"no alt text": len(answers)}


def test_brotli_is_undone():
    brotli = pytest.importorskip("brotli")
    assert len(rows(warc([answer(brotli.compress(BODY.encode()), ("Content-Encoding", "br"))])).kept) == 1


def test_a_page_that_unpacks_without_end_is_too_large():
    bomb = gzip.compress(BODY.encode() + b" " * 10**7)
    assert causes(rows(warc([answer(bomb, ("Content-Encoding", "gzip"))]), largest=10**6)) == {"page: too large": 1}


def test_what_looks_encoded_and_is_not_is_counted():
    assert causes(rows(warc([answer(b"\x00\x01\x02" * 9, ("Content-Encoding", "br"))]))) == {
        "page: content encoding br": 1
    }


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_that_is_cut_short_keeps_what_was_whole_and_says_so(packed):
    whole = warc([answer(BODY + "<p>" * n, url=f"https://a.example/{n}") for n in range(9)], gzip=packed)
    for cut in range(len(whole) // 2, len(whole) - 4, 7):
        judged = rows(whole[:cut])
        said = causes(judged)
        assert 3 <= len(judged.kept) <= 9
        assert said.pop("no alt text") == len(judged.kept)
        assert sum(said.values()) <= 1
        assert all(cause.startswith(("page: ", "file: ")) for cause in said)


def test_a_damaged_file_keeps_what_stands_before_the_damage_and_tells_the_place():
    whole = warc([answer(BODY, url=f"https://a.example/{n}") for n in range(9)])
    middle = len(whole) // 2
    judged = rows(whole[:middle] + b"JUNK" * 100 + whole[middle:])
    assert 2 <= len(judged.kept) < 9
    (damage,) = (row for row in judged.dropped.to_pylist() if row["cause"] == "file: damaged")
    assert damage["value"].startswith(f"after {len(judged.kept)} records, behind that at byte ")
    assert causes(rows(b"no archive at all\n" * 50)) == {"file: damaged": 1}


def test_a_file_that_can_no_longer_be_read_is_an_error_and_no_early_end():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 1000:
                raise ConnectionResetError("reset by peer")
            return super().read(min(size, 500))

    content = warc([answer(BODY * 9, url=f"https://a.example/{n}") for n in range(50)])
    with pytest.raises(DataError, match=r"crawl\.warc cannot be read after \d+ records: .*reset by peer"):
        read_warc(Failing(content), "crawl.warc", Collected(0), PageRules())


def test_damage_and_failures_within_a_large_record_are_told_apart():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 100_000:
                raise RuntimeError("store gone")
            return super().read(min(size, 5000))

    draw = random.Random(0)
    noise = "".join(draw.choices("abcdefghij ", k=1_000_000))
    content = warc([answer(BODY, url="https://a.example/"), answer(f"<p>{noise}</p>{BODY}")])
    broken = content[:-150_000] + bytes(100) + content[-149_900:]
    judged = rows(broken)
    assert judged.kept["page"].to_pylist() == ["https://a.example/"]
    assert causes(judged)["page: record damaged"] == 1
    for reader, archive in ((read_warc, content), (read_wat, wat([(PAGE, TOLD | {"x": noise})] * 2))):
        with pytest.raises(DataError, match=r"crawl\.warc cannot be read after \d records: store gone"):
            reader(Failing(archive), "crawl.warc", Collected(0), PageRules())


def test_headers_opt_out_and_tell_the_language():
    noai = answer(BODY.replace(' lang="de-AT"', ""), ("X-Robots-Tag", "noai"), ("Content-Language", "fr"))
    other = answer(BODY.replace(' lang="de-AT"', ""), ("X-Robots-Tag", "otherbot: noai"), ("Content-Language", "fr"))
    judged = rows(warc([noai, other]))
    assert causes(judged) == {"page opts out: noai": 1, "no alt text": 2}
    assert judged.kept["language"].to_pylist() == ["fr"]
    assert len(rows(warc([noai]), opt_outs=()).kept) == 1


def test_a_page_seen_before_is_counted_and_a_resource_is_read():
    content = warc([answer(BODY)], gzip=False)
    assert causes(rows(content.replace(b"WARC-Type: response", b"WARC-Type: revisit"))) == {"page: seen before": 1}
    head, _, _ = content.rpartition(b"WARC/1.0\r\n")
    record = (
        f"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: <{PAGE}>\r\nContent-Type: text/html\r\n"
        f"WARC-Record-ID: <urn:uuid:1>\r\nWARC-Date: 2026-01-01T00:00:00Z\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
    )
    assert rows(head + record.encode() + b"\r\n\r\n").kept["page"].to_pylist() == [PAGE]


def test_broken_headers_stop_nothing():
    content = warc([answer(BODY), answer(BODY)], gzip=False)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8"
    judged = rows(content.replace(head, b"\x00" * len(head), 1))
    assert len(judged.kept) == 1
    assert causes(judged) == {"page: HTTP headers unreadable": 1, "no alt text": 1}


def test_any_changed_byte_of_a_file_is_survived():
    content = warc([answer(BODY, ("X-Robots-Tag", "a: b, c")), answer(BODY)], gzip=False)
    for place in range(0, len(content), 3):
        for byte in (0, 10, 58, 255):
            rows(content[:place] + bytes([byte]) + content[place + 1 :])


TOLD = {
    "Response-Message": {"Status": "200"},
    "Headers": {"Content-Type": "text/html", "Content-Language": "en"},
    "HTML-Metadata": {
        "Head": {
            "Base": "https://cdn.example/x/",
            "Metas": [{"name": "HTML@/lang", "content": "pt-BR"}],
            "Link": [{"path": "LINK@/href", "url": "/by/4.0/", "rel": "license"}],
        },
        "Links": [
            {"path": "IMG@/src", "url": "a.jpg", "alt": " um  cão "},
            {"path": "IMG@/src", "url": "b.jpg", "alt": ""},
            {"path": "IMG@/src", "url": "c.jpg", "title": "no alt"},
            {"path": "IMG@/src", "url": "data:image/gif;base64,R0l", "alt": "x"},
            {"path": "A@/href", "url": "d.jpg", "alt": "no picture"},
        ],
    },
}


def test_a_wat_file_gives_the_rows_of_its_pages():
    judged = rows(wat([(PAGE, TOLD)]), read_wat)
    assert judged.kept.to_pylist() == [
        {
            "key": pair_key("https://cdn.example/x/a.jpg", "um cão"),
            "text": "um cão",
            "url": "https://cdn.example/x/a.jpg",
            "place": None,
            "source": 3,
            "page": PAGE,
            "licence": "https://cdn.example/by/4.0/",
            "language": "pt",
            "width": None,
            "height": None,
            "listed_sha256": None,
        }
    ]
    assert causes(judged) == {"empty alt text": 1, "no alt text": 1, "data URL": 1}
    assert len(rows(wat([(PAGE, TOLD)]), read_wat, texts=("alt", "title")).kept) == 2


def test_a_wat_file_says_the_same_of_plain_pages_as_the_warc_file():
    tags = "".join(f'<img src="/{n}.jpg" alt="picture {n}">' for n in range(5))
    page = f'<html lang="en"><a rel="license" href="https://creativecommons.org/licenses/by/4.0/">CC</a>{tags}</html>'
    links = [{"path": "IMG@/src", "url": f"/{n}.jpg", "alt": f"picture {n}"} for n in range(5)]
    licence = {"path": "A@/href", "url": "https://creativecommons.org/licenses/by/4.0/", "rel": "license"}
    told = {
        "Response-Message": {"Status": "200"},
        "HTML-Metadata": {"Head": {"Metas": [{"name": "HTML@/lang", "content": "en"}]}, "Links": [licence, *links]},
    }
    assert rows(wat([(PAGE, told)]), read_wat).kept.equals(rows(warc([answer(page)])).kept)


def test_wat_pages_that_opt_out_or_are_none_are_counted():
    robots = {"Head": {"Metas": [{"name": "ROBOTS", "content": "index, NOIMAGEAI"}]}}
    opted = TOLD | {"HTML-Metadata": TOLD["HTML-Metadata"] | robots}
    header = TOLD | {"Headers": {"X-Robots-Tag": ["x", "noindex"]}}
    missing = {"Response-Message": {"Status": "404"}}
    no_html = {"Response-Message": {"Status": "200"}}
    judged = rows(wat([(PAGE, one) for one in (opted, header, missing, no_html, b"{not json")]), read_wat)
    found = causes(judged)
    assert found.pop("page opts out: noimageai") == 1
    assert found.pop("page opts out: noindex") == 1
    assert {cause: n for cause, n in found.items() if cause.startswith("page: ")} == {
        "page: status 404": 1,
        "page: not HTML": 1,
        "page: metadata unreadable": 1,
    }


@pytest.mark.parametrize(
    "told",
    [
        None,
        3,
        [],
        {"HTML-Metadata": {"Links": 3, "Head": [1]}},
        {"HTML-Metadata": {"Links": [1, None, {"path": 7}]}},
        {"HTML-Metadata": {"Links": [{"path": "IMG@/src", "url": 5, "alt": [1]}], "Head": {"Metas": [{"name": 4}]}}},
    ],
)
def test_metadata_of_another_shape_stops_nothing(told):
    assert len(rows(wat([(PAGE, told), (PAGE, TOLD)]), read_wat).kept) == 1
