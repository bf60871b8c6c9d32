import io
import json

import pytest

from diptych.errors import DataError
from diptych.train.log import RunLog, read_log
from test_files import room_for


def test_each_line_is_in_the_file_when_write_returns(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path, resume_step=0)
    log.write(step=1, loss=2.5)
    assert path.read_text() == '{"step": 1, "loss": 2.5}\n'
    log.write(step=2, loss=2.25)
    log.close()
    assert read_log(path) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}]


def test_who_resumes_drops_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": step, "run": 1}) + "\n" for step in (10, 20, 30)) + '{"step": 40, "ru')
    log = RunLog(path, resume_step=20)
    log.write(step=30, run=2)
    log.close()
    assert [(line["step"], line["run"]) for line in read_log(path)] == [(10, 1), (20, 1), (30, 2)]


def test_a_new_run_empties_the_log_of_an_old_one(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    RunLog(tmp_path / "log.jsonl", resume_step=0).close()
    assert read_log(tmp_path / "log.jsonl") == []


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "los')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}]
    assert read_log(tmp_path / "no such file") == []


def test_nan_is_refused(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", resume_step=0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write(step=1, loss=float("nan"))
    log.close()
    assert read_log(tmp_path / "log.jsonl") == []


def test_a_full_disk_is_one_sentence(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", resume_step=0)
    with room_for(io.DEFAULT_BUFFER_SIZE), pytest.raises(DataError, match=r"log\.jsonl could not be written: File too"):
        log.write(step=1, text="x" * 3 * io.DEFAULT_BUFFER_SIZE)
    log.close()
