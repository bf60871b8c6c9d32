"""crawl/fetch.py: pictures from a server that does every bad thing, and from sources that hold them."""

import asyncio
import hashlib
import io
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bad_server import BadServer, serving
from diptych.crawl import fetch
from diptych.crawl.fetch import FetchPictures, summary
from diptych.crawl.fetch_options import Fetch
from diptych.data.decoding import decode
from diptych.errors import MissingExtraError
from diptych.pairs.shards import ShardWriter
from diptych.pairs.sources import Source
from diptych.rows.columns import PICTURE, pair_key, pairs_table
from diptych.rows.stage import DROPPED, CurateStage, Judged, Recut, Whole


def picture(kind: str = "JPEG", size: tuple[int, int] = (60, 40), **options) -> bytes:
    """Red on its left, blue on its right."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2, 0] = 255
    pixels[:, size[0] // 2 :, 2] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def sideways() -> bytes:
    """As phones write it: the picture lies on its side, and EXIF says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(exif=exif)


FILES = {
    "a.jpg": picture(),
    "b.png": picture("PNG"),
    "c.webp": picture("WEBP"),
    "ä ö.jpg": picture(size=(61, 40)),
    "phone.jpg": sideways(),
    "empty": b"",
    "text": b"no picture at all, and long enough to be looked at",
    "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "head.png": picture("PNG")[:20],
    "cut.webp": picture("WEBP")[:-30],
}
QUICK = {"back_off": 0.001, "seconds_silent": 20.0, "seconds": 40.0}  # other tests may have the cores


@pytest.fixture(scope="module")
def server() -> Iterator[BadServer]:
    with serving(BadServer(FILES)) as one:
        yield one


def rows_of(urls: list[str | None], **columns) -> pa.Table:
    rows = [{"key": pair_key(str(url), str(i)), "text": str(i), "url": url, "source": 0} for i, url in enumerate(urls)]
    return pairs_table([row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(rows)])


def fetched(server: BadServer, paths: list[str], **options) -> Judged:
    rows = rows_of([path if "//" in path else f"http://127.0.0.1:{server.port}{path}" for path in paths])
    values = QUICK | {"allow_hosts": (f"127.0.0.1:{server.port}",), "max_host_failures": 1000, **options}
    judged = FetchPictures(options=Fetch(**values)).apply(rows, Whole())
    assert len(judged.kept) + len(judged.dropped) == len(rows)
    return judged


def causes(server: BadServer, paths: list[str], **options) -> list[str]:
    judged = fetched(server, paths, **options)
    assert not len(judged.kept), judged.kept["url"]
    return judged.dropped["cause"].to_pylist()


def test_the_stage_is_one_whose_parts_are_cut_anew():
    stage = FetchPictures(options=Fetch(part_rows=7))
    assert isinstance(stage, CurateStage)
    assert isinstance(stage, Recut)
    assert stage.part_rows == 7


def test_pictures_come_with_their_bytes_as_they_are_and_in_the_order_of_the_rows(server):
    """What comes late keeps its place, and one address is asked for once, however many rows name it."""
    paths = ["/slow/a.jpg", "/file/b.png", "/status/404", "/file/c.webp", "/page", "/slow/a.jpg", "/file/b.png#part"]
    before = len(server.asked)
    judged = fetched(server, paths)
    names = ["a.jpg", "b.png", "c.webp", "a.jpg", "b.png"]
    assert judged.kept[PICTURE].to_pylist() == [FILES[name] for name in names]
    assert judged.kept["sha256"].to_pylist() == [hashlib.sha256(FILES[name]).hexdigest() for name in names]
    assert judged.kept["text"].to_pylist() == ["0", "1", "3", "5", "6"]
    assert judged.kept.schema.field(PICTURE).type == pa.binary()
    assert judged.dropped.schema == DROPPED
    assert judged.dropped["cause"].to_pylist() == ["http 404", "not an image"]
    assert Counter(server.asked[before:])["127.0.0.1/slow/a.jpg"] == 1


