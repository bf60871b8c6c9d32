import io
import os
import signal
import sys
from pathlib import Path

import pytest

from diptych.errors import DataError, MissingExtraError
from diptych.train.log import read_log
from diptych.train.tensorboard import EventLog
from diptych.train.trainer import StepReport, train
from runs import change, count_pairs
from test_files import names, room_for


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve in a folder, as TensorBoard's own reader has it."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {name: [(p.step, p.value) for p in reader.Scalars(name)] for name in reader.Tags()["scalars"]}


def live(folder: Path, resume_step: int, steps: range, loss: float) -> None:
    log = EventLog(folder, resume_step=resume_step)
    for step in steps:
        log.write(step=step, loss=loss)
    log.close()


def test_tensorboard_reads_what_was_written_with_groups_by_name(tmp_path):
    log = EventLog(tmp_path / "run", resume_step=0, clock=lambda: 1234.5)
    log.write(step=10, loss=2.5, time={"data": 0.25, "step": 0.75}, **{"set/top1": 0.5})
    assert points(tmp_path / "run") == {
        "loss": [(10, 2.5)],
        "time/data": [(10, 0.25)],
        "time/step": [(10, 0.75)],
        "set/top1": [(10, 0.5)],
    }  # before it is closed
    log.close()


def test_who_resumes_doubles_no_point(tmp_path):
    live(tmp_path, 0, range(1, 9), 1.0)  # killed after step 8, saved at 4
    live(tmp_path, 4, range(5, 11), 2.0)  # killed after step 10, saved at 4 still
    live(tmp_path, 4, range(5, 8), 3.0)
    live(tmp_path, 6, range(7, 13), 4.0)
    expected = [(step, 1.0) for step in range(1, 5)] + [(5, 3.0), (6, 3.0)] + [(step, 4.0) for step in range(7, 13)]
    assert points(tmp_path) == {"loss": expected}


def test_who_goes_back_further_or_starts_over_leaves_nothing_of_what_came_after(tmp_path):
    live(tmp_path, 0, range(1, 9), 1.0)
    live(tmp_path, 6, range(7, 11), 2.0)
    live(tmp_path, 3, range(4, 6), 3.0)  # checkpoint 6 was removed by hand
    assert points(tmp_path) == {"loss": [(1, 1.0), (2, 1.0), (3, 1.0), (4, 3.0), (5, 3.0)]}
    (tmp_path / "events.out.tfevents.1.of-another-program").touch()
    live(tmp_path, 0, range(1, 2), 4.0)
    assert points(tmp_path) == {"loss": [(1, 4.0)]}
    assert names(tmp_path) == ["events.out.tfevents.0000000000.diptych", "events.out.tfevents.1.of-another-program"]


def test_a_run_that_is_stopped_and_goes_on_shows_its_log(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, trackers=("tensorboard",), evaluate_every=3)

    def stop(progress: StepReport) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    train(recipe, tmp_path, evaluators={"set": count_pairs}, on_progress=stop)
    train(recipe, tmp_path, evaluators={"set": count_pairs})
    lines, seen = read_log(tmp_path / "log.jsonl"), points(tmp_path)
    for name in ("loss", "learning_rate", "logit_scale", "set/mean"):
        expected = [(line["step"], line[name]) for line in lines if name in line]
        assert [step for step, _ in seen[name]] == [step for step, _ in expected]
        assert [value for _, value in seen[name]] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert [step for step, _ in seen["time/step"]] == list(range(1, 9))


def test_it_may_be_asked_for_on_the_way(tiny_recipe, tmp_path):
    def fail(progress: StepReport) -> None:
        if progress.step == 4:
            raise RuntimeError("as if killed")

    with pytest.raises(RuntimeError, match="as if killed"):
        train(tiny_recipe, tmp_path, on_progress=fail)
    train(change(tiny_recipe, trackers=("tensorboard",)), tmp_path)
    assert [step for step, _ in points(tmp_path)["loss"]] == [3, 4, 5, 6, 7, 8]


def test_without_the_extra_a_run_does_not_begin(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    sentence = (
        r"the tracker tensorboard needs an extra: pip install 'diptych\[tensorboard\]'\. log\.jsonl is written without"
    )
    with pytest.raises(MissingExtraError, match=sentence):
        train(change(tiny_recipe, trackers=("tensorboard",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_and_a_folder_in_the_way_are_one_sentence(tmp_path):
    log = EventLog(tmp_path, resume_step=0)
    many = {f"number {n}": 1.0 for n in range(1000)}
    with room_for(io.DEFAULT_BUFFER_SIZE), pytest.raises(DataError, match=r" could not be written: File too large\."):
        log.write(step=1, many=many)
    log.close()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file could not be written: (File exists|Not a directory)\."):
        EventLog(tmp_path / "file", resume_step=0)
