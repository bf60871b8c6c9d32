"""curate/meaning.py: of pictures whose features are near one is kept."""

import numpy as np
import pyarrow as pa
import pytest

from diptych.curate import meaning
from diptych.curate.meaning import SameMeaning, first_near
from diptych.errors import ConfigError
from diptych.rows.columns import pairs_table
from diptych.rows.stage import DROPPED, Counting, CurateStage, Grouping, Whole
from stages import run_grouping


def key(i: int) -> str:
    return f"{i:032x}"


def rows_of(features, **columns) -> pa.Table:
    features = np.asarray(features, np.float16)
    count, width = features.shape
    rows = [{"text": "t", **{name: column[i] for name, column in columns.items()}} for i in range(count)]
    table = pairs_table([{"key": key(i), "source": 0, **row} for i, row in enumerate(rows)])
    column = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), width)
    return table.append_column("features", column)


def crowd(seed: int, count: int = 300, noise: float = 0.12, width: int = 8) -> pa.Table:
    """Rows around some directions, with sizes, texts and keys that tie."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((40, width))
    features = centres[draw.integers(0, 40, count)] + noise * draw.standard_normal((count, width))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    order = draw.permutation(count)
    return rows_of(
        features,
        key=[key(i) for i in order],
        width=[None if i % 7 == 0 else int(i % 3 + 1) for i in order],
        height=[2] * count,
        text=["t" * int(n) for n in draw.integers(1, 3, count)],
    )


def verdict(judged) -> dict[str, str]:
    return dict(zip(judged.dropped["key"].to_pylist(), judged.dropped["value"].to_pylist(), strict=True))


def pair_by_pair(rows: pa.Table, threshold: float) -> dict[str, str]:
    """The plain twin: each row against each, and the best of those that are better."""
    table = rows.to_pylist()
    features = [np.array(row["features"], np.float64) for row in table]
    features = [row / np.linalg.norm(row) for row in features]
    better = [(-(row["width"] or 0) * (row["height"] or 0), -len(row["text"]), row["key"]) for row in table]
    found = {}
    for i in range(len(table)):
        others = [j for j in range(len(table)) if better[j] < better[i] and features[i] @ features[j] >= threshold]
        if others:
            found[table[i]["key"]] = table[min(others, key=lambda j: better[j])]["key"]
    return found


def test_it_is_a_stage_that_counts_and_groups():
    assert isinstance(SameMeaning(), CurateStage)
    assert isinstance(SameMeaning(), Counting)
    assert isinstance(SameMeaning(), Grouping)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.7, 0.95, 0.99])
def test_with_one_cluster_verdicts_are_those_of_comparing_every_pair(seed, threshold):
    rows = crowd(seed)
    expected = pair_by_pair(rows, threshold)
    assert expected
    assert verdict(run_grouping(SameMeaning(threshold=threshold), rows)) == expected


@pytest.mark.parametrize("clusters", [4, 16])
def test_with_several_clusters_nearly_all_pairs_are_met_and_none_is_made_up(monkeypatch, clusters):
    monkeypatch.setattr(meaning, "_SHARE", 2)
    rows = crowd(0, count=1000)
    every = verdict(run_grouping(SameMeaning(), rows))
    found = verdict(run_grouping(SameMeaning(clusters=clusters), rows))
    assert found.keys() <= every.keys()
    assert len(found) >= 0.97 * len(every) > 300
    alone = verdict(run_grouping(SameMeaning(clusters=clusters, margin=0), rows))
    assert len(alone) < len(found)


@pytest.mark.parametrize("keep", ["largest", "first", "outermost"])
def test_neither_parts_nor_buckets_change_what_is_kept(monkeypatch, keep):
    monkeypatch.setattr(meaning, "_SHARE", 2)
    rows = crowd(1, count=400)
    stage = SameMeaning(clusters=8, keep=keep, sample=100)
    once = run_grouping(stage, rows)
    assert len(once.dropped) > 100
    for parts, buckets in ((1, 3), (5, 1), (7, 8), (3, 50)):
        again = run_grouping(stage, rows, parts=parts, buckets=buckets)
        assert again.kept.equals(once.kept)
        assert again.dropped.equals(once.dropped)


def test_the_outermost_is_kept_where_that_is_asked_for():
    angles = np.array([0.0, 0.1, 0.2, 0.9, 1.8])  # the mean direction is nearest to the fourth
    rows = rows_of(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    stage = SameMeaning(threshold=0.99, keep="outermost", clusters=1)
    centroid = pa.FixedSizeListArray.from_arrays(pa.array([np.cos(0.9), np.sin(0.9)], pa.float32()), 2)
    facts = pa.table({"centroid": centroid})
    members = stage.scatter(rows, Whole(facts=facts), 1).append_column("part", pa.array([0] * 5, pa.int32()))
    judged = stage.apply(rows, Whole(facts=facts, verdicts=stage.resolve(members, Whole(facts=facts))))
    assert verdict(judged) == {key(1): key(0), key(2): key(1)}
    assert judged.dropped["cause"].to_pylist() == ["same meaning"] * 2
    assert judged.dropped["limit"].to_pylist() == ["cosine below 0.99"] * 2


def test_the_sample_is_drawn_by_the_keys_and_never_larger_than_asked_for(monkeypatch):
    monkeypatch.setattr(meaning, "_SHARE", 4)
    rows = crowd(2, count=2000)
    stage = SameMeaning()
    counts = stage.count(rows)
    assert counts["rows"].to_pylist()[0] == 2000
    assert 400 < len(counts) < 600
    parts = [stage.count(rows.slice(start, 300)) for start in range(0, 2000, 300)]
    assert stage.total(iter(parts)).equals(stage.total([counts]))
    few = SameMeaning(sample=3, clusters=10)
    assert len(few.total([counts])) == 3


def test_rows_without_features_or_with_a_nan_are_nobodys_duplicates():
    features = np.ones((6, 4), np.float16)
    features[2] = np.nan
    features[3, 0] = np.inf
    features[4] = 0
    rows = rows_of(features)
    column = pa.array([None if i == 5 else row for i, row in enumerate(rows["features"].to_pylist())])
    rows = rows.set_column(rows.schema.get_field_index("features"), "features", column.cast(pa.list_(pa.float16(), 4)))
    for clusters in (None, 2):
        judged = run_grouping(SameMeaning(clusters=clusters), rows, parts=2, buckets=2)
        assert verdict(judged) == {key(1): key(0)}


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row_stay(count):
    rows = rows_of(np.ones((count, 4)))
    judged = run_grouping(SameMeaning(), rows)
    assert judged.kept.equals(rows)
    assert judged.dropped.schema == DROPPED


def test_twenty_thousand_equal_rows_become_one():
    rows = rows_of(np.ones((20_000, 4)))
    judged = run_grouping(SameMeaning(), rows, parts=3)
    assert judged.kept["key"].to_pylist() == [key(0)]


@pytest.mark.parametrize("pivots", [1, 3, 1024])
def test_the_first_near_is_that_of_a_plain_search(monkeypatch, pivots):
    monkeypatch.setattr(meaning, "_PIVOTS", pivots)
    monkeypatch.setattr(meaning, "_ROWS", 5)
    features = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    plain = [next((j for j in range(i) if features[i] @ features[j] >= 0.9), i) for i in range(50)]
    assert first_near(features, 0.9).tolist() == plain
    assert plain != list(range(50))


def test_buckets_grow_with_the_rows():
    assert [SameMeaning().buckets(n) for n in (0, 100_000, 100_001, 10_000_000)] == [1, 1, 2, 100]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, r"threshold must be a cosine above 0, up to 1\. Got 0"),
        ({"threshold": 1.1}, r"Got 1\.1"),
        ({"margin": -0.1}, r"margin must be at least 0\. Got -0\.1"),
        ({"sample": 0}, r"sample and clusters must be at least 1\. Got 0 and None"),
        ({"clusters": 0}, r"Got 100000 and 0"),
        ({"keep": "best"}, r"keep must be 'largest' or 'first' or 'outermost'\. Got 'best'"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SameMeaning(**options)


def test_rows_that_were_not_described_with_a_model_say_what_to_do():
    rows = rows_of(np.ones((2, 4))).drop_columns("features")
    with pytest.raises(ConfigError, match=r"duplicates-features needs features\. Name a model for describe"):
        SameMeaning().count(rows)
