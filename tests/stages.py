"""A runner for tests: a stage of curation over tables, in any number of parts and buckets."""

import itertools

import pyarrow as pa

from diptych.rows.stage import Counting, Grouping, Judged, Whole


def run_grouping(stage: Grouping, rows: pa.Table, *, parts: int = 1, buckets: int | None = None) -> Judged:
    """Count, total, scatter, resolve, apply; what each must give is checked on the way."""
    cut = [len(rows) * part // parts for part in range(parts + 1)]
    tables = [rows.slice(start, end - start) for start, end in itertools.pairwise(cut)]
    facts = stage.total(map(stage.count, tables)) if isinstance(stage, Counting) else None
    buckets = buckets or stage.buckets(len(rows))
    sent = []
    for part, table in enumerate(tables):
        members = stage.scatter(table, Whole(facts=facts), buckets)
        assert (members.schema.field("bucket").type, members.schema.field("row").type) == (pa.int32(), pa.int32())
        sent.append(members.append_column("part", pa.array([part] * len(members), pa.int32())))
    members = pa.concat_tables(sent)
    bucket = members["bucket"].to_numpy()
    assert not len(bucket) or 0 <= bucket.min() <= bucket.max() < buckets
    there = [members.filter(pa.array(bucket == number)).drop_columns("bucket") for number in range(buckets)]
    verdicts = pa.concat_tables([stage.resolve(some, Whole(facts=facts)) for some in there])
    judged = []
    for part, table in enumerate(tables):
        own = verdicts.filter(pa.array(verdicts["part"].to_numpy() == part)).sort_by("row")
        judged.append(stage.apply(table, Whole(facts=facts, verdicts=own)))
    return Judged(
        kept=pa.concat_tables([one.kept for one in judged]), dropped=pa.concat_tables([one.dropped for one in judged])
    )
