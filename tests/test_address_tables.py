"""crawl/address_tables.py: tables of addresses and texts."""

import collections
import csv
import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diptych.crawl.address_tables import (
    AddressColumns,
    TableRules,
    cuts_of,
    layout_of,
    parquet_columns,
    read_parquet,
    read_text,
)
from diptych.crawl.collected import Collected
from diptych.errors import ConfigError, DataError
from diptych.rows.stage import Judged

ROWS = [{"url": f"https://a.example/{n}.jpg", "text": f'picture "{n}", here\nthere {"é" * (n % 3)}'} for n in range(50)]
HASH = "ab" * 32


def text_rows(content: bytes | str, name: str = "t.csv", *, part_rows: int = 1000, **rules) -> Judged:
    """What all pieces of a table of text give, one after the other."""
    file = io.BytesIO(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    layout = layout_of(file, name, TableRules(**rules))
    judged = []
    for start, stop in cuts_of(file, layout, part_rows):
        collected = Collected(0)
        read_text(file, name, layout, start, stop, collected)
        judged.append(collected.judged())
    return joined(judged)


def joined(judged: list[Judged]) -> Judged:
    return Judged(
        kept=pa.concat_tables([one.kept for one in judged]), dropped=pa.concat_tables([one.dropped for one in judged])
    )


def parquet(table: pa.Table, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer


def parquet_rows(
    table: pa.Table, start: int = 0, stop: int = 10**9, rules: TableRules | None = None, **options
) -> Judged:
    collected = Collected(0)
    read_parquet(parquet(table, **options), "t.parquet", rules or TableRules(), start, stop, collected)
    return collected.judged()


def causes(judged: Judged) -> dict[str, int]:
    return dict(collections.Counter(judged.dropped["cause"].to_pylist()))


def as_csv(rows: list[dict[str, str]], **options) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n", **options)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def test_pieces_of_any_size_give_the_rows_of_the_whole_in_their_order():
    tables = {
        "t.csv": as_csv(ROWS),
        "t.jsonl": "\n\n".join(json.dumps(row) for row in ROWS),
        "t.tsv": "url\ttext\n" + "\n".join(f"{row['url']}\t{row['text']!r}" for row in ROWS),
    }
    for name, content in tables.items():
        whole = text_rows(content, name)
        assert whole.kept["url"].to_pylist() == [row["url"] for row in ROWS]
        for part_rows in (1, 2, 3, 7, 49, 50, 51):
            parts = text_rows(content, name, part_rows=part_rows)
            assert parts.kept.equals(whole.kept)
            assert len(parts.dropped) == 0


def test_pieces_have_as_many_rows_as_was_asked_for():
    file = io.BytesIO(as_csv(ROWS).encode())
    layout = layout_of(file, "t.csv", TableRules())
    counts = []
    for start, stop in cuts_of(file, layout, 8):
        collected = Collected(0)
        read_text(file, "t.csv", layout, start, stop, collected)
        counts.append(len(collected.judged().kept))
    assert counts == [8] * 6 + [2]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("URL", "TEXT", "WIDTH", "HEIGHT", "similarity", "LICENSE", "LANGUAGE", "NSFW", "hash"), "laion"),
        (
            ("uid", "url", "text", "original_width", "original_height", "clip_b32_similarity_score", "sha256"),
            "datacomp",
        ),
        (("url", "caption", "key", "width", "height", "original_width", "original_height", "sha256"), "img2dataset"),
    ],
)
def test_columns_of_published_tables_are_known(columns, expected):
    values = {
        "similarity": 0.3,
        "LICENSE": "?" if expected == "laion" else "",
        "LANGUAGE": "en",
        "sha256": HASH,
        "hash": 12345,
    }
    row = {name: values.get(name, "a dog") for name in columns}
    row |= {name: "https://a.example/1.jpg" for name in columns if name.lower() == "url"}
    row |= {name: 512.0 for name in columns if name.lower() in ("width", "height")}
    row |= {name: 1024 for name in columns if name.startswith("original_")}
    judged = parquet_rows(pa.Table.from_pylist([row]))
    (kept,) = judged.kept.to_pylist()
    assert (kept["url"], kept["text"], kept["licence"]) == ("https://a.example/1.jpg", "a dog", None)
    assert kept["width"] == kept["height"] == (512 if expected == "laion" else 1024)
    assert kept["listed_sha256"] == (None if expected == "laion" else HASH)
    assert kept["language"] == ("en" if expected == "laion" else None)
    (again,) = text_rows(as_csv([row])).kept.to_pylist()
    assert again == kept


