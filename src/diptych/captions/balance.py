"""Balance: no query brings in many more pairs than t, so that the rare is not drowned by the frequent.

`Balance` draws as MetaCLIP does: a query with c matches lets each of its pairs through with the probability
t / max(c, t), and a pair is kept once any of its queries lets it through. `Cap` is CLIP's own wording, section 2.2: of
each query at most t pairs, those with the smallest draws; a pair is kept that is among those of any of its queries.

A draw is a function of the seed, the key of the pair and the number of the query, and of nothing else: which rows are
kept depends neither on how they are cut into parts nor on their order, nor on who works on them.

With `per_language` matches are counted in each language by itself, and t is that of the reference language. Of another
language it is the number that leaves as large a share of its matches in the tail, below t, as t leaves of the
reference's (MetaCLIP 2, arXiv:2507.22062).
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.captions.match import queries_of
from diptych.errors import ConfigError
from diptych.rows.stage import Judged, Whole

COUNTS = pa.schema(
    [
        pa.field("language", pa.string(), nullable=False),  # empty where it is unknown, or languages are not told apart
        pa.field("query", pa.int32(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),  # rows that match it
    ]
)
FACTS = COUNTS.append(pa.field("t", pa.int64(), nullable=False))  # that of the language
_MERGED_AT = 4_000_000  # rows of counts that wait to be added up
_GOLDEN, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BUCKET_MATCHES = 5_000_000  # matches of rows that come together; a row has some 3.5


@dataclass(frozen=True, kw_only=True)
class Balance:
    """MetaCLIP's balance by independent draws. Rows come with the column `queries`."""

    name: ClassVar[str] = "balance"
    queries: str  # path of the list that the rows were matched with: the ledger names queries by their texts
    t: int = 20_000  # pairs that a query may bring in
    seed: int = 0
    per_language: bool = False
    reference: str = "en"  # language that t is meant for

    def __post_init__(self) -> None:
        _check(self.t)

    def files(self) -> tuple[str, ...]:
        """The list of queries."""
        return (self.queries,)

    def count(self, rows: pa.Table) -> pa.Table:
        """Matches of each query, of the schema `COUNTS`."""
        return match_counts(rows, self.per_language)

    def total(self, counts: Iterable[pa.Table]) -> pa.Table:
        """Those of the whole, each with its t, of the schema `FACTS`."""
        return with_thresholds(added(counts), self.t, self.reference if self.per_language else None)

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        """Draw for each match of each row."""
        matches = _Matches(rows, whole.facts, self.per_language)
        drawn = draws(rows["key"], self.seed)[matches.row]
        through = uniform(mixed(drawn, matches.query)) < matches.t / np.maximum(matches.count, matches.t)
        return matches.judged(rows, through, self.queries, _limit(self, "by draws"))


@dataclass(frozen=True, kw_only=True)
class Cap:
    """At most t pairs of each query, chosen by draws. Rows come with the column `queries`."""

    name: ClassVar[str] = "balance"
    queries: str  # as of `Balance`
    t: int = 20_000
    seed: int = 0
    per_language: bool = False
    reference: str = "en"

    def __post_init__(self) -> None:
        _check(self.t)

    def files(self) -> tuple[str, ...]:
        """The list of queries."""
        return (self.queries,)

    def count(self, rows: pa.Table) -> pa.Table:
        """As of `Balance`."""
        return match_counts(rows, self.per_language)

    def total(self, counts: Iterable[pa.Table]) -> pa.Table:
        """As of `Balance`."""
        return with_thresholds(added(counts), self.t, self.reference if self.per_language else None)

    def buckets(self, rows: int) -> int:
        """So many that the matches of one fit into memory."""
        return max(1, math.ceil(rows * 3.5 / _BUCKET_MATCHES))

    def scatter(self, rows: pa.Table, whole: Whole, buckets: int) -> pa.Table:
        """Matches of queries that have more than t, each to the bucket of its query.

        Only those go whose draw can be among the t smallest. That fewer than t of a query are below the bound has a
        probability under 10^-15; the query would then bring in these.
        """
        matches = _Matches(rows, whole.facts, self.per_language)
        draw = mixed(draws(rows["key"], self.seed)[matches.row], matches.query)
        t, count = matches.t.astype(np.float64), matches.count
        possible = (count > matches.t) & (uniform(draw) < (t + 9 * np.sqrt(t) + 40) / np.maximum(count, 1))
        place = matches.fact[possible].astype(np.int64)
        return pa.table(
            {
                "bucket": pa.array((place % buckets).astype(np.int32)),
                "row": pa.array(matches.row[possible].astype(np.int32)),
                "fact": pa.array(place),
                "draw": pa.array(draw[possible]),
            }
        )

    def resolve(self, members: pa.Table, whole: Whole) -> pa.Table:
        """The rows among the t smallest draws of a query. Rows of one key draw alike; of these the first come first."""
        assert whole.facts is not None
        part, row, fact, draw = (members[name].to_numpy() for name in ("part", "row", "fact", "draw"))
        order = np.lexsort((row, part, draw, fact))
        mine = fact[order]
        starts = np.flatnonzero(np.diff(mine, prepend=-1))
        place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))  # within its query
        chosen = np.zeros(len(order), bool)
        chosen[order] = place < whole.facts["t"].to_numpy()[mine]
        return members.select(["part", "row"]).filter(pa.array(chosen))

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        """Keep what a query of few matches brings in, or what is among the smallest draws of one of many."""
        assert whole.verdicts is not None
        matches = _Matches(rows, whole.facts, self.per_language)
        chosen = np.zeros(len(rows), bool)
        chosen[whole.verdicts["row"].to_numpy()] = True
        through = (matches.count <= matches.t) | chosen[matches.row]
        return matches.judged(rows, through, self.queries, _limit(self, "at most"))


