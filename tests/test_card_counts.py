"""curate/card_counts.py: counts in a bounded amount of memory, against those that hold everything."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from diptych.curate.card_counts import Frequent, PairFacts, ValueCounts, hosts_of
from pair_tables import pairs_of


def test_kinds_are_counted_exactly_while_they_fit():
    frequent = Frequent(most=3)
    frequent.add(pa.array(["b", "a", "b", None, ""]))
    frequent.add(pa.chunked_array([["c"], ["a", "b"]]))
    counts = frequent.counts(2)
    assert [(one.name, one.count) for one in counts.top] == [("b", 3), ("a", 2)]
    assert (counts.kinds, counts.is_exact, counts.unknown) == (3, True, 2)


def test_beyond_that_no_frequent_kind_is_lost_and_counts_say_how_wrong_they_may_be():
    rng = np.random.default_rng(0)
    kinds = np.concatenate([np.repeat([f"often {i}" for i in range(5)], 2_000), [f"rare {i}" for i in range(20_000)]])
    rng.shuffle(kinds)
    truth, frequent = Counter(kinds.tolist()), Frequent(most=200)
    for part in np.array_split(kinds, 50):
        frequent.add(pa.array(part.tolist(), pa.string()))
        assert len(frequent._counts) <= 200
    counts = frequent.counts(5)
    assert not counts.is_exact
    assert counts.kinds == 201
    assert counts.too_low <= len(kinds) / 200  # the bound of Misra and Gries
    assert {one.name for one in counts.top} == {f"often {i}" for i in range(5)}
    assert all(truth[one.name] - counts.too_low <= one.count <= truth[one.name] for one in counts.top)


@pytest.mark.parametrize("most", [999, 10**9])
def test_quantiles_are_those_of_all_values_to_three_digits(most):
    values = np.random.default_rng(1).integers(0, most, 5_000)
    spread = ValueCounts()
    for part in np.array_split(values, 7):
        spread.add(pa.array(part))
    spread.add(pa.array([None, None], pa.int64()))
    found = spread.quantiles("width", "px")
    assert found
    ranked = np.sort(values)
    for share, value in (
        (0.05, found.p5),
        (0.25, found.p25),
        (0.5, found.median),
        (0.75, found.p75),
        (0.95, found.p95),
    ):
        exact = int(ranked[int(np.ceil(share * len(ranked))) - 1])
        assert value == exact if most < 1_000 else 0.99 * exact <= value <= exact
    assert (found.least, found.most, found.count) == (values.min(), values.max(), 5_000)
    assert len(spread._counts) <= 9_000


def test_nothing_known_has_no_quantiles():
    spread = ValueCounts()
    spread.add(pa.array([None], pa.int32()))
    assert spread.quantiles("width", "px") is None


def test_facts_of_pairs_do_not_depend_on_how_they_are_cut():
    texts = [f"a dog {i}\nein Hund" for i in range(40)]
    urls = [f"https://H{i % 3}.example:80/{i}.jpg" for i in range(40)]
    rows = pairs_of(*texts, url=urls, language=["en", "de"] * 20, format=["png"] * 40)
    shards = [f"shard-{i // 10}" for i in range(40)]

    def facts(cuts):
        found = PairFacts(["one", "two"])
        for start, end in zip([0, *cuts], [*cuts, 40], strict=True):
            found.add(rows.slice(start, end - start), shards[start:end])
        return found.on_card()

    whole = facts([])
    assert facts([1, 7, 7, 39]) == whole
    assert [(one.name, one.count) for one in whole.hosts.top] == [
        ("h0.example", 14),
        ("h1.example", 13),
        ("h2.example", 13),
    ]
    assert [(one.name, one.count) for one in whole.sources] == [("one", 40), ("two", 0)]
    assert whole.licences.unknown == 40
    [captions] = whole.sizes  # each caption by itself
    assert (captions.name, captions.count, captions.least, captions.most) == ("caption", 80, 7, 8)
    keys = sorted(rows["key"].to_pylist())[:12]
    assert [sample.key for sample in whole.samples] == keys
    at = dict(zip(rows["key"].to_pylist(), shards, strict=True))
    assert [sample.shard for sample in whole.samples] == [at[key] for key in keys]
    assert whole.samples[0].text.endswith(" / ein Hund")


def test_hosts_are_read_off_whatever_stands_in_a_list():
    addresses = pa.chunked_array(
        [["https://A.example./x", "//b.example/y", "no address"], [None, "http://[::1"]], pa.string()
    )
    assert hosts_of(addresses).to_pylist() == ["a.example", "b.example", "", "", ""]
