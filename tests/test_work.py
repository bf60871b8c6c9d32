"""curate/work.py: rows that a stage left, as the next one takes them."""

import json

import pyarrow as pa

from diptych.curate.tasks import write_part
from diptych.curate.work import PICTURES_AT_ONCE, PartedRows, part_folder, sizes_file
from diptych.rows.columns import pairs_table
from diptych.rows.stage import Judged, dropped


def leave(folder, *sizes):
    """A stage that left rows "0", "1", ... with pictures of the same bytes, in parts of these sizes."""
    first = 0
    for part, size in enumerate(sizes):
        keys = [str(number) for number in range(first, first + size)]
        table = pairs_table([{"key": key, "text": key, "source": 0} for key in keys])
        table = table.append_column("picture", pa.array([key.encode() for key in keys], pa.binary()))
        write_part(part_folder(folder, part), [Judged(kept=table, dropped=dropped(pa.array([], pa.string()), ""))])
        first += size
    sizes_file(folder).write_text(json.dumps(sizes))
    return PartedRows(folder=folder, pictures=folder)


def keys(rows):
    return [rows.table(part)["key"].to_pylist() for part in range(len(rows))]


def test_rows_come_in_their_parts_or_cut_anew(tmp_path):
    rows = leave(tmp_path, 3, 0, 2, 4)
    assert [len(some) for some in keys(rows)] == [3, 0, 2, 4]
    for size in (1, 2, 4, 9, 20):
        cut = keys(PartedRows(folder=tmp_path, part_rows=size))
        assert [key for some in cut for key in some] == [str(number) for number in range(9)]
        assert {len(some) for some in cut[:-1]} <= {size}


def test_no_rows_are_one_part_without_rows(tmp_path):
    leave(tmp_path, 0, 0)
    rows = PartedRows(folder=tmp_path, part_rows=5)
    assert keys(rows) == [[]]
    assert rows.table(0).schema == PartedRows(folder=tmp_path).table(0).schema


def test_pictures_come_with_their_rows_some_at_a_time(tmp_path):
    rows = leave(tmp_path, 2 * PICTURES_AT_ONCE + 5)
    tables = list(rows.with_pictures(0))
    assert [len(table) for table in tables] == [PICTURES_AT_ONCE, PICTURES_AT_ONCE, 5]
    assert all(row["picture"] == row["key"].encode() for table in tables for row in table.to_pylist())


def test_a_part_without_rows_still_tells_its_columns(tmp_path):
    (table,) = leave(tmp_path, 0).with_pictures(0)
    assert len(table) == 0
    assert table.column_names[-1] == "picture"


def test_sizes_that_changed_are_read_again(tmp_path):
    rows = leave(tmp_path, 3)
    assert rows.sizes() == (3,)
    leave(tmp_path, 1, 1)
    assert rows.sizes() == (1, 1)