def _check(t: int) -> None:
    if t < 1:
        raise ConfigError(f"balance.t must be at least 1, pairs that a query may bring in. Got {t}.")


def _limit(stage: Balance | Cap, how: str) -> str:
    where = f" in {stage.reference}, elsewhere as large a tail" if stage.per_language else ""
    return f"{stage.t:,} pairs a query {how}{where}"


def match_counts(rows: pa.Table, per_language: bool) -> pa.Table:
    """How many rows match each query, in each language where they are told apart.

    Args:
        rows: with columns `queries`, and `language`.
        per_language: else the language is empty.

    Returns:
        Of the schema `COUNTS`, in the order of language and query.
    """
    query = pc.list_flatten(rows["queries"])
    if per_language:
        language = pc.fill_null(rows["language"], "").take(pc.list_parent_indices(rows["queries"]))
    else:
        language = pa.repeat("", len(query))
    ones = pa.array(np.ones(len(query), np.int64))
    return _summed(pa.table([language, query, ones], names=COUNTS.names))


def added(counts: Iterable[pa.Table]) -> pa.Table:
    """Counts of many parts added up, in the order of language and query."""
    sums, waiting, size = COUNTS.empty_table(), [], 0
    for table in counts:
        waiting.append(table)
        size += len(table)
        if size > max(_MERGED_AT, len(sums)):
            sums, waiting, size = _summed(pa.concat_tables([sums, *waiting])), [], 0
    return _summed(pa.concat_tables([sums, *waiting]))


def _summed(table: pa.Table) -> pa.Table:
    sums = table.group_by(["language", "query"], use_threads=False).aggregate([("count", "sum")])
    sums = sums.select(["language", "query", "count_sum"]).rename_columns(COUNTS.names).cast(COUNTS)
    return sums.sort_by([("language", "ascending"), ("query", "ascending")])


def with_thresholds(counts: pa.Table, t: int, reference: str | None) -> pa.Table:
    """Counts with the t of their languages.

    Args:
        counts: of the whole.
        t: of the reference language; where there is none, of all.
        reference: the language that t is meant for.

    Raises:
        ConfigError: the reference language has no match.
    """
    count = counts["count"].to_numpy()
    if reference is None:
        return counts.append_column(FACTS.field("t"), pa.array(np.full(len(count), t, np.int64)))
    codes = counts["language"].combine_chunks().dictionary_encode()
    languages, of = codes.dictionary.to_pylist(), codes.indices.to_numpy()
    if reference not in languages:
        there = ", ".join(sorted(filter(None, languages))[:10]) or "none"
        raise ConfigError(
            f"balance.reference must be a language that texts are in, and no text in {reference} matches a query. "
            f"Languages: {there}."
        )
    ours = count[of == languages.index(reference)]
    tail = ours[ours < t].sum() / ours.sum()
    thresholds = [t if name == reference else threshold(count[of == i], tail) for i, name in enumerate(languages)]
    return counts.append_column(FACTS.field("t"), pa.array(np.array(thresholds, np.int64)[of]))


def threshold(counts: np.ndarray, tail: float) -> int:
    """The t below which queries hold that share of all matches, as nearly as can be; of two as near the smaller.

    Args:
        counts: [n] matches of each query of a language, at least one.
        tail: the share that is wanted.
    """
    candidates, first = np.unique(np.sort(counts), return_index=True)
    below = np.concatenate([[0], np.cumsum(np.sort(counts))])  # [n + 1]
    shares = np.append(below[first], below[-1]) / below[-1]
    return int(np.append(candidates, candidates[-1] + 1)[np.abs(shares - tail).argmin()])


def draws(keys: Any, seed: int) -> np.ndarray:
    """[N] keys to [N] uint64, from the seed and each key alone."""
    salt = seed.to_bytes(16, "little", signed=True)
    digests = [hashlib.blake2b(key.encode(), digest_size=8, salt=salt).digest() for key in keys.to_pylist()]
    return np.frombuffer(b"".join(digests), "<u8")