def test_a_part_without_rows_and_one_that_loses_all_have_the_same_columns(server):
    some = fetched(server, ["/file/a.jpg"]).kept.schema
    assert fetched(server, []).kept.schema == some
    assert fetched(server, ["/status/404"]).kept.schema == some


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/status/403", "http 403"),
        ("/status/404", "http 404"),
        ("/status/204", "http 204"),
        ("/status/206", "http 206"),
        ("/status/304", "http 304"),
        ("/status/302", "http 302"),  # without an address
        ("/always/429", "http 429"),
        ("/always/503", "http 503"),
        ("/endless", "too large"),
        ("/huge-length", "too large"),
        ("/bomb", "too large"),
        ("/short/a.jpg", "truncated"),
        ("/chunked-short/a.jpg", "truncated"),
        ("/reset/a.jpg", "truncated"),
        ("/reset", "connect"),
        ("/junk", "bad answer"),
        ("/big-head", "bad answer"),
        ("/many-headers", "bad answer"),
        ("/brotli/a.jpg", "content encoding"),
        ("/packed-how/a.jpg", "content encoding"),  # in bytes that are no text
        ("/page", "not an image"),
        ("/file/text", "not an image"),
        ("/file/empty", "empty"),
        ("/file/drawing.svg", "unsupported"),
        ("/file/head.png", "truncated"),
        ("/file/cut.webp", "truncated"),
        ("/circle", "redirect"),
        ("/far", "redirect"),
        ("/to/file:%2F%2F%2Fetc%2Fpasswd", "redirect"),
        ("/to/http:%2F%2F169.254.169.254%2Flatest", "private address"),
        ("/to/http:%2F%2F[::1]:80%2F", "private address"),
        ("/tag/X-Robots-Tag: noai/a.jpg", "opt-out"),
        ("/tag/tdm-reservation: 1/a.jpg", "opt-out"),
        ("http://10.0.0.1/a.jpg", "private address"),
        ("http://2130706433/a.jpg", "private address"),
        ("http://user:word@127.0.0.1/a.jpg", "bad address"),
        ("ftp://127.0.0.1//a.jpg", "bad address"),
        ("http:///a.jpg//", "bad address"),
        ("http://127.0.0.1:port//a.jpg", "bad address"),
        ("http://name.invalid/a.jpg", "dns"),
    ],
)
def test_each_bad_thing_is_dropped_with_its_cause_and_costs_no_other_row(server, path, cause):
    judged = fetched(server, ["/file/a.jpg", path, "/file/b.png"], retries=1, max_bytes=2_000_000)
    assert judged.dropped["cause"].to_pylist() == [cause]
    assert judged.kept["text"].to_pylist() == ["0", "2"]


@pytest.mark.parametrize("path", ["/silence", "/drip", "/drip-head"])
def test_no_server_holds_a_part_up_for_longer_than_it_may(server, path):
    rules = {"respect_robots": False, "respect_opt_out": False}
    assert causes(server, [path, path], seconds_silent=0.2, seconds=0.4, **rules) == ["timeout", "timeout"]


@pytest.mark.parametrize(
    "path",
    [
        *("/chunked/a.jpg", "/no-length/a.jpg", "/cookies/a.jpg", "/packed/a.jpg", "/lying-type/a.jpg"),
        *("/once/500/file/a.jpg", "/once/429/file/a.jpg", "/once/reset/file/a.jpg", "/to/%2Ffile%2Fa.jpg"),
        *("/to/%2Fto%2F%252Ffile%252Fa.jpg", "/tag/X-Robots-Tag: otherbot: noai/a.jpg", "/file/a.jpg?x=a b&y=%2C"),
    ],
)
def test_what_can_be_had_is_had(server, path):
    assert fetched(server, [path]).kept[PICTURE].to_pylist() == [FILES["a.jpg"]]


def test_an_address_is_sent_as_it_stands_and_what_is_no_ascii_is_quoted(server):
    assert len(fetched(server, ["/file/ä ö.jpg", "/file/a.jpg?sig=a%2fB%20c+d,e|f"]).kept) == 2
    assert "127.0.0.1/file/%C3%A4%20%C3%B6.jpg" in server.asked
    assert "127.0.0.1/file/a.jpg?sig=a%2fB%20c+d,e|f" in server.asked


