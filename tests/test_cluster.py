"""cluster.py: work by daft's workers is the same work."""

import os
import sys

import pytest

from curating import Draw, Fails, SameWord, curated, pipeline_of, write_rows
from diptych.cluster import DaftRunner, import_daft
from diptych.errors import DataError, MissingExtraError

# daft leaves the pipe from a worker to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <_io:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def _daft(monkeypatch):
    pytest.importorskip("daft")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # its workers are processes that know no other


@pytest.mark.usefixtures("_daft")
def test_daft_leaves_the_same_files_as_processes_of_our_own(tmp_path):
    pipeline = pipeline_of(write_rows(tmp_path / "rows.jsonl", 60), SameWord(many=2), Draw(part_rows=25))
    assert curated(pipeline, tmp_path / "daft", runner=DaftRunner(2)) == curated(pipeline, tmp_path / "here")


@pytest.mark.usefixtures("_daft")
def test_an_error_comes_through_daft_as_its_own_sentence(tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    pipeline = pipeline_of(write_rows(tmp_path / "rows.jsonl", 60), Fails(file=str(flag)))
    with pytest.raises(DataError, match=r"^the moon must be full, and is not\. Wait\.$"):
        curated(pipeline, tmp_path / "out", runner=DaftRunner(1))


def test_without_daft_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "daft", None)
    with pytest.raises(MissingExtraError, match=r"diptych\[daft\]"):
        import_daft()
