"""train/follow.py, and `diptych evaluate ... --follow`."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.cli.main import main
from diptych.errors import DataError, WeightsError
from diptych.files import folder_lock, remove_folder
from diptych.train.checkpoint import Checkpoint, list_checkpoints
from diptych.train.ema import Average
from diptych.train.follow import follow, load_measured
from diptych.train.trainer import train
from diptych.weights.bundle import Bundle
from runs import change
from test_files import names
from toys import draw


@pytest.fixture(scope="module")
def finished(tiny_recipe, tmp_path_factory) -> Path:
    """A run that is over, with an average of its weights, saved at 4 and 8. Not to be written to."""
    out = tmp_path_factory.mktemp("followed") / "mine"
    train(change(tiny_recipe, ema_decay=0.9, checkpoint_every=4, keep_checkpoints=9), out)
    return out


@pytest.fixture
def colours(tmp_path) -> Path:
    draw(tmp_path / "colours" / "test", red__0="red", red__1="red", blue__0="blue", blue__1="navy")
    return tmp_path / "colours"


def test_checkpoints_come_once_each_in_order_until_nobody_works_on_the_run(tmp_path):
    (tmp_path / "checkpoints").mkdir()

    def save(step: int) -> None:
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir()

    moments: list[Callable[[], None]] = [lambda: None, lambda: (save(8), save(12))[0], lambda: lock.close()]
    with pytest.MonkeyPatch.context() as patch:
        held = [True]
        patch.setattr("diptych.train.follow.is_locked", lambda _: held[0])
        lock = type("Lock", (), {"close": lambda self: held.clear() or held.append(False)})()
        save(4)
        seen = [path.name for path in follow(tmp_path, every=1, wait=lambda _: moments.pop(0)())]
    assert seen == ["step-00000004", "step-00000008", "step-00000012"]
    assert moments == []


def test_what_is_saved_while_the_run_ends_is_not_missed(tmp_path):
    with folder_lock(tmp_path):
        stream = follow(tmp_path, every=1, wait=lambda _: last_words.set())
        last_words = threading.Event()
        (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
        assert next(stream).name == "step-00000001"
        (tmp_path / "checkpoints" / "step-00000002").mkdir()
    assert [path.name for path in stream] == ["step-00000002"]


def test_a_checkpoint_that_was_removed_is_passed_over(tmp_path):
    for step in (1, 2, 3):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    stream = follow(tmp_path, every=1)
    next(stream)
    remove_folder(tmp_path / "checkpoints" / "step-00000002")
    assert [path.name for path in stream] == ["step-00000003"]
    with pytest.raises(DataError, match="must be the folder of a run that has begun"):
        next(follow(tmp_path / "none", every=1))


def test_the_average_is_what_is_measured(finished):
    last = list_checkpoints(finished / "checkpoints")[-1]
    measured, raw = load_measured(last), Bundle.load(last)
    expected = Bundle.load(finished / "bundle").encode_texts(["red square"])
    torch.testing.assert_close(measured.encode_texts(["red square"]), expected, rtol=0, atol=0)
    assert np.abs(raw.encode_texts(["red square"]) - expected).max() > 1e-5
    assert isinstance(Average(raw.model, 0.0, Checkpoint.load(last).average), Average)
    with pytest.raises(WeightsError):
        load_measured(last.with_name("step-00000099"))


def test_each_checkpoint_becomes_a_folder_of_results_and_a_point_of_the_curve(finished, colours, tmp_path, capsys):
    words = ["evaluate", "zero-shot", "--data", str(colours), "--follow", str(finished), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.err.count("step-0000000") == 2
    assert "colours/zero-shot/accuracy" in said.out
    assert names(tmp_path / "out") == ["curve.jsonl", "step-00000004", "step-00000008"]
    result = json.loads((tmp_path / "out" / "step-00000008" / "colours.zero-shot.json").read_text())
    assert result["model"]["name"] == "mine/step-00000008"
    curve = [json.loads(line) for line in (tmp_path / "out" / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curve] == [4, 8]
    assert curve[1]["colours/zero-shot/accuracy"] == result["numbers"]["top-1"]
    assert main(words) == 0  # all is there: nothing is measured again
    assert "step-0000000" not in capsys.readouterr().err


def test_a_suite_follows_too(finished, colours, tmp_path, capsys):
    assert main(["evaluate", "suite", "--data", str(colours.parent), "--tasks", "colours", "--follow", str(finished),
                 "--out", str(tmp_path / "out")]) == 0  # fmt: skip
    assert (tmp_path / "out" / "step-00000004" / "colours.zero-shot.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "diptych-photo", "--out", "x"], "Leave --model out"),
        ([], "--follow needs --out, a folder"),
        (["--out", "x.json"], "--follow needs --out, a folder"),
    ],
)
def test_what_does_not_go_with_following_is_told(words, message, colours, finished, capsys):
    assert main(["evaluate", "zero-shot", "--data", str(colours), "--follow", str(finished), *words]) == 2
    assert message in capsys.readouterr().err
