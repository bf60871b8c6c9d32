"""captions/query_sources.py: where queries come from."""

import gzip
import math
import sys

import pytest

from diptych.captions.query_sources import packaged, titles, wordnet, words_and_bigrams
from diptych.errors import DataError, MissingExtraError


def test_words_and_bigrams_are_counted_and_scored(tmp_path):
    one, two = tmp_path / "a.txt", tmp_path / "b.txt.gz"
    one.write_text("New York, new ideas\nIn New York it's new.\nRock-'n'-roll in York\n", encoding="utf-8")
    two.write_bytes(gzip.compress(b"in new york", mtime=0))
    words, bigrams = words_and_bigrams([one, two], least=2, bigrams=10)
    # 15 words, of which new 5, york 4, in 3; 10 pairs of neighbours, of which "new york" 3, "in new" 2: a comma parts
    # the other "york" and "new".
    assert list(words.texts) == ["new", "york", "in"]
    assert list(bigrams.texts) == ["new york", "in new"]
    assert words.rule == "seen 2 times at least"
    lowest = math.log2(2 / 10 * 15 / 3 * 15 / 5)
    assert bigrams.rule == f"seen 2 times at least; mutual information from {lowest:.2f} bits on"


def test_bigrams_are_chosen_by_number_or_by_bits(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a b. a b. c d. a c. a c. a c.\n", encoding="utf-8")
    scores = {"a b": math.log2(2 / 6 * 12 / 5 * 12 / 2), "a c": math.log2(3 / 6 * 12 / 5 * 12 / 4)}
    assert scores["a b"] > 2 > scores["a c"]
    assert list(words_and_bigrams([path], least=2, bigrams=1)[1].texts) == ["a b"]
    assert list(words_and_bigrams([path], least=2, bigrams=9)[1].texts) == ["a b", "a c"]
    assert list(words_and_bigrams([path], least=2, pmi=2.0)[1].texts) == ["a b"]
    assert list(words_and_bigrams([path], least=2, pmi=-9.0)[1].texts) == ["a b", "a c"]
    assert list(words_and_bigrams([path], least=9)[1].texts) == []


def test_no_line_is_lost_between_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("diptych.captions.query_sources._CHUNK", 2)
    path = tmp_path / "a.txt"
    path.write_text("a\nb\nc\nd\ne\n")
    assert list(words_and_bigrams([path], least=1)[0].texts) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    "content", [b"text", gzip.compress(b"golden dogs\n" * 99, mtime=0)[:-9], b"\x1f\x8b\x08\x00" + b"x" * 40]
)
def test_what_gzip_did_not_pack_whole_is_told(tmp_path, content):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.txt\.gz cannot be read: "):
        words_and_bigrams([path])


def test_words_beyond_the_number_wanted_are_left_out(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("b b b a a c c\n", encoding="utf-8")
    assert list(words_and_bigrams([path], least=1, words=2)[0].texts) == ["b", "a"]


def test_titles_come_by_views_of_all_files(tmp_path):
    table, dump = tmp_path / "views.tsv", tmp_path / "pageviews-20261101-000000.gz"
    table.write_text("Golden Retriever\t40\nRare\t3\nFile:Dog.jpg\t900\nDavid Bowie\t69\n", encoding="utf-8")
    lines = (
        "en Golden_Retriever 20 0\nen.m Golden_Retriever 15 0\nde Golden_Retriever 99 0\nen User_talk:X 900 0\nbad\n"
    )
    dump.write_bytes(gzip.compress(lines.encode()))
    found = titles([table, dump], least=70)
    assert list(found.texts) == ["Golden Retriever"]
    assert list(titles([table, dump], least=60).texts) == ["Golden Retriever", "David Bowie"]
    assert list(titles([dump], least=70, wiki="de").texts) == ["Golden Retriever"]


def test_a_file_without_titles_is_told(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("just text\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"must have lines of a title, a tab and its views"):
        titles([path])


def write_wordnet(folder, **lemmas):
    for name in ("noun", "verb", "adj", "adv"):
        lines = [f"{lemma} {name[0] if name != 'adv' else 'r'} 1 0 1 0 00001740  " for lemma in lemmas.get(name, ["x"])]
        (folder / f"index.{name}").write_text("  1 This software is provided\n" + "\n".join(lines) + "\n")


def test_wordnet_gives_its_lemmas_once_each(tmp_path):
    write_wordnet(tmp_path, noun=["golden_retriever", "run"], verb=["run", "sit"])
    assert list(wordnet(tmp_path).texts) == ["golden retriever", "run", "sit", "x"]


def test_what_is_no_wordnet_is_told(tmp_path):
    with pytest.raises(DataError, match=r"index\.noun cannot be read"):
        wordnet(tmp_path)
    write_wordnet(tmp_path)
    (tmp_path / "index.verb").write_text("run\n")
    with pytest.raises(DataError, match=r"index\.verb must be an index of WordNet's"):
        wordnet(tmp_path)


@pytest.fixture(scope="module")
def of_packages():
    return packaged()


def test_packages_give_words_bigrams_and_cities_best_first(of_packages):
    words, bigrams, cities = of_packages
    assert (len(words.texts), len(bigrams.texts)) == (251_465, 100_646)
    assert words.texts[0] == "the"
    assert cities.texts[0] == "Shanghai"
    assert "CC BY-SA 4.0" in words.licence
    assert "CC BY 4.0" in cities.licence


def test_fewer_words_and_more_bits_are_the_best_of_more(of_packages):
    words, bigrams, _ = packaged(words=100, pmi=10.0)
    assert list(words.texts) == list(of_packages[0].texts[:100])
    assert 0 < len(bigrams.texts) < 100_646
    assert list(bigrams.texts) == list(of_packages[1].texts[: len(bigrams.texts)])
    assert bigrams.rule == "mutual information from 10.00 bits on"
    assert "mutatis mutandis" in bigrams.texts
    assert "of the" not in bigrams.texts


def test_a_package_that_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordsegment", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diptych\[queries\]'"):
        packaged()