def test_without_retries_nothing_is_asked_twice(server):
    before = len(server.asked)
    assert causes(server, ["/always/500"], retries=0, respect_robots=False, respect_opt_out=False) == ["http 500"]
    assert server.asked[before:] == ["127.0.0.1/always/500"]


def test_only_what_may_pass_is_asked_again(server):
    before = len(server.asked)
    causes(server, ["/always/500", "/status/404", "/page"], retries=2)
    count = Counter(server.asked[before:])
    assert [count[f"127.0.0.1{path}"] for path in ("/always/500", "/status/404", "/page")] == [3, 1, 1]


def test_a_server_may_ask_for_no_more_than_the_longest_wait():
    with serving(BadServer(FILES)) as server:
        judged = fetched(server, ["/always/429/3600", "/file/a.jpg"], max_wait=1.0, per_host=1, max_host_failures=10)
    gone = judged.dropped.to_pylist()
    assert [(row["cause"], row["value"]) for row in gone] == [
        ("http 429", "Retry-After 3600 s"),
        ("host gave up", None),
    ]
    assert server.asked.count("127.0.0.1/always/429/3600") == 1


def test_a_host_that_fails_time_and_again_is_left_alone(server):
    before = len(server.asked)
    paths = [f"/always/500?{number}" for number in range(20)]
    assert Counter(causes(server, paths, retries=0, per_host=1, max_host_failures=3)) == {
        "http 500": 3,
        "host gave up": 17,
    }
    assert sum("always" in path for path in server.asked[before:]) == 3


def test_no_host_gets_more_requests_at_once_than_it_should():
    with serving(BadServer(FILES)) as server:
        fetched(server, [f"/slow/a.jpg?{number}" for number in range(12)], per_host=2)
        assert server.most_at_once["127.0.0.1"] == 2


def test_there_are_no_more_connections_in_all_than_there_should_be():
    with serving(BadServer(FILES)) as server:
        fetched(server, [f"/slow/a.jpg?{number}" for number in range(12)], per_host=9, connections=3)
        assert server.most_at_once["127.0.0.1"] == 3


def test_parts_of_one_process_share_what_a_host_is_asked_and_leave_nothing_behind():
    """As the runner does it: threads judge the parts."""
    with serving(BadServer(FILES)) as server:
        before = threading.active_count()
        with ThreadPoolExecutor(4) as threads:
            paths = [[f"/slow/a.jpg?{part}-{number}" for number in range(6)] for part in range(4)]
            parts = list(threads.map(lambda some: fetched(server, some, per_host=3), paths))
        assert [len(part.kept) for part in parts] == [6] * 4
        assert server.most_at_once["127.0.0.1"] == 3
        assert fetch._NETWORKS == {}
        assert threading.active_count() == before