def mixed(draw: np.ndarray, query: np.ndarray) -> np.ndarray:
    """[M] numbers of keys and of queries to [M] uint64: splitmix64, one stream for each key."""
    z = draw + (query.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def uniform(draw: np.ndarray) -> np.ndarray:
    """Of 64 bits the 53 highest, as a float64 in [0, 1)."""
    return (draw >> np.uint64(11)) * 2.0**-53


class _Matches:
    """The matches of some rows: M pairs of a row and a query, with what is known of the query in the row's language."""

    def __init__(self, rows: pa.Table, facts: pa.Table | None, per_language: bool) -> None:
        assert facts is not None, "balance counts first"
        lists = rows["queries"]
        self.row = pc.list_parent_indices(lists).to_numpy()  # [M] int64, ascending
        self.query = pc.list_flatten(lists).to_numpy()  # [M] int32
        self.fact = _places(rows["language"] if per_language else None, self.row, self.query, facts)  # [M]
        self._queries, self._counts = facts["query"].to_numpy(), facts["count"].to_numpy()
        self.count = self._counts[self.fact]  # [M] int64
        self.t = facts["t"].to_numpy()[self.fact]  # [M] int64

    def judged(self, rows: pa.Table, through: np.ndarray, path: str, limit: str) -> Judged:
        """Rows of which a match is let through; the others with their rarest query and its count."""
        keep = np.bincount(self.row[through], minlength=len(rows)) > 0
        gone = np.flatnonzero(~keep[self.row])  # matches of rows that are dropped
        order = gone[np.lexsort((self.query[gone], self.count[gone], self.row[gone]))]
        rarest = order[np.diff(self.row[order], prepend=-1) > 0]  # the first of each row
        facts, of = np.unique(self.fact[rarest], return_inverse=True)
        names = queries_of(path).texts
        words = [f"{names[self._queries[fact]]}: {self._counts[fact]:,}" for fact in facts.tolist()]
        values = np.full(len(rows), None, object)
        values[self.row[rarest]] = np.array(words, object)[of]
        return Judged.by(rows, keep, "balance", value=pa.array(values, pa.string()), limit=limit)


def _places(language: Any, row: np.ndarray, query: np.ndarray, facts: pa.Table) -> np.ndarray:
    """Where in the facts each match is counted."""
    if language is None:
        return np.searchsorted(facts["query"].to_numpy(), query)
    size = np.int64(2**31)
    codes = facts["language"].combine_chunks().dictionary_encode()  # ascending, as the facts are
    keys = codes.indices.to_numpy().astype(np.int64) * size + facts["query"].to_numpy()
    mine = pc.index_in(pc.fill_null(language, ""), codes.dictionary).to_numpy()
    return np.searchsorted(keys, mine[row].astype(np.int64) * size + query)


@dataclass(frozen=True, kw_only=True)
class BalanceCurve:
    """How matches are shared among queries, before and after a balance. In each language a query counts by itself."""

    queries: int  # of the list, times the languages
    matched: int  # of these, match at least one text
    head: int  # of these, have more matches than their t
    matches: int
    matches_after: int
    head_share: float  # of the matches
    head_share_after: float
    points: tuple[tuple[float, float, float], ...]  # share of queries, the frequent first; of matches before and after

    @property
    def head_of_queries(self) -> float:
        """Share of the queries that are in the head."""
        return self.head / self.queries


def curve(facts: pa.Table, after: pa.Table, queries: int, *, points: int = 60) -> BalanceCurve:
    """The curve of a balance.

    Args:
        facts: what `total` gave.
        after: of the rows that are kept, the counts of each part `added` up.
        queries: how many the list has.
        points: of the curve, evenly apart in the logarithm of the rank.
    """
    entries = queries * max(1, len(pc.unique(facts["language"])))
    before, kept = np.zeros(entries, np.int64), np.zeros(entries, np.int64)
    before[: len(facts)] = facts["count"].to_numpy()
    in_head = np.flatnonzero(facts["count"].to_numpy() > facts["t"].to_numpy())
    places = _places(after["language"], np.arange(len(after)), after["query"].to_numpy(), facts)
    kept[places] = after["count"].to_numpy()
    order = np.argsort(-before, kind="stable")
    matches, matches_after = int(before.sum()), int(kept.sum())
    sums, sums_after = np.cumsum(before[order]) / max(matches, 1), np.cumsum(kept[order]) / max(matches_after, 1)
    ranks = np.unique(np.geomspace(1, entries, points).round().astype(int)).tolist()
    return BalanceCurve(
        queries=entries,
        matched=len(facts),
        head=len(in_head),
        matches=matches,
        matches_after=matches_after,
        head_share=int(before[in_head].sum()) / max(matches, 1),
        head_share_after=int(kept[in_head].sum()) / max(matches_after, 1),
        points=tuple((rank / entries, float(sums[rank - 1]), float(sums_after[rank - 1])) for rank in ranks),
    )
