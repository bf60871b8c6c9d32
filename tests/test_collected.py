"""crawl/collected.py: rows as they are read."""

from diptych.crawl import collected as module
from diptych.crawl.collected import (
    Collected,
    as_text,
    clean_text,
    fault_of,
    language_of,
    pixels_of,
    plain_address,
    sha256_of,
)
from diptych.rows.columns import PAIRS, pair_key
from diptych.rows.stage import DROPPED


def test_rows_keep_their_order_over_batches(monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 3)
    rows = Collected(2, licence="CC0", language="en")
    for n in range(10):
        rows.keep(f"https://a.example/{n}", "a dog", url=f"https://a.example/{n}", language="de" if n == 4 else None)
        rows.drop(f"https://a.example/x{n}", "", "no text", value="\udce9" * 300)
    judged = rows.judged()
    assert (judged.kept.schema, judged.dropped.schema) == (PAIRS, DROPPED)
    assert judged.kept["url"].to_pylist() == [f"https://a.example/{n}" for n in range(10)]
    assert judged.kept["language"].to_pylist() == ["de" if n == 4 else "en" for n in range(10)]
    assert set(judged.kept["licence"].to_pylist()) == {"CC0"}
    assert judged.dropped["key"].to_pylist()[9] == pair_key("https://a.example/x9", "")
    assert set(judged.dropped["value"].to_pylist()) == {"?" * 200}


def test_nothing_read_is_two_empty_tables():
    judged = Collected(0).judged()
    assert (len(judged.kept), judged.kept.schema, judged.dropped.schema) == (0, PAIRS, DROPPED)


def test_captions_are_clean_lines_each_once():
    assert as_text(["a  dog", "", " a dog\n", "runs\u2028on"]) == "a dog\nruns on"
    assert clean_text("پیاده\u200cرو 👩\u200d🚀") == "پیاده\u200cرو 👩\u200d🚀"  # joiners belong to words and signs
    assert clean_text("\ud83d \ufeffx\x9f") == "? x"


def test_addresses_of_the_web_are_told_from_others():
    good = ["http://a", "https://u:p@a.example:80/x?y#z", "HTTP://[::1]/x", "https://bücher.example/ä", "http://a:?x"]
    assert [fault_of(url) for url in good] == [None] * len(good)
    bad = ["http://", "https:///x", "http://[x/", "http://a[b]/", "a.jpg", "//a.example/x", "http://a:x/", "http:a"]
    assert [fault_of(url) for url in bad] == ["bad address"] * len(bad)
    others = ["javascript:void(0)", "blob:https://a", "file:///x", "c:\\x.jpg"]
    assert [fault_of(url) for url in others] == ["not http"] * len(others)
    assert fault_of("DATA:image/png;base64,x") == "data URL"


def test_addresses_lose_what_browsers_pass_over():
    assert plain_address(" https://a.example/a b\n\tc\x00.jpg?x y#z ") == "https://a.example/a%20bc.jpg?x%20y"
    assert plain_address("https://a.example/\ud83d") == "https://a.example/?"


def test_sides_are_pixels_or_nothing():
    texts = {"300": 300, " 12.7px ": 12, "50%": None, "": None, "-3": None, "1e3": None, "٣": None}
    assert {text: pixels_of(text) for text in texts} == texts
    numbers = [640, 640.9, float("nan"), float("inf"), -1, None, [3], 10**12]
    assert [pixels_of(number) for number in numbers] == [640, 640, *[None] * 6]


def test_languages_and_digests_are_what_they_say_or_nothing():
    tags = ["en", "EN-us", "zh_Hant", " pt ", "english", "", "en, de", "x", None, 5, "UNKNOWN"]
    assert [language_of(tag) for tag in tags] == ["en", "en", "zh", "pt", *[None] * 7]
    assert sha256_of("AB" * 32 + " ") == "ab" * 32
    assert [sha256_of(value) for value in ("ab", None, 5, "g" * 64)] == [None] * 4