def test_a_table_without_a_header_is_known_by_its_addresses_and_that_is_said():
    cc3m = "a very typical bus station\thttp://a.example/1.jpg?x=1\nsierra looked stunning\thttp://a.example/2.jpg\n"
    cc12m = "http://a.example/1.jpg?x=1\ta very typical bus station\nhttp://a.example/2.jpg\tsierra looked stunning\n"
    for content, column in ((cc3m, 2), (cc12m, 1)):
        judged = text_rows(content, "Train_GCC.tsv", part_rows=1)
        assert judged.kept["text"].to_pylist() == ["a very typical bus station", "sierra looked stunning"]
        assert judged.kept["url"].to_pylist()[1] == "http://a.example/2.jpg"
        (note,) = layout_of(io.BytesIO(content.encode()), "Train_GCC.tsv", TableRules()).notes
        assert note.startswith(f"Train_GCC.tsv has no header: column {column} holds the addresses, column {3 - column}")
    assert layout_of(io.BytesIO(as_csv(ROWS).encode()), "t.csv", TableRules()).notes == ()


def test_what_a_table_without_a_header_holds_is_not_guessed():
    three = "http://a.example/1\ta dog\ten\n"
    with pytest.raises(ConfigError, match=r"no header, and 3 columns of which 1 hold.*header = \[\.\.\.\]"):
        text_rows(three, "t.tsv")
    two = "http://a.example/1\thttp://page.example/\n"
    with pytest.raises(ConfigError, match="2 columns of which 2 hold addresses"):
        text_rows(two, "t.tsv")
    judged = text_rows(three, "t.tsv", header=("url", "text", "lang"))
    assert judged.kept.to_pylist()[0]["language"] == "en"
    named = text_rows("url\ttext\tlang\n" + three, "t.tsv", header=("url", "text", "lang"))
    assert named.kept.equals(judged.kept)


def test_columns_are_named_by_the_source_and_a_wrong_name_is_told():
    table = pa.table({"link": ["https://a.example/1"], "words": ["a dog"], "text": ["other"], "by": ["CC0"]})
    rules = TableRules(columns=AddressColumns(url="link", texts=("words", "text"), licence="by"))
    (kept,) = parquet_rows(table, rules=rules).kept.to_pylist()
    assert (kept["text"], kept["licence"]) == ("a dog\nother", "CC0")
    with pytest.raises(ConfigError, match=r"t\.parquet: lnik is not a column. Did you mean link"):
        parquet_rows(table, rules=TableRules(columns=AddressColumns(url="lnik")))
    with pytest.raises(ConfigError, match=r"must have a column of addresses\. Name it in the source: columns\.url"):
        parquet_rows(table)
    with pytest.raises(ConfigError, match=r"must have a column of texts\. Name it in the source: columns\.texts"):
        text_rows("url,foo\nhttps://a.example/1,a dog\n")


def test_bad_rows_are_counted_with_causes_and_keys_of_their_own():
    content = (
        "url,text\nhttps://a.example/1,a dog\nhttps://a.example/2\nhttps://a.example/3,x,y\n,no address\n"
        "ftp://a.example/4,x\nhttps://a.example/5,\nhttps://a.example/6,caf\udce9\n\nhttps://a.example/7,last\n"
    )
    for part_rows in (1, 100):
        judged = text_rows(content, part_rows=part_rows)
        assert judged.kept["text"].to_pylist() == ["a dog", "last"]
        assert causes(judged) == {"bad row": 2, "no address": 1, "not http": 1, "no text": 1, "not UTF-8": 1}
        assert len(set(judged.dropped["key"].to_pylist())) == 6
        bad = judged.dropped.to_pylist()[0]
        assert (bad["value"], bad["limit"]) == ("1 columns", "2 columns")


