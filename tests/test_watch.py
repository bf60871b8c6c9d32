import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diptych.cli import watch as command
from diptych.cli.curves import blocks, columns_of, plot
from diptych.cli.main import main
from diptych.config import to_toml
from diptych.errors import DataError
from diptych.files import folder_lock
from diptych.train.log import RunLog
from diptych.train.trainer import train
from diptych.train.watch import WatchedRun, curves, state_of, time_of
from processes import started
from runs import change, count_pairs
from test_files import names

LINES = [
    {"step": 10, "pairs": 80, "seconds": 2.0, "loss": 3.0, "time": {"step": 2.0, "evaluation": 6.0, "decode": 0.5}},
    {"step": 20, "pairs": 160, "seconds": 4.0, "loss": 2.0, "set/top1": 0.5, "time": {"step": 1.0, "data": 1.0}},
    {"step": 30, "pairs": 240, "seconds": 8.0, "loss": 2.5, "time": {"step": 1.0, "data": 3.0}},
]
START = {"step": 0, "pairs": 0, "seconds": 0.0, "set/top1": 0.25, "time": {"evaluation": 2.0}}


@pytest.fixture(scope="module")
def finished(tiny_recipe, tmp_path_factory) -> Path:
    """A run that is over. Not to be written to."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    train(change(tiny_recipe, evaluate_every=4), out, evaluators={"set": count_pairs})
    return out


@pytest.fixture
def watch(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def watch(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return main(["watch", *map(str, words)]), *capsys.readouterr()

    return watch


def fake_run(folder: Path, recipe: Any, lines: list[dict[str, Any]]) -> Path:
    """What a run of that many lines leaves behind when it is killed."""
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / "recipe.toml").write_text(to_toml(recipe))
    (folder / "log.jsonl").write_text("".join(json.dumps(full(line)) + "\n" for line in lines))
    return folder


def full(line: dict[str, Any]) -> dict[str, Any]:
    return {"learning_rate": 1e-3, "logit_scale": 14.0, "gradient_norm": 1.0} | line


# What a folder tells.


def test_curves_begin_with_the_loss_then_metrics_and_rates_are_those_between_lines():
    found = curves([full(line) for line in LINES])
    assert list(found) == ["loss", "set/top1", "logit scale", "learning rate", "gradient norm", "pairs/s"]
    assert found["loss"] == [(10, 3.0), (20, 2.0), (30, 2.5)]
    assert found["set/top1"] == [(20, 0.5)]
    assert found["pairs/s"] == [(10, 40.0), (20, 40.0), (30, 20.0)]
    assert curves([]) == {}


def test_what_was_measured_before_the_first_step_begins_its_curve_alone():
    found = curves([START, *(full(line) for line in LINES)])
    assert found["set/top1"] == [(0, 0.25), (20, 0.5)]
    assert {name: points[0][0] for name, points in found.items()} == {
        "loss": 10, "set/top1": 0, "logit scale": 10, "learning rate": 10, "gradient norm": 10, "pairs/s": 10
    }  # fmt: skip


def test_the_time_of_lines_adds_up():
    assert time_of(LINES) == {"step": 4.0, "evaluation": 6.0, "decode": 0.5, "data": 4.0}
    assert time_of([{"step": 1, "loss": 1.0}]) == {}  # of a log that was written before there was any


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"is_locked": True, "silent": 59.0}, "running"),
        ({"is_locked": True, "silent": 61.0}, "stalled"),  # the longest line took 8 s, its evaluation included
        ({"is_locked": True, "silent": 61.0, "lines": [{"step": 10, "time": {"step": 21.0}}]}, "running"),
        ({"is_locked": True, "silent": 64.0, "lines": [{"step": 10, "time": {"step": 21.0}}]}, "stalled"),
        ({"is_locked": True, "silent": 1e6, "lines": []}, "starting"),
        ({"has_bundle": True}, "finished"),
        ({"has_bundle": True, "steps": 40}, "stopped"),  # the bundle is of a shorter run
        ({"has_bundle": True, "is_locked": True, "silent": 1.0}, "running"),
        ({}, "stopped"),
        ({"was_ended_by_watchdog": True}, "stalled"),
        ({"lines": []}, "stopped"),
    ],
)
def test_lock_files_and_silence_tell_the_state(facts, state):
    plain = {"is_locked": False, "has_bundle": False, "was_ended_by_watchdog": False, "steps": 30, "silent": 0.0}
    facts = {"lines": LINES} | plain | facts
    assert state_of(facts.pop("lines"), **facts) == state


def test_a_run_is_read_without_a_trace(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    run = WatchedRun(finished)
    assert run.state == "starting"
    assert run.update(time.time()) == 0
    assert (run.name, run.state, run.is_held, len(run.lines)) == (
        "mine",
        "finished",
        False,
        9,
    )  # eight steps, and before the first
    assert run.recipe is not None
    assert run.recipe.train.steps == 8
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_a_run_that_is_killed_and_resumed_is_followed(tiny_recipe, tmp_path):
    run = WatchedRun(fake_run(tmp_path / "run", tiny_recipe, LINES))
    run.update(time.time())
    assert (run.state, run.is_held) == ("stopped", False)
    with folder_lock(tmp_path / "run"):
        log = RunLog(tmp_path / "run" / "log.jsonl", resume_step=20)
        log.write(**full({"step": 30, "pairs": 240, "seconds": 5.0, "loss": 1.0, "time": {"step": 1.0}}))
        assert run.update(time.time()) == 2  # lines that stayed
        assert (run.state, run.is_held) == ("running", True)
        assert [line["loss"] for line in run.lines] == [3.0, 2.0, 1.0]
        run.update(time.time() + 1000)
        assert (run.state, round(run.silent, -2)) == ("stalled", 1000)
        log.close()
    run.update(time.time())
    assert run.state == "stopped"


def test_a_recipe_of_another_version_costs_only_what_follows_from_it(tmp_path, tiny_recipe, watch):
    folder = fake_run(tmp_path / "run", tiny_recipe, LINES)
    (folder / "recipe.toml").write_text("of_tomorrow = 1\n")
    code, out, err = watch(folder, "--once")
    assert (code, err) == (0, "")
    assert out.startswith("run  stopped, step 30;")


def test_what_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"must be the folder of a run, and has no recipe\.toml and no log\.jsonl\."):
        WatchedRun(tmp_path)


# Curves in text.


def test_columns_are_means_of_what_falls_together_and_lines_over_gaps():
    assert columns_of([(0, 1.0), (1, 3.0), (10, 4.0), (11, 6.0)], 2) == [2.0, 5.0]
    assert columns_of([(0, 0.0), (4, 8.0)], 5) == [0, 2, 4, 6, 8]
    assert columns_of([(7, 5.0)], 3) == [5, 5, 5]


def test_blocks_go_from_the_lowest_to_the_highest():
    assert blocks([(n, float(n)) for n in range(8)], 8) == "▁▂▃▄▅▆▇█"
    assert blocks([(0, 1.0), (1, 1.0)], 8) == "▁▁"  # no wider than there are points
    assert len(blocks([(n, float(n)) for n in range(1000)], 20)) == 20


def test_a_plot_puts_its_dots_where_they_belong():
    # Two characters are four columns; one line is four rows. Falling by a row a column: dots 1, 5 / 3, 8 of braille.
    assert plot([(0, 3.0), (1, 2.0), (2, 1.0), (3, 0.0)], 2, 1) == [
        chr(0x2800 + 0x01 + 0x10) + chr(0x2800 + 0x04 + 0x80)
    ]
    # A fall over all rows is drawn through, in the column where it ends.
    assert plot([(0, 1.0), (1, 0.0)], 1, 1) == [chr(0x2800 + 0x01 + 0x10 + 0x20 + 0x80)]
    assert plot([(0, 0.0), (1, 1.0)], 1, 1) == [chr(0x2800 + 0x40 + 0x20 + 0x10 + 0x08)]
    flat = plot([(0, 5.0), (9, 5.0)], 3, 2)
    assert flat == [chr(0x2800) * 3, chr(0x2800 + 0x40 + 0x80) * 3]


# The command.


def test_once_says_how_things_stand_in_plain_lines(finished, watch):
    code, out, err = watch(finished, "--once")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "mine  finished, step 8/8 (100%)"
    assert [line.split("  ")[0] for line in lines[1:7]] == [
        "loss", "set/mean", "logit scale", "learning rate", "gradient norm", "pairs/s"
    ]  # fmt: skip
    assert re.fullmatch(r"learning rate +\d\.\de-\d\d  [▁-█]{8}", lines[4])
    assert re.fullmatch(r"time  .*step \d+%.*; threads busy: read \d\.\d\d, decode \d\.\d\d", lines[7])
    assert re.match(r"\d+% of the time ", lines[8])


def test_a_run_that_goes_on_is_followed_line_by_line_through_a_resume_to_its_end(tiny_recipe, tmp_path, watch):
    folder = fake_run(tmp_path / "run", tiny_recipe, LINES)
    line = full({"pairs": 240, "seconds": 5.0, "loss": 1.0, "set/top1": 0.25, "time": {"step": 1.0}})
    held, looked = threading.Event(), threading.Event()

    def live() -> None:
        with folder_lock(folder):
            held.set()
            assert looked.wait(20)
            log = RunLog(folder / "log.jsonl", resume_step=20)
            log.write(**line | {"step": 25})
            log.close()
            deadline = time.monotonic() + 20
            while not seen_twice.is_set() and time.monotonic() < deadline:
                time.sleep(0.005)

    seen_twice, sleep, naps = threading.Event(), time.sleep, []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        looked.set()
        if any(line["step"] == 25 for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines())):
            seen_twice.set()
        sleep(0.01)

    runner = threading.Thread(target=live)
    runner.start()
    assert held.wait(20)
    command.time.sleep, restore = nap, command.time.sleep
    try:
        code, out, _ = watch(folder, "--every", 0.5)
    finally:
        command.time.sleep = restore
        runner.join()
    assert code == 0
    assert out.startswith("run  running, step 30/8")
    tail = out[out.index("run  went on") :].splitlines()
    assert tail[0] == "run  went on from step 20"
    assert tail[1] == "run  step 25  loss 1.000  lr 1.0e-03  scale 14.0  set/top1 25.0%"
    assert tail[-1].startswith("run  stopped, step 25/8")


def test_a_run_that_has_measured_and_not_yet_learned_is_told(tiny_recipe, tmp_path, watch, monkeypatch):
    folder = fake_run(tmp_path / "run", tiny_recipe, [])
    (folder / "log.jsonl").write_text(json.dumps(START) + "\n")
    with folder_lock(folder):
        code, out, err = watch(folder, "--once")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        code_live, shown, _ = watch(folder, "--once")
    assert (code, code_live, err) == (0, 0, "")
    assert out.startswith("run  running, step 0/8 (0%)\nset/top1  25.0%")
    assert "running, step 0/8 (0%)" in plain(shown)
    assert command._line(START) == "step 0  set/top1 25.0%"


def test_bad_samples_and_a_watchdogs_end_are_told(tiny_recipe, tmp_path, watch):
    folder = fake_run(tmp_path / "run", tiny_recipe, [LINES[0] | {"bad": {"truncated": 1200, "no caption": 3}}])
    (folder / "stall").mkdir()
    (folder / "stall" / "rank-1.txt").touch()
    _, out, _ = watch(folder, "--once")
    assert "bad samples, left out: truncated 1,200, no caption 3\n" in out
    assert f"stalled, step 10/8 (125%), ended by its watchdog: see {folder / 'stall'}" in out


def plain(shown: str) -> str:
    """Without what steers a terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def interrupted(*words: object) -> tuple[int, str]:
    """Exit code, and what a terminal shows, of a view that gets Ctrl-C once it stands."""
    ours, theirs = os.openpty()
    environment = os.environ | {"COLUMNS": "100", "LINES": "40", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "diptych", "watch", *map(str, words)]
    pipes = {"stdout": theirs, "stderr": theirs, "stdin": subprocess.DEVNULL}
    shown, asked = b"", False
    try:
        with started(command, env=environment, start_new_session=True, **pipes) as process:
            while True:  # our own handle of the other end stays open, so that nothing is lost when the process ends
                has_ended = process.poll() is not None  # before the look: what it wrote last is there by then
                if select.select([ours], [], [], 0.1)[0]:
                    shown += os.read(ours, 65536)
                elif has_ended:
                    return process.returncode, plain(shown.decode())
                if not asked and "╯".encode() in shown:
                    process.send_signal(signal.SIGINT)
                    asked = True
    finally:
        os.close(ours)
        os.close(theirs)


