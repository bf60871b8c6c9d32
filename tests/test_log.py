import io
import json

import pytest

from diptych.errors import DataError
from diptych.train.log import LogReader, RunLog, read_log
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


def lines_of(*steps: int) -> str:
    return "".join(json.dumps({"step": step}) + "\n" for step in steps)


def steps_of(reader: LogReader) -> list[int]:
    return [line["step"] for line in reader.lines]


def test_a_reader_follows_a_log_line_by_line(tmp_path):
    path = tmp_path / "log.jsonl"
    reader = LogReader(path)
    assert (reader.update(), reader.lines) == (0, [])  # not there yet
    path.write_text(lines_of(1, 2) + '{"step"')
    assert (reader.update(), steps_of(reader)) == (0, [1, 2])
    with path.open("a") as file:
        file.write(": 3}\n")
    assert (reader.update(), steps_of(reader)) == (2, [1, 2, 3])
    assert (reader.update(), steps_of(reader)) == (3, [1, 2, 3])


def test_a_reader_sees_that_a_run_was_resumed_and_which_lines_stayed(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(lines_of(1, 2, 3))
    reader = LogReader(path)
    reader.update()
    log = RunLog(path, resume_step=1)
    assert (reader.update(), steps_of(reader)) == (1, [1])
    for step in (2, 3, 4):
        log.write(step=step, life=2)
    assert (reader.update(), steps_of(reader)) == (1, [1, 2, 3, 4])
    log.close()
    reader = LogReader(path)
    reader.update()
    again = RunLog(path, resume_step=2)
    for step in (3, 4, 5):  # longer than before when it is looked at next
        again.write(step=step, life=3)
    again.close()
    assert (reader.update(), steps_of(reader)) == (2, [1, 2, 3, 4, 5])
    assert reader.lines[2]["life"] == 3
    path.unlink()
    assert (reader.update(), reader.lines) == (0, [])


def test_a_reader_is_not_misled_by_another_file_of_the_same_number(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(lines_of(1, 2))
    reader = LogReader(path)
    reader.update()
    path.write_text(lines_of(10000, 20000, 30000))  # in place, so that the number stays
    assert (reader.update(), steps_of(reader)) == (0, [10000, 20000, 30000])


def test_a_log_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read: Is a directory\. Is it the log of a run\?"):
        LogReader(tmp_path).update()
    (tmp_path / "notes").write_text("no log\n")
    with pytest.raises(DataError, match=r"notes cannot be read: Expecting value"):
        LogReader(tmp_path / "notes").update()


def test_what_was_measured_before_the_first_step_stays_and_is_written_once(tmp_path):
    def begin(resume_step: int) -> list[int]:
        RunLog(tmp_path / "log.jsonl", resume_step=resume_step).close()
        return [line["step"] for line in read_log(tmp_path / "log.jsonl")]

    (tmp_path / "log.jsonl").write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n')
    assert begin(1) == [0, 1]
    assert begin(0) == []
