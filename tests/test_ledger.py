"""curate/ledger.py: read = kept + dropped."""

from curating import curated
from diptych.curate.ledger import StageCounts, examples, read_ledger, stage_folders
from test_curate_pipeline import whole_pipeline


def test_counts_that_do_not_add_up_are_known():
    counts = {"name": "a", "read": 10, "kept": 7, "dropped": {"b": 2, "c": 1}}
    assert StageCounts(**counts).adds_up
    assert not StageCounts(**counts | {"kept": 8}).adds_up


def test_causes_come_with_their_number_the_most_frequent_first_and_examples(tmp_path):
    curated(whole_pipeline(tmp_path), tmp_path)
    stages = read_ledger(tmp_path / "work")
    assert list(stages[1].dropped) == ["short"]
    folder = stage_folders(tmp_path / "work")[1]
    found = examples(folder, "short", 3)
    assert len(found) == 3 < stages[1].dropped["short"]
    assert set(found["cause"].to_pylist()) == {"short"}
    assert all(int(value) < 8 for value in found["value"].to_pylist())
    assert len(examples(folder, "short", 10_000)) == stages[1].dropped["short"]