def test_ctrl_c_leaves_a_live_view_with_130_and_one_line(tiny_recipe, tmp_path):
    stopped = fake_run(tmp_path / "run", tiny_recipe, LINES)  # waited for, as it may go on
    code, shown = interrupted(stopped)
    assert code == 130
    assert shown.rstrip().endswith("diptych: stopped.")
    assert "Traceback" not in shown


def test_on_a_terminal_runs_stand_side_by_side_in_frames(finished, tiny_recipe, tmp_path, watch, monkeypatch):
    other = fake_run(tmp_path / "other", tiny_recipe, LINES)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    code, shown, _ = watch(finished, other, "--once")
    assert code == 0
    first, second = plain(shown).splitlines()[:2]
    assert re.fullmatch(r"╭─ mine ─+╮╭─ other ─+╮", first)
    assert len(first) == 120
    assert re.search(r"finished, step 8/8 \(100%\).*stopped, step 30/8", second)
    assert sum(chr(0x2801) <= letter <= chr(0x28FF) for letter in shown) > 20
    monkeypatch.setenv("COLUMNS", "80")
    narrow = plain(watch(finished, other, "--once")[1])
    assert {len(line) for line in narrow.splitlines()} == {80}


def test_a_page_holds_curves_settings_bad_samples_and_time(tiny_recipe, tmp_path, watch):
    bad = {"not an image": 6, "<b>shard</b> ended early": 2}
    folder = fake_run(tmp_path / "run", tiny_recipe, [*LINES[:2], LINES[2] | {"bad": bad}])
    code, out, _ = watch(folder, "--report", tmp_path / "page.html")
    assert (code, out) == (
        0,
        f"run, stopped, step 30/8 (375%); the same command goes on with it -> {tmp_path}/page.html\n",
    )
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg role") == 6
    assert ">1.0e-03</text>" in page  # the learning rate on its axis
    assert "29% of the time waits for data" not in page  # evaluation takes more: 6 of 14 seconds
    assert "43% of the time is evaluation" in page
    assert 'waiting for the next batch</span><span class="share">28.6%' in page
    assert "not an image</th><td>6</td><td>2.419%" in page  # of 240 pairs and 8 bad ones
    assert "&lt;b&gt;shard&lt;/b&gt; ended early" in page
    assert "<dt>train.<wbr>learning_<wbr>rate</dt><dd>0.002</dd>" in page
    assert "<dt>data.<wbr>sources[0].<wbr>path</dt>" in page
    assert not re.search(r"https?://", page)


def test_a_page_of_a_run_that_has_just_begun_has_no_curves(tmp_path, watch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    code, _, err = watch(tmp_path / "run", "--report", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert "A run at step 0, stopped." in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "diptych watch must be told the folder of a run, e.g. runs/mine."),
        (["RUN", "RUN", "--report", "page.html"], "A report is of one run. Got 2."),
        (["RUN/nowhere"], "nowhere must be the folder of a run, and has no recipe.toml and no log.jsonl."),
        (["RUN", "--report", "RUN/log.jsonl/page.html"], "could not be written: File exists."),
    ],
)
def test_what_cannot_be_is_one_line(finished, watch, words, sentence):
    code, out, err = watch(*(word.replace("RUN", str(finished)) for word in words))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert "page.html" not in names(finished)
