"""curate/tasks.py: pieces of a curation."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pytest

from curating import Dull, SameWord
from diptych.curate.tasks import ApplyPart, ResolveBucket, ScatterPart, has_causes, write_part
from diptych.curate.work import PICTURES_AT_ONCE, PartedRows, part_folder, read_table, sizes_file
from diptych.rows.columns import pairs_table
from diptych.rows.stage import Judged, dropped


@dataclass(frozen=True, kw_only=True)
class SamePicture(SameWord):
    """As its base, of rows that come with their pictures, so in several tables."""

    name: ClassVar[str] = "same-picture"
    reads_pictures: ClassVar[bool] = True

    def apply(self, rows, whole):
        return super().apply(rows.drop_columns(["picture"]), whole)


def rows_with_pictures(folder, texts):
    table = pairs_table([{"key": str(n), "text": text, "source": 0} for n, text in enumerate(texts)])
    table = table.append_column("picture", pa.array([text.encode() for text in texts], pa.binary()))
    write_part(part_folder(folder, 0), [Judged(kept=table, dropped=dropped(pa.array(["x"]), "cause"))])
    sizes_file(folder).write_text(json.dumps([len(texts)]))
    return PartedRows(folder=folder, pictures=folder)


def test_a_part_counts_what_it_read_kept_and_dropped_by_cause(tmp_path):
    rows_with_pictures(tmp_path, ["a", "b"])
    counts = json.loads((part_folder(tmp_path, 0) / "counts.json").read_text())
    assert counts == {"read": 3, "kept": 2, "dropped": {"cause": 1}}
    assert has_causes(tmp_path, 0, ["cause", "other"])
    assert not has_causes(tmp_path, 0, ["other"])
    assert "picture" not in read_table(part_folder(tmp_path, 0) / "rows.parquet").column_names


def test_verdicts_meet_their_rows_where_rows_come_in_several_tables(tmp_path):
    texts = [f"t {n % (PICTURES_AT_ONCE + 7)}" for n in range(3 * PICTURES_AT_ONCE)]
    rows, folder, stage = rows_with_pictures(tmp_path / "in", texts), tmp_path / "out", SamePicture()
    ScatterPart(folder=folder, stage=stage, rows=rows, part=0, buckets=3).run()
    for bucket in range(3):
        ResolveBucket(folder=folder, stage=stage, parts=1, bucket=bucket).run()
    ApplyPart(folder=folder, stage=stage, rows=rows, part=0, buckets=3).run()
    kept = read_table(part_folder(folder, 0) / "rows.parquet")["key"].to_pylist()
    assert kept == [str(number) for number in range(PICTURES_AT_ONCE + 7)]


def test_a_stage_that_loses_rows_is_found_out(tmp_path):
    class Loses(Dull):
        def apply(self, rows, whole):
            judged = super().apply(rows, whole)
            return Judged(kept=judged.kept.slice(1), dropped=judged.dropped)

    rows = rows_with_pictures(tmp_path / "in", ["a", "b"])
    with pytest.raises(AssertionError, match="dull loses rows"):
        ApplyPart(folder=tmp_path / "out", stage=Loses(), rows=rows, part=0).run()
    assert not part_folder(tmp_path / "out", 0).exists()
