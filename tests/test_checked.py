import zlib
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import DataError
from diptych.search import checked
from diptych.search.checked import BLOCK, CheckedRows, is_damaged, seal, sums_after


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3), dtype=np.float32)


def written(tmp_path: Path, values: np.ndarray) -> tuple[Path, np.ndarray]:
    file = tmp_path / "index" / "part" / "features-0.f32"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(values.tobytes())
    sums = [zlib.crc32(values[i : i + BLOCK].tobytes()) for i in range(0, len(values), BLOCK)]
    return file, np.array(sums)


def flip(file: Path, byte: int) -> None:
    data = bytearray(file.read_bytes())
    data[byte] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize(
    "index", [3, -1, slice(5, 2000), slice(None), slice(2000, 5, -7), [0, 2500, 1], np.arange(2600) > 1200, (7, 1)]
)
def test_rows_come_out_as_those_of_a_plain_array(tmp_path, index):
    values = rows(2600)
    file, sums = written(tmp_path, values)
    found = CheckedRows.open(file, 2600, 3, sums)[index]
    np.testing.assert_array_equal(found, values[index])
    assert not isinstance(found, CheckedRows)


def test_a_damaged_block_is_told_when_it_is_read_and_no_other(tmp_path):
    file, sums = written(tmp_path, rows(5 * BLOCK))
    flip(file, 12 * BLOCK + 5)
    found = CheckedRows.open(file, 5 * BLOCK, 3, sums)
    assert found[:BLOCK].shape == (BLOCK, 3)
    for index in (slice(None), BLOCK, [0, 2 * BLOCK - 1], np.arange(5 * BLOCK) == BLOCK):
        with pytest.raises(DataError, match=r"rows 1,024 to 2,047 are not what was written.*diptych index repair"):
            found[index]
    assert found[2 * BLOCK :].shape == (3 * BLOCK, 3)
    assert found.damaged() == [1]


def test_a_block_is_compared_once_and_by_a_later_mapping_only_where_it_grew(tmp_path, monkeypatch):
    values = rows(3 * BLOCK)
    file, sums = written(tmp_path, values)
    begun = np.append(sums[:1], zlib.crc32(values[BLOCK : BLOCK + 10].tobytes()))
    compared = []
    real = CheckedRows._compared
    monkeypatch.setattr(CheckedRows, "_compared", lambda self, blocks: compared.extend(blocks) or real(self, blocks))
    first = CheckedRows.open(file, BLOCK + 10, 3, begun)
    for _ in range(3):
        first[:]
    assert compared == [0, 1]
    CheckedRows.open(file, 3 * BLOCK, 3, sums, first)[:]
    assert compared == [0, 1, 1, 2]


def test_sums_go_on_where_a_block_was_begun():
    values = rows(2 * BLOCK + 40)
    found: dict[int, int] = {}
    first = 0
    for count in (10, 1, BLOCK - 11, 20, BLOCK + 20):  # to the end of a block, too
        found |= sums_after(values[first : first + count], first, found.get(first // BLOCK, 0) if first % BLOCK else 0)
        first += count
    assert found == {i: zlib.crc32(values[i * BLOCK : (i + 1) * BLOCK].tobytes()) for i in range(3)}


def test_a_database_at_rest_is_compared_and_one_in_use_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(checked, "_WAIT", 0)
    file = tmp_path / "files.sqlite"
    file.write_bytes(bytes(range(100)))
    assert not is_damaged(file, lambda: 3)  # nothing is noted
    seal(file, 3)
    assert not is_damaged(file, lambda: 3)
    flip(file, 50)
    assert is_damaged(file, lambda: 3)
    assert not is_damaged(file, lambda: 4)  # its last writer was killed
    file.with_name("files.sqlite-wal").write_bytes(b"in use")
    assert not is_damaged(file, lambda: 3)
    seal(file, 4)
    file.with_name("files.sqlite-wal").write_bytes(b"")
    assert is_damaged(file, lambda: 3)  # a file in use was not noted
    seal(file, 5)
    assert not is_damaged(file, lambda: 5)
    file.with_name("sums.json").write_text("{")
    assert is_damaged(file, lambda: 5)
