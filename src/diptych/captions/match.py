"""Which queries a text matches, of a list of hundreds of thousands, by one of two rules.

`word`, as MetaCLIP does: spaces are put around , . ; : ? ! and `, and a query matches where its words follow one
another as whole words. Unlike there, queries are spaced as texts are ("st. louis" can match), runs of spaces count as
one, and case does not count, unless `lower` is off. `substring`, as CLIP, section 2.2, puts it: anywhere in the text,
also within a word, and so for languages that write no spaces; `Match.unspaced` names those of a pool of many.

By both a query matches within one line, which is one caption, and texts and queries are compared as `folded` has them.
Of queries that are the same then, the first is the one that matches.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.captions.queries import Queries, folded, read_queries
from diptych.errors import missing_extra
from diptych.files import sha256
from diptych.rows.stage import Judged, Whole

MatchRule = Literal["word", "substring"]
_SPACED = "([,.;:?!`])"
_WINDOW = 4096  # characters of a line that the automaton sees at a time: its matches come as a list


@dataclass(frozen=True, kw_only=True)
class Match:
    """Adds the column `queries`, and drops texts that match none.

    The numbers in it are places in `read_queries(queries).texts`.
    """

    name: ClassVar[str] = "match"
    queries: str  # path of the list
    rule: MatchRule = "word"
    lower: bool = True  # case does not count
    unspaced: tuple[str, ...] = ()  # languages that are matched by substring whatever the rule, as ("ja", "th", "zh")

    def files(self) -> tuple[str, ...]:
        """The list: another one gives other results."""
        return (self.queries,)

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        """Judge rows by their texts."""
        del whole
        queries = queries_of(self.queries)
        matches = self._matches(queries, rows)
        keep = pc.greater(pc.list_value_length(matches), 0)
        rows = rows.append_column("queries", matches)
        return Judged.by(rows, keep, "no query", limit=f"one of {queries.sentence}")

    def _matches(self, queries: Queries, rows: pa.Table) -> pa.Array:
        texts = rows["text"]
        inside = pc.fill_null(pc.is_in(rows["language"], pa.array(self.unspaced, pa.string())), False).to_numpy()
        if self.rule == "substring" or not inside.any():
            return _matcher(queries, self.rule, self.lower).match(texts)
        apart = [np.flatnonzero(~inside), np.flatnonzero(inside)]
        lists = [
            _matcher(queries, rule, self.lower).match(texts.take(pa.array(places)))
            for rule, places in zip(("word", "substring"), apart, strict=True)
        ]
        return pa.concat_arrays(lists).take(pa.array(np.argsort(np.concatenate(apart))))


def queries_of(path: str) -> Queries:
    """A list, read once a process as long as its bytes are the same.

    Raises:
        DataError: it cannot be read.
    """
    file = Path(path)
    return _read(file, sha256(file) if file.is_file() else "")


@functools.lru_cache(maxsize=2)
def _read(path: Path, digest: str) -> Queries:
    del digest  # part of the key
    return read_queries(path)


@functools.lru_cache(maxsize=2)
def _matcher(queries: Queries, rule: MatchRule, lower: bool) -> "Matcher":
    return Matcher(queries, rule=rule, lower=lower)


class Matcher:
    """A list of queries, ready to be looked for.

    Args:
        queries: the list.
        rule: `word` or `substring`.
        lower: case does not count.

    Raises:
        MissingExtraError: substrings are looked for and ahocorasick_rs is not installed.
    """

    def __init__(self, queries: Queries, *, rule: MatchRule = "word", lower: bool = True) -> None:
        self.size = len(queries.texts)
        self._lower = lower
        texts = folded(pa.array(queries.texts, pa.string()), lower=lower)
        self._finder = _Trie(texts) if rule == "word" else _Automaton(texts)

    def match(self, texts: Any) -> pa.Array:
        """The queries of each text.

        Args:
            texts: [N] of Arrow's string; null matches nothing.

        Returns:
            [N] lists of int32, ascending, each number once.
        """
        lists = [self._match_batch(batch) for batch in _batches(texts, self._finder.batch_bytes)]
        return pa.concat_arrays(lists) if lists else pa.array([], pa.list_(pa.int32()))

    def _match_batch(self, texts: pa.Array) -> pa.Array:
        captions = pc.split_pattern(folded(texts, lower=self._lower), "\n")
        text_of_line = pc.list_parent_indices(captions).to_numpy()
        lines, found = self._finder.find(pc.list_flatten(captions))  # [M], perhaps repeated: line and query of each
        pairs = np.sort(text_of_line[lines].astype(np.int64) * self.size + found)  # np.unique takes ten times as long
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        ends = np.searchsorted(pairs, np.arange(len(texts) + 1, dtype=np.int64) * self.size)
        numbers = (pairs % self.size).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(numbers))


def _batches(texts: Any, size: int) -> Iterator[pa.Array]:
    """Texts in runs of so many bytes, or of one text that alone has more."""
    ends = np.cumsum(pc.fill_null(pc.binary_length(texts), 0).to_numpy(), dtype=np.int64)
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + size, side="right")))
        batch = texts.slice(start, stop - start)
        yield batch.combine_chunks() if isinstance(batch, pa.ChunkedArray) else batch
        start = stop


def _words(lines: Any) -> pa.ListArray:
    """The words of folded lines."""
    return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pc.replace_substring_regex(lines, _SPACED, r" \1 ")))


@dataclass(frozen=True)
class _Level:
    """The nodes of the trie that so many words lead to, numbered by the order of `edges`."""

    edges: np.ndarray  # [n] int64, ascending: node one level up x number of words + word
    query: np.ndarray  # [n] int32: which ends here, or -1
    leads_on: np.ndarray  # [n] bool: longer queries go through here


class _Trie:
    """Queries by their words. All places of all lines walk down it together, one word a step."""

    batch_bytes: ClassVar = 8_000_000  # of text at a time; the memory beside it is some ten times that

    def __init__(self, texts: Any) -> None:
        words = _words(texts)
        flat = pc.list_flatten(words).dictionary_encode()
        self._words = flat.dictionary
        ids = flat.indices.to_numpy().astype(np.int64)
        starts = words.offsets.to_numpy().astype(np.int64)
        lengths = np.diff(starts)
        starts = starts[:-1] - starts[0]
        self._levels: list[_Level] = []
        alive = np.flatnonzero(lengths > 0)  # queries that go on at this depth, by their order
        node = np.zeros(len(alive), np.int64)
        depth = 0
        while len(alive):
            edge = node * len(self._words) + ids[starts[alive] + depth]
            edges, node = np.unique(edge, return_inverse=True)
            depth += 1
            ends = lengths[alive] == depth
            query = np.full(len(edges), -1, np.int32)
            query[node[ends][::-1]] = alive[ends][::-1]  # backwards: the first of equal ones stays
            alive, node = alive[~ends], node[~ends]
            leads_on = np.zeros(len(edges), bool)
            leads_on[node] = True
            self._levels.append(_Level(edges, query, leads_on))
        self._first = np.full(len(self._words) + 1, -1, np.int64)  # of the first level; the last for unknown words
        if self._levels:
            self._first[self._levels[0].edges] = np.arange(len(self._levels[0].edges))

    def find(self, lines: Any) -> tuple[np.ndarray, np.ndarray]:
        words = _words(lines)
        flat = pc.list_flatten(words).dictionary_encode()
        known = pc.fill_null(pc.index_in(flat.dictionary, self._words), -1).to_numpy()
        ids = known[flat.indices.to_numpy()].astype(np.int64) if len(flat) else np.zeros(0, np.int64)  # [W]
        line = pc.list_parent_indices(words).to_numpy()
        at = np.arange(len(ids))  # first words of what may be a query
        node = self._first[ids]  # [W], of the level
        lines_found, queries_found = [], []
        for depth, level in enumerate(self._levels):
            if depth:
                at, node = self._step(level, ids, line, at, node, depth)
            else:
                at, node = at[node >= 0], node[node >= 0]
            query = level.query[node]
            lines_found.append(line[at[query >= 0]])
            queries_found.append(query[query >= 0])
            on = level.leads_on[node]
            at, node = at[on], node[on]
        none = np.zeros(0, np.int64)
        return np.concatenate([none, *lines_found]), np.concatenate([none, *queries_found])

    def _step(
        self, level: _Level, ids: np.ndarray, line: np.ndarray, at: np.ndarray, node: np.ndarray, depth: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Go from nodes to those of the next level, by the words at `at + depth`; where none leads on, drop out."""
        inside = at + depth < len(ids)
        at, node = at[inside], node[inside]
        word = ids[at + depth]
        possible = (word >= 0) & (line[at + depth] == line[at])
        at, edge = at[possible], node[possible] * len(self._words) + word[possible]
        place = np.minimum(np.searchsorted(level.edges, edge), len(level.edges) - 1)
        there = level.edges[place] == edge
        return at[there], place[there]


