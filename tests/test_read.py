"""crawl/read.py: sources of pairs, cut into pieces and read."""

import collections
import csv
import dataclasses
import json
import os
import pickle
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("fastwarc")
pytest.importorskip("selectolax")

from conftest import drawing, png
from diptych.config import from_dict, to_dict
from diptych.crawl.read import PairSource, Piece, check, fingerprint, pieces, read_piece, sample_address
from diptych.errors import ConfigError, DataError
from diptych.pairs.shards import ShardWriter
from diptych.rows.columns import PAIRS, pair_key
from diptych.rows.stage import DROPPED, Judged
from test_source_files import in_memory, served
from warcs import answer, warc, wat

PICTURE = png(drawing("red", "cross", 10))
BODY = '<html lang="de"><img src="a.jpg" alt="ein Hund"><img src="b.jpg"></html>'
TOLD = {"HTML-Metadata": {"Links": [{"path": "IMG@/src", "url": "/w.jpg", "alt": "a wat"}]}}


def table_of(count: int) -> str:
    return "url,text\n" + "".join(f"https://a.example/{n},text {n}\n" for n in range(count))


def read(sources: list[PairSource], part_rows: int = 1000) -> Judged:
    """All pieces, one after the other."""
    judged = [read_piece(piece, sources) for piece in pieces(sources, part_rows)]
    kept = pa.concat_tables([PAIRS.empty_table(), *(one.kept for one in judged)])
    return Judged(kept=kept, dropped=pa.concat_tables([DROPPED.empty_table(), *(one.dropped for one in judged)]))


def causes(judged: Judged) -> dict[str, int]:
    return dict(collections.Counter(judged.dropped["cause"].to_pylist()))


@pytest.fixture
def crawl(tmp_path) -> Path:
    folder = tmp_path / "crawl"
    (folder / "warc").mkdir(parents=True)
    (folder / "wat").mkdir()
    for n in (10, 9):
        content = warc([answer(BODY, url=f"https://a{n}.example/")])
        (folder / "warc" / f"{n}.warc.gz").write_bytes(content)
        (folder / "wat" / f"{n}.warc.wat.gz").write_bytes(wat([(f"https://a{n}.example/", TOLD)]))
    return folder


def test_kinds_are_told_by_the_files(crawl, tmp_path, pair_shards):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "part.jsonl").write_text('{"url": "https://a.example/1", "text": "x"}\n')
    (tmp_path / "p.csv").write_text("file_name,text\na.png,a cross\n")
    paths = [crawl / "warc", crawl / "wat", tmp_path / "t", tmp_path / "p.csv", pair_shards, "embedded:twemoji"]
    kinds = [pieces([PairSource(path=str(path))], 10**6)[0].kind for path in paths]
    assert kinds == ["warc", "wat", "table", "pairs", "pairs", "pairs"]
    (tmp_path / "three.tsv").write_text("a dog\thttps://a.example/1\ten\n")
    with pytest.raises(ConfigError, match="If it is a table of addresses, set kind to table in the source"):
        pieces([PairSource(path=str(tmp_path / "three.tsv"))], 10)
    with pytest.raises(ConfigError, match=r"three\.tsv has no header, and 3 columns"):
        pieces([PairSource(path=str(tmp_path / "three.tsv"), kind="table")], 10)
    with pytest.raises(ConfigError, match="WARC and WAT files, which tell of the same pages"):
        pieces([PairSource(path=str(crawl))], 10)
    assert [p.kind for p in pieces([PairSource(path=str(crawl), kind="wat")], 10)] == ["wat", "wat"]
    with pytest.raises(DataError, match=r"must hold files of the kind table \(\.csv, .*It has none"):
        pieces([PairSource(path=str(crawl), kind="table")], 10)


def test_pieces_stand_in_the_order_of_sources_files_and_rows(crawl, tmp_path):
    (tmp_path / "t.csv").write_text(table_of(5))
    sources = [PairSource(path=str(tmp_path / "t.csv")), PairSource(path=f"{crawl}/warc/*.warc.gz")]
    found = pieces(sources, 2)
    assert [(p.source, p.name) for p in found] == [(0, "t.csv")] * 3 + [(1, "9.warc.gz"), (1, "10.warc.gz")]
    assert pieces(sources, 2) == found
    assert pickle.loads(pickle.dumps(found)) == found
    judged = read(sources, 2)
    assert judged.kept["text"].to_pylist() == [f"text {n}" for n in range(5)] + ["ein Hund"] * 2
    assert judged.kept["source"].to_pylist() == [0] * 5 + [1] * 2
    assert causes(judged) == {"no alt text": 2}
    assert read(sources, 3).kept.equals(judged.kept)


