import numpy as np
import pytest

from diptych.errors import DataError
from diptych.search.about import IndexAbout, read_about
from diptych.search.index_folder import check_index, open_store, status_of
from diptych.search.writing import Entry, Writer


def test_no_index_is_told_with_the_way_to_one(tmp_path):
    assert read_about(tmp_path) is None
    with pytest.raises(DataError, match=r"must have an index.*diptych index update"):
        open_store(tmp_path, tmp_path / "index")


def test_a_whole_index_is_counted_and_a_damaged_one_is_named_with_its_cure(tmp_path):
    about = IndexAbout(folder=tmp_path, fingerprint="0", part="part", model="m", dimensions=2)
    with Writer(tmp_path / "index" / "part", 2) as writer:
        writer.answer(about)
        writer.write([Entry(path="a.jpg", size=1, modified=1, features=np.eye(2, dtype=np.float32), times=(1, 2))])
    assert check_index(tmp_path, tmp_path / "index") == 2
    said, store = open_store(tmp_path, tmp_path / "index")
    status = status_of(said, store)
    assert (status["model"], status["index"], status["rows"]) == ("m", str(tmp_path / "index"), 2)
    (tmp_path / "index" / "part" / "features-0.f32").write_bytes(bytes(16))
    with pytest.raises(DataError, match=r"rows 0 to 1 are not what was written.* Mend it: diptych index repair"):
        check_index(tmp_path, tmp_path / "index")
