import builtins

import pytest
import scipy.io

from diptych.errors import DataError, MissingExtraError
from diptych.sets.matlab import read_mat


def test_variables_come_by_name_and_as_plain_rows(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"ids": [[3, 1]], "word": "open"})
    values = read_mat(tmp_path / "a.mat")
    assert values["ids"].tolist() == [3, 1]
    assert str(values["word"]) == "open"


def test_another_file_and_a_missing_library_are_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "a.mat").write_bytes(b"no matlab at all")
    with pytest.raises(DataError, match=r"a.mat must be a MATLAB file"):
        read_mat(tmp_path / "a.mat")
    real = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *rest: (_ for _ in ()).throw(ImportError()) if name.startswith("scipy") else real(name, *rest),
    )
    with pytest.raises(MissingExtraError, match=r"diptych\[eval\]"):
        read_mat(tmp_path / "a.mat")