def test_bad_lines_of_json_are_counted():
    lines = [
        '{"url": "https://a.example/1", "caption": ["a dog", "a dog runs"]}',
        "{broken",
        "[1]",
        '{"url": 5, "caption": "x"}',
        '{"caption": "x"}',
        '{"url": "https://a.example/2", "caption": null}',
        '{"url": "https://a.example/3", "caption": {"a": 1}}',
        '{"url": "https://a.example/4", "caption": "half \\ud83d a smile"}',
    ]
    judged = text_rows("\ufeff" + "\n".join(lines), "t.jsonl")
    assert judged.kept["text"].to_pylist() == ["a dog\na dog runs", "half ? a smile"]
    assert causes(judged) == {"bad row": 2, "no address": 2, "no text": 1, "text is no text": 1}


def test_text_that_is_none_is_refused():
    with pytest.raises(DataError, match=r"t\.csv must be UTF-8 text, and is UTF-16"):
        text_rows("url,text\nhttps://a.example/1,x\n".encode("utf-16"))


def test_rows_of_parquet_are_read_by_ranges_across_row_groups():
    table = pa.Table.from_pylist(ROWS)
    whole = parquet_rows(table)
    for size in (1, 7, 50):
        assert parquet_rows(table, row_group_size=size).kept.equals(whole.kept)
        for start, stop in ((0, 1), (6, 8), (13, 35), (49, 50), (50, 60)):
            part = parquet_rows(table, start, stop, row_group_size=size)
            assert part.kept.equals(whole.kept.slice(start, max(0, min(stop, 50) - start)))
    columns, rows = parquet_columns(parquet(table), "t.parquet", TableRules())
    assert (columns.url, columns.texts, rows) == ("url", ("text",), 50)


def test_other_types_of_parquet_columns_are_read():
    kinds = [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
    for kind in kinds:
        values = pa.array(["https://a.example/1", "https://a.example/2"]).cast(kind)
        texts = pa.array(["a dog", None]).cast(kind)
        judged = parquet_rows(pa.table({"url": values, "text": texts}))
        assert (judged.kept["text"].to_pylist(), causes(judged)) == (["a dog"], {"no text": 1})
    lists = pa.table({"url": ["https://a.example/1"], "captions": [["a dog", "a dog runs"]]})
    assert parquet_rows(lists).kept["text"].to_pylist() == ["a dog\na dog runs"]


def test_parquet_text_that_is_no_utf8_is_counted():
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"caf\xc3\xa9"]).buffers())
    judged = parquet_rows(pa.table({"url": ["https://a.example/1", "https://a.example/2"], "text": texts}))
    assert (judged.kept["text"].to_pylist(), causes(judged)) == (["café"], {"not UTF-8": 1})


def test_what_is_no_parquet_is_told():
    with pytest.raises(DataError, match=r"t\.parquet must be a Parquet file"):
        read_parquet(io.BytesIO(b"PAR1 no more"), "t.parquet", TableRules(), 0, 1, Collected(0))


def test_csv_is_cut_as_python_reads_it():
    draw = random.Random(0)
    bits = ["a", '"', ",", "\n", " ", "é", "dog", '""']
    for _ in range(60):
        rows = [
            {"url": f"https://a.example/{n}", "text": "x" + "".join(draw.choices(bits, k=draw.randrange(8))) + "y"}
            for n in range(12)
        ]
        content = as_csv(rows, quoting=csv.QUOTE_ALL)
        judged = text_rows(content, part_rows=draw.randrange(1, 13))
        assert judged.kept["url"].to_pylist() == [row["url"] for row in rows]
        assert judged.kept["text"].to_pylist() == [" ".join(row["text"].split()) for row in rows]