def test_what_a_source_says_goes_to_the_rows_that_say_none(crawl):
    source = PairSource(path=str(crawl / "wat"), licence="CC0", language="en", texts=("alt", "title"))
    (first, _) = read([source]).kept.to_pylist()
    assert (first["licence"], first["language"], first["text"]) == ("CC0", "en", "a wat")
    warcs = read([PairSource(path=str(crawl / "warc"), language="en")])
    assert warcs.kept["language"].to_pylist() == ["de", "de"]


def test_pages_are_read_by_the_rules_of_their_source(tmp_path):
    page = "<meta name=robots content=noai><figure><img src=a><figcaption>a dog</figcaption></figure>"
    (tmp_path / "a.warc").write_bytes(warc([answer(page), answer("<p>" * 1000)], gzip=False))
    path = str(tmp_path / "a.warc")
    assert causes(read([PairSource(path=path)])) == {"no alt text": 1}
    assert causes(read([PairSource(path=path, texts=("figcaption",))])) == {"page opts out: noai": 1}
    judged = read([PairSource(path=path, texts=("figcaption",), opt_outs=(), page_mb=0.002)])
    assert (judged.kept["text"].to_pylist(), causes(judged)) == (["a dog"], {"page: too large": 1})


def test_samples_of_shards_keep_their_place_and_a_key_that_does_not_move(pair_shards, tmp_path):
    source = PairSource(path=str(pair_shards))
    judged = read([source], 7)
    assert judged.kept["place"].to_pylist() == list(range(40))
    assert judged.kept["url"].null_count == 40
    text = "red square\na drawing of a red square"
    assert judged.kept["text"].to_pylist()[0] == text
    assert judged.kept["key"].to_pylist()[0] == pair_key(f"pairs:{pair_shards.name}/000", text)
    assert len(set(judged.kept["key"].to_pylist())) == 40
    moved = tmp_path / "elsewhere" / pair_shards.name
    shutil.copytree(pair_shards, moved)
    again = [PairSource(path=str(moved))]
    assert read(again, 40).kept["key"].equals(judged.kept["key"])
    assert fingerprint(pieces(again, 7), again) == fingerprint(pieces([source], 7), [source])


def test_folders_and_tables_of_pictures_are_pairs(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.png").write_bytes(PICTURE)
    (folder / "a.txt").write_text("a red  cross\nin the middle\n")
    (folder / "b.txt").write_bytes(b"caf\xe9")
    judged = read([PairSource(path=str(folder))])
    assert judged.kept["text"].to_pylist() == ["a red cross\nin the middle"]
    assert judged.dropped.to_pylist() == [
        {"key": pair_key(f"pairs:pictures/{name}.png", ""), "cause": cause, "value": None, "limit": None}
        for name, cause in (("b", "caption not UTF-8"), ("c", "no caption"))
    ]
    table = pa.table({"image": [{"bytes": PICTURE, "path": "x"}] * 3, "caption": ["one", None, "three"]})
    pq.write_table(table, tmp_path / "pictures.parquet", row_group_size=2)
    judged = read([PairSource(path=str(tmp_path / "pictures.parquet"))], 1)
    assert judged.kept["place"].to_pylist() == [0, 2]
    assert causes(judged) == {"no caption": 1}


def test_samples_of_a_lost_shard_are_counted(tmp_path):
    with ShardWriter(tmp_path / "s", samples_per_shard=2) as writer:
        for n in range(4):
            writer.add(f"{n}", {"png": PICTURE, "txt": f"thing {n}".encode()})
    sources = [PairSource(path=str(tmp_path / "s"))]
    found = pieces(sources, 4)
    shard = tmp_path / "s" / "shard-00001.tar"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    judged = read_piece(found[0], sources)
    assert judged.kept["text"].to_pylist() == ["thing 0", "thing 1"]
    assert len(judged.dropped) == 2


def test_two_sources_of_pairs_need_names_of_their_own(pair_shards, tmp_path):
    shutil.copytree(pair_shards, tmp_path / pair_shards.name)
    sources = [PairSource(path=str(pair_shards)), PairSource(path=str(tmp_path / pair_shards.name))]
    with pytest.raises(ConfigError, match=r"sources 1 and 2 must have names of their own.*set name in one"):
        pieces(sources, 10)
    sources[1] = dataclasses.replace(sources[1], name="copy")
    keys = read(sources).kept["key"].to_pylist()
    assert len(set(keys)) == 80
    assert sample_address(sources[1], "000") == "pairs:copy/000"
    assert PairSource(path="x/y/train-*.tar").own_name == "y/train-*.tar"


def test_a_fingerprint_changes_with_files_and_options_and_not_with_the_place(tmp_path):
    def marked(path: Path, **options) -> str:
        sources = [PairSource(path=str(path), **options)]
        return fingerprint(pieces(sources, 3), sources)

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text(table_of(5))
        os.utime(tmp_path / name / "t.csv", ns=(10**9, 10**9))
    first = marked(tmp_path / "one")
    assert marked(tmp_path / "two") == first
    assert marked(tmp_path / "two", licence="CC0") != first
    os.utime(tmp_path / "two" / "t.csv", ns=(10**9, 2 * 10**9))
    assert marked(tmp_path / "two") != first
    (tmp_path / "one" / "u.csv").write_text(table_of(1))
    assert marked(tmp_path / "one") != first


def test_a_file_or_a_folder_that_changed_after_planning_is_not_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(table_of(5))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "a.txt"):
        (folder / name).write_bytes(PICTURE if name == "a.png" else b"a cross")
    sources = [PairSource(path=str(path)), PairSource(path=str(folder))]
    table, pictures = pieces(sources, 10)
    path.write_text(table_of(6))
    (folder / "b.png").write_bytes(PICTURE)
    for piece in (table, pictures):
        with pytest.raises(DataError, match="must stay as it was when the run began, and has changed"):
            read_piece(piece, sources)


