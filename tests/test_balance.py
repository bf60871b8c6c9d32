"""captions/balance.py: no query brings in many more pairs than t."""

import hashlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.captions.balance import (
    COUNTS,
    FACTS,
    Balance,
    Cap,
    added,
    curve,
    draws,
    match_counts,
    mixed,
    threshold,
    uniform,
    with_thresholds,
)
from diptych.errors import ConfigError
from diptych.rows.columns import pair_key, pairs_table
from diptych.rows.stage import DROPPED, Counting, Grouping, Judged, Whole

NAMES = [f"query {number}" for number in range(40)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("balance") / "queries.txt"
    file.write_text("\n".join(NAMES))
    return str(file)


def rows_of(lists, languages=None):
    """Rows that match these queries; row i is always the same pair."""
    languages = languages or [None] * len(lists)
    rows = [
        {"key": pair_key("u", str(i)), "text": str(i), "source": 0, "language": language}
        for i, language in zip(range(len(lists)), languages, strict=True)
    ]
    return pairs_table(rows).append_column("queries", pa.array(lists, pa.list_(pa.int32())))


def run(stage, parts, buckets=3):
    """A stage over parts as a runner does it."""
    facts = stage.total(stage.count(part) for part in parts) if isinstance(stage, Counting) else None
    verdicts = [None] * len(parts)
    if isinstance(stage, Grouping):
        sent = []
        for number, part in enumerate(parts):
            table = stage.scatter(part, Whole(facts=facts), buckets)
            assert set(table["bucket"].to_pylist()) <= set(range(buckets))
            sent.append(table.append_column("part", pa.array([number] * len(table), pa.int32())))
        members = pa.concat_tables(sent)
        resolved = pa.concat_tables(
            stage.resolve(members.filter(pc.equal(members["bucket"], bucket)), Whole(facts=facts))
            for bucket in range(buckets)
        )
        verdicts = [resolved.filter(pc.equal(resolved["part"], number)) for number in range(len(parts))]
    judged = [stage.apply(part, Whole(facts=facts, verdicts=mine)) for part, mine in zip(parts, verdicts, strict=True)]
    assert [len(one.kept) + len(one.dropped) for one in judged] == [len(part) for part in parts]
    return facts, Judged(
        kept=pa.concat_tables(one.kept for one in judged), dropped=pa.concat_tables(one.dropped for one in judged)
    )


def plain_draw(seed, key, query):
    salt = seed.to_bytes(16, "little", signed=True)
    start = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, salt=salt).digest(), "little")
    z = (start + (query + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def plain_balance(rows, t, seed):
    count = Counter(query for row in rows for query in row["queries"])
    return [
        row["key"]
        for row in rows
        if any(
            (plain_draw(seed, row["key"], query) >> 11) / 2**53 < t / max(count[query], t) for query in row["queries"]
        )
    ]


def plain_cap(rows, t, seed):
    members = {}
    for row in rows:
        for query in row["queries"]:
            members.setdefault(query, []).append((plain_draw(seed, row["key"], query), row["key"]))
    chosen = {key for pairs in members.values() for _, key in sorted(pairs)[:t]}
    return [row["key"] for row in rows if row["key"] in chosen]


LISTS = st.lists(st.lists(st.integers(0, 8), max_size=5, unique=True).map(sorted), max_size=60)


@st.composite
def parts_of_rows(draw):
    rows = rows_of(draw(LISTS))
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    bounds = [0, *cuts, len(rows)]
    return rows, [rows.slice(a, b - a) for a, b in pairwise(bounds)]


@settings(max_examples=100, deadline=None)
@given(cut=parts_of_rows(), t=st.integers(1, 12), seed=st.integers(-5, 5), buckets=st.integers(1, 5))
def test_parts_and_buckets_change_nothing_and_the_plain_twin_keeps_the_same(path, cut, t, seed, buckets):
    rows, parts = cut
    for rule, plain in ((Balance, plain_balance), (Cap, plain_cap)):
        _, judged = run(rule(queries=path, t=t, seed=seed), parts, buckets)
        assert judged.kept["key"].to_pylist() == plain(rows.to_pylist(), t, seed)


@settings(max_examples=50, deadline=None)
@given(lists=LISTS, order=st.randoms(use_true_random=False), t=st.integers(1, 5))
def test_the_order_of_rows_changes_nothing(path, lists, order, t):
    rows = rows_of(lists)
    places = list(range(len(rows)))
    order.shuffle(places)
    for rule in (Balance, Cap):
        stage = rule(queries=path, t=t)
        kept = set(run(stage, [rows])[1].kept["key"].to_pylist())
        assert set(run(stage, [rows.take(pa.array(places, pa.int64()))])[1].kept["key"].to_pylist()) == kept


def test_rows_whose_lists_lie_in_several_chunks_are_judged_alike(path):
    rows = rows_of([[0], [0, 1], [], [0], [2], [0, 2]] * 20)
    chunked = pa.concat_tables([rows.slice(0, 7), rows.slice(7, 50), rows.slice(57)])
    assert chunked["queries"].num_chunks == 3
    for rule in (Balance, Cap):
        stage = rule(queries=path, t=4)
        one, other = run(stage, [rows]), run(stage, [chunked])
        assert one[0] == other[0]
        assert one[1].kept["key"].to_pylist() == other[1].kept["key"].to_pylist()


def test_each_query_lets_through_t_in_the_mean_and_the_cap_lets_through_t_at_most(path):
    rng = np.random.default_rng(0)
    lists = [[0] if u < 0.5 else [1] if u < 0.9 else [2] for u in rng.random(20_000)]
    rows, t = rows_of(lists), 1000
    before = Counter(query for (query,) in lists)
    drawn = Counter(query for (query,) in run(Balance(queries=path, t=t), [rows])[1].kept["queries"].to_pylist())
    for query, count in before.items():
        sigma = (t * (1 - t / count)) ** 0.5
        assert abs(drawn[query] - t) < 4 * sigma, query
    capped = Counter(query for (query,) in run(Cap(queries=path, t=t), [rows])[1].kept["queries"].to_pylist())
    assert capped == {0: t, 1: t, 2: t}


def test_a_pair_is_kept_for_the_sake_of_its_rarest_query(path):
    rows = rows_of([[0]] * 500 + [[0, 1]])
    for seed in range(20):
        for rule in (Balance, Cap):
            _, judged = run(rule(queries=path, t=1, seed=seed), [rows])
            assert pair_key("u", "500") in judged.kept["key"].to_pylist()


def test_draws_of_one_pair_are_independent_among_queries_and_seeds():
    keys = pa.array([pair_key("u", str(i)) for i in range(20_000)])
    query = np.zeros(len(keys), np.int32)
    one = uniform(mixed(draws(keys, 0), query))
    for other in (uniform(mixed(draws(keys, 0), query + 1)), uniform(mixed(draws(keys, 1), query))):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / len(keys) ** 0.5
        assert abs(other.mean() - 0.5) < 4 / (12 * len(keys)) ** 0.5
    assert 0 <= one.min() < one.max() < 1
    assert mixed(draws(keys, 7), query + 3).tolist()[:50] == [plain_draw(7, key, 3) for key in keys.to_pylist()[:50]]


def test_the_ledger_names_the_rarest_query_of_what_is_dropped(path):
    rows = rows_of([[0, 3]] * 900 + [[0]] * 600 + [[]])
    for rule, limit in ((Balance, "2 pairs a query by draws"), (Cap, "2 pairs a query at most")):
        _, judged = run(rule(queries=path, t=2), [rows])
        assert judged.dropped.schema == DROPPED
        assert set(judged.dropped["cause"].to_pylist()) == {"balance"}
        assert set(judged.dropped["limit"].to_pylist()) == {limit}
        assert set(judged.dropped["value"].to_pylist()) == {"query 3: 900", "query 0: 1,500", None}


def test_no_rows_are_judged_too(path):
    for rule in (Balance, Cap):
        facts, judged = run(rule(queries=path), [rows_of([])])
        assert facts.schema == FACTS
        assert (len(judged.kept), len(judged.dropped)) == (0, 0)


def test_counts_are_added_in_any_groups(monkeypatch):
    monkeypatch.setattr("diptych.captions.balance._MERGED_AT", 2)
    parts = [match_counts(rows_of([[i % 3], [i % 5, 7]], ["en", None]), True) for i in range(15)]
    total = added(parts)
    assert total.schema == COUNTS
    assert total.to_pylist() == [
        *({"language": "", "query": query, "count": 3} for query in range(5)),
        {"language": "", "query": 7, "count": 15},
        *({"language": "en", "query": query, "count": 5} for query in range(3)),
    ]
    assert added([]).schema == COUNTS


def test_languages_are_told_apart_only_where_asked():
    rows = rows_of([[0], [0], [0, 1]], ["en", "de", None])
    assert match_counts(rows, False).to_pylist() == [
        {"language": "", "query": 0, "count": 3},
        {"language": "", "query": 1, "count": 1},
    ]
    assert [row["language"] for row in match_counts(rows, True).to_pylist()] == ["", "", "de", "en"]


def test_another_language_gets_the_t_that_leaves_its_tail_as_large():
    # English: 10 of 100 matches are below t = 20. German: 9 of 90 are below 21, its fourth count.
    counts = {"en": [4, 6, 20, 70], "de": [2, 3, 4, 21, 60]}
    table = pa.Table.from_pylist(
        [{"language": name, "query": i, "count": n} for name in sorted(counts) for i, n in enumerate(counts[name])],
        schema=COUNTS,
    )
    facts = with_thresholds(table, 20, "en")
    assert facts.schema == FACTS
    assert {(row["language"], row["t"]) for row in facts.to_pylist()} == {("en", 20), ("de", 21)}
    assert set(with_thresholds(table, 20, None)["t"].to_pylist()) == {20}


@pytest.mark.parametrize(
    ("counts", "tail", "t"),
    [
        ([2, 3, 4, 21, 60], 0.1, 21),
        ([2, 3, 4, 21, 60], 0.0, 2),
        ([2, 3, 4, 21, 60], 1.0, 61),
        ([5, 5, 5], 0.4, 5),  # below 5 is nothing, below 6 all
        ([5, 5, 5], 0.6, 6),
        ([1, 3], 0.125, 1),  # as near to none as to a quarter
    ],
)
def test_thresholds_worked_by_hand(counts, tail, t):
    assert threshold(np.array(counts), tail) == t


def test_languages_are_balanced_each_by_itself(path):
    groups = {("en", 0): 400, ("de", 0): 40, ("en", 1): 20, ("de", 1): 2}
    lists = [[query] for (_, query), count in groups.items() for _ in range(count)]
    languages = [language for (language, _), count in groups.items() for _ in range(count)]
    for rule in (Balance, Cap):
        facts, judged = run(rule(queries=path, t=21, per_language=True), [rows_of(lists, languages)])
        assert {row["language"]: row["t"] for row in facts.to_pylist()} == {"en": 21, "de": 40}
        kept = Counter((row["language"], row["queries"][0]) for row in judged.kept.to_pylist())
        assert (kept["de", 0], kept["en", 1], kept["de", 1]) == (40, 20, 2)
        assert kept["en", 0] < 60


def test_a_language_that_matches_nothing_is_no_trouble(path):
    rows = rows_of([[0], [], [0], [1]], ["en", "fr", None, "en"])
    for rule in (Balance, Cap):
        _, judged = run(rule(queries=path, t=5, per_language=True), [rows.slice(0, 2), rows.slice(2)])
        assert judged.kept["queries"].to_pylist() == [[0], [0], [1]]
        assert judged.dropped["limit"].to_pylist()[0].endswith(" in en, elsewhere as large a tail")


def test_rows_of_one_key_are_capped_too(path):
    rows = pa.concat_tables([rows_of([[0]])] * 5)
    assert len(run(Cap(queries=path, t=2), [rows.slice(0, 3), rows.slice(3)])[1].kept) == 2


def test_a_reference_language_without_matches_is_told(path):
    with pytest.raises(ConfigError, match=r"no text in en matches a query\. Languages: de, fr\."):
        run(Balance(queries=path, per_language=True), [rows_of([[0], [1]], ["fr", "de"])])


@pytest.mark.parametrize("rule", [Balance, Cap])
def test_a_t_that_keeps_nothing_is_refused(rule):
    with pytest.raises(ConfigError, match=r"balance\.t must be at least 1"):
        rule(queries="q", t=0)


def test_the_rules_are_stages_of_their_kinds(path):
    assert isinstance(Balance(queries=path), Counting)
    assert not isinstance(Balance(queries=path), Grouping)
    assert isinstance(Cap(queries=path), Counting)
    assert isinstance(Cap(queries=path), Grouping)
    assert Cap(queries=path).files() == Balance(queries=path).files() == (path,)


def test_the_curve_tells_head_and_tail(path):
    rows = rows_of([[0]] * 60 + [[1]] * 30 + [[2]] * 10)
    stage = Cap(queries=path, t=10)
    facts, judged = run(stage, [rows])
    told = curve(facts, stage.count(judged.kept), 4)
    assert (told.queries, told.matched, told.head, told.matches, told.matches_after) == (4, 3, 2, 100, 30)
    assert told.head_of_queries == 0.5
    assert told.head_share == 0.9
    assert told.head_share_after == pytest.approx(2 / 3)
    assert told.points == (
        (0.25, 0.6, pytest.approx(1 / 3)),
        (0.5, 0.9, pytest.approx(2 / 3)),
        (0.75, 1.0, 1.0),
        (1.0, 1.0, 1.0),
    )


def test_the_curve_counts_a_query_in_each_language_by_itself(path):
    rows = rows_of([[0]] * 6 + [[0]] * 3 + [[1]], ["en"] * 6 + ["de"] * 3 + [None])
    stage = Balance(queries=path, t=4, per_language=True)
    facts = stage.total([stage.count(rows)])
    told = curve(facts, stage.count(rows.slice(5)), 2)
    assert (told.queries, told.matched, told.matches, told.matches_after) == (6, 3, 10, 5)
    assert curve(FACTS.empty_table(), COUNTS.empty_table(), 3).points[-1] == (1.0, 0.0, 0.0)