class _Automaton:
    """Queries as an Aho-Corasick automaton."""

    batch_bytes: ClassVar = 500_000  # of text at a time: a letter can be the end of many queries

    def __init__(self, texts: Any) -> None:
        try:
            import ahocorasick_rs
        except ImportError:
            raise missing_extra("matching by substring", "curate", "The rule `word` does without it.") from None
        first: dict[str, int] = {}
        for number, text in enumerate(texts.to_pylist()):
            if text:
                first.setdefault(text, number)
        self._numbers = np.fromiter(first.values(), np.int64, len(first))
        self._longest = max(map(len, first), default=0)
        self._automaton = ahocorasick_rs.AhoCorasick(
            list(first), implementation=ahocorasick_rs.Implementation.ContiguousNFA
        )

    def find(self, lines: Any) -> tuple[np.ndarray, np.ndarray]:
        found_of: list[int] = []
        found: list[int] = []
        for number, line in enumerate(lines.to_pylist()):
            inside = self._inside(line)
            found += inside
            found_of += [number] * len(inside)
        return np.array(found_of, np.int64), self._numbers[np.array(found, np.int64)]

    def _inside(self, line: str) -> set[int]:
        find = self._automaton.find_matches_as_indexes
        return {
            pattern
            for start in range(0, len(line), _WINDOW)
            for pattern, _, _ in find(line[start : start + _WINDOW + self._longest - 1], overlapping=True)
        }