def test_what_is_assumed_is_said(tmp_path, pair_shards):
    (tmp_path / "cc.tsv").write_text("a bus station\thttp://a.example/1.jpg\n")
    said = check([PairSource(path=str(tmp_path / "cc.tsv")), PairSource(path=str(pair_shards))])
    assert said == ["cc.tsv has no header: column 2 holds the addresses, column 1 the texts."]


def test_all_kinds_are_read_from_a_store_and_a_web_server(crawl, tmp_path):
    table = pa.table({"url": [f"https://a.example/{n}" for n in range(50)], "text": ["x"] * 50})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=7)
    (tmp_path / "t.csv").write_text(table_of(50))
    shutil.copy(crawl / "warc" / "9.warc.gz", tmp_path)
    names = ["t.parquet", "t.csv", "9.warc.gz"]
    local = read([PairSource(path=str(tmp_path / name)) for name in names], 8)
    assert len(local.kept) == 101
    with in_memory({name: (tmp_path / name).read_bytes() for name in names}) as url:
        sources = [PairSource(path=f"{url}/{name}") for name in names]
        assert read(sources, 8).kept.equals(local.kept)
        assert fingerprint(pieces(sources, 8), sources) == fingerprint(pieces(sources, 8), sources)
        whole = pieces([PairSource(path=f"{url}/*.csv")], 8)
        assert [piece.name for piece in whole] == ["t.csv"] * 7
    for knows_ranges in (True, False):
        with served(tmp_path, knows_ranges=knows_ranges) as url:
            sources = [PairSource(path=f"{url}/{name}") for name in names]
            assert read(sources, 8).kept.equals(local.kept)
            assert read(sources, 8).dropped.equals(local.dropped)


def test_options_are_those_of_a_recipe(tmp_path):
    source = PairSource(path="x.csv", texts=("alt", "title"), header=("a", "b"))
    assert from_dict(PairSource, json.loads(json.dumps(to_dict(source)))) == source
    named = from_dict(PairSource, {"path": "x", "columns": {"url": "link", "texts": ["words"]}}, where="sources")
    assert (named.columns.url, named.columns.texts) == ("link", ("words",))
    for options, message in (
        ({"texts": ["altt"]}, "sources.texts must be some of alt, title, figcaption. Got 'altt'"),
        ({"texts": []}, "sources.texts must name at least one"),
        ({"opt_outs": ["robots"]}, "sources.opt_outs must be some of noai"),
        ({"page_mb": 0}, "sources.page_mb must be above 0"),
        ({"path": ""}, "sources.path must be a file"),
        ({"separator": "::"}, "sources.separator must be one character"),
        ({"kind": "html"}, "sources.kind must be one of"),
    ):
        with pytest.raises(ConfigError, match=message):
            from_dict(PairSource, {"path": "x", **options}, where="sources")


def test_every_row_of_a_large_table_is_kept_or_dropped_whatever_the_cut(tmp_path):
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "caption"])
        for n in range(3000):
            writer.writerow(
                [f"https://a.example/{n}" if n % 7 else "", f'line one of {n}\nline "two", of {n}' if n % 5 else ""]
            )
    sources = [PairSource(path=str(path))]
    whole = read(sources, 10**6)
    assert len(whole.kept) + len(whole.dropped) == 3000
    for part_rows in (100, 999):
        parts = read(sources, part_rows)
        assert parts.kept.equals(whole.kept)
        assert parts.dropped.equals(whole.dropped)


def test_a_piece_is_plain_data():
    piece = Piece(source=0, kind="warc", file="a", name="a", mark="1")
    assert (piece.start, piece.stop) == (0, 0)
    assert hash(piece) == hash(pickle.loads(pickle.dumps(piece)))