def test_who_we_are_is_said_and_nothing_of_this_machine(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    before = len(server.heads)
    fetched(server, ["/cookies/a.jpg", "/file/b.png"], contact="https://lab.example/crawl", per_host=1)
    for head in server.heads[before:]:
        assert "User-Agent: Mozilla/5.0 (compatible; diptych/" in head
        assert "+https://lab.example/crawl)" in head
        assert "Accept-Encoding: identity" in head
        assert "ookie" not in head.partition("\r\n")[2]


def test_a_picture_that_is_not_the_one_in_the_list_is_dropped_unless_it_is_wanted(server):
    url = f"http://127.0.0.1:{server.port}/file/a.jpg"
    right, wrong = hashlib.sha256(FILES["a.jpg"]).hexdigest(), "0" * 64
    rows = rows_of([url] * 3, listed_sha256=[right.upper(), wrong, None])
    options = Fetch(allow_hosts=(f"127.0.0.1:{server.port}",))
    judged = FetchPictures(options=options).apply(rows, Whole())
    assert judged.kept["text"].to_pylist() == ["0", "2"]
    assert judged.dropped.to_pylist()[0] == {
        "key": rows["key"][1].as_py(), "cause": "other bytes", "value": right, "limit": wrong
    }  # fmt: skip
    kept = Fetch(allow_hosts=options.allow_hosts, keep_other_bytes=True)
    assert len(FetchPictures(options=kept).apply(rows, Whole()).kept) == 3


def test_a_picture_on_its_side_keeps_its_bytes_or_comes_out_upright(server):
    """Left of the stored pixels is the top of the picture: red must be on top for who ignores EXIF, too."""
    (as_it_is,) = fetched(server, ["/file/phone.jpg"]).kept[PICTURE].to_pylist()
    assert as_it_is == FILES["phone.jpg"]
    turned, other = fetched(server, ["/file/phone.jpg", "/file/a.jpg"], reencode="sideways").kept[PICTURE].to_pylist()
    assert other == FILES["a.jpg"]
    plain = np.asarray(Image.open(io.BytesIO(turned)))
    assert plain.shape == (60, 40, 3)
    assert plain[5, 20, 0] > 200 > 50 > plain[5, 20, 2]
    assert np.abs(plain.astype(int) - np.asarray(decode(io.BytesIO(as_it_is), "a", 10**6)).astype(int)).mean() < 3


@pytest.mark.parametrize(("format_", "kind"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_pictures_are_made_anew_when_that_is_asked_for(server, format_, kind):
    paths = ["/file/phone.jpg", "/file/b.png"]
    judged = fetched(server, paths, reencode="all", format=format_, longest_side=30)
    made = [Image.open(io.BytesIO(data)) for data in judged.kept[PICTURE].to_pylist()]
    assert [(image.format, image.size) for image in made] == [(kind, (20, 30)), (kind, (30, 20))]
    digests = [hashlib.sha256(data).hexdigest() for data in judged.kept[PICTURE].to_pylist()]
    assert judged.kept["sha256"].to_pylist() == digests


def test_the_list_is_held_against_what_came_and_not_against_what_was_made_of_it(server):
    rows = rows_of([f"http://127.0.0.1:{server.port}/file/a.jpg"],
                   listed_sha256=[hashlib.sha256(FILES["a.jpg"]).hexdigest()])  # fmt: skip
    options = Fetch(allow_hosts=(f"127.0.0.1:{server.port}",), reencode="all", format="png")
    assert len(FetchPictures(options=options).apply(rows, Whole()).kept) == 1


def test_pictures_of_a_source_are_read_where_they_lie(tmp_path):
    with ShardWriter(tmp_path) as writer:
        for number, name in enumerate(("a.jpg", "phone.jpg", "text")):
            writer.add(f"{number}", {"jpg": FILES[name], "txt": b"a picture"})
    rows = rows_of([None] * 4, place=[1, 0, 2, 1], source=[1, 1, 1, 0])
    judged = FetchPictures(sources=(None, Source(path=str(tmp_path)))).apply(rows, Whole())
    assert judged.kept[PICTURE].to_pylist() == [FILES["phone.jpg"], FILES["a.jpg"]]
    assert judged.dropped["cause"].to_pylist() == ["not an image", "bad address"]


def test_without_the_extra_it_is_named(server, monkeypatch):
    monkeypatch.setattr("diptych.crawl.fetch.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"diptych\[curate\]"):
        fetched(server, ["/file/a.jpg"])


def test_it_works_where_an_event_loop_runs_already(server):
    async def in_a_notebook() -> Judged:
        return fetched(server, ["/file/a.jpg"])

    assert len(asyncio.run(in_a_notebook()).kept) == 1


def test_success_is_told_by_cause_and_by_host():
    rows = rows_of(["http://a.org/1", "http://A.org/2", "http://b.org/1", "https://b.org:8/2", "http://b.org/3", None])
    keys = rows["key"].to_pylist()
    gone = [(keys[0], "dns"), (keys[2], "http 404"), (keys[3], "http 404"), (keys[4], "timeout")]
    ledger = pa.Table.from_pylist([{"key": key, "cause": cause} for key, cause in gone], schema=DROPPED)
    told = summary([(rows, ledger)])
    assert (told.asked, told.fetched, dict(told.causes)) == (6, 2, {"http 404": 2, "dns": 1, "timeout": 1})
    assert [(host.host, host.asked, host.fetched, dict(host.causes)) for host in told.hosts] == [
        ("b.org", 3, 0, {"http 404": 2, "timeout": 1}),
        ("a.org", 2, 1, {"dns": 1}),
    ]
    assert [host.host for host in summary([(rows, ledger)], hosts=1).hosts] == ["b.org"]
    assert summary([]).asked == 0
