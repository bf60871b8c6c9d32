"""The history of benchmarks: a line of it, the comparison of two. The script for a GPU, without one."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    import compare
    import history

    yield history, compare
    for name in ("history", "compare"):
        del sys.modules[name]


def line(figures: dict[str, float], *, commit: str = "a", threads: int = 2, instructions: tuple[str, ...] = ("avx2",)):
    hardware = {"cpu": "x", "cores": 2, "threads": threads}
    return {
        "commit": commit,
        "date": "2026-11-29",
        "hardware": hardware,
        "instructions": list(instructions),
        "figures": figures,
    }


def test_a_run_without_torch_is_held_against_one_with_it(modules):
    _, compare = modules
    without = line({"ms": 2.0}, commit="now")
    del without["hardware"]["threads"]
    assert compare.is_comparable(line({"ms": 4.0}), without)
    assert compare.is_comparable(without, line({"ms": 4.0}))
    assert not compare.is_comparable(line({"ms": 4.0}, threads=1), line({"ms": 4.0}))


def test_each_number_of_a_result_has_one_name(modules):
    history, _ = modules
    result = {
        "seed": 0,
        "what": "words",
        "hardware": {"cores": 2},
        "rows": [{"loss": "a", "rows": 4, "ms": 1.5, "ok": True}, {"loss": "a", "rows": 8, "ms": {"slow": 2}}],
        "interval": [0.1, 0.2],
    }
    assert dict(history.figures(result, ("loss", "rows"))) == {
        "rows/a, 4/ms": 1.5,
        "rows/a, 8/ms/slow": 2,
        "interval/0": 0.1,
        "interval/1": 0.2,
    }
    with pytest.raises(AssertionError, match="must tell the rows of rows apart"):
        list(history.figures(result, ("loss",)))


def test_a_run_replaces_the_result_and_adds_a_line(modules, tmp_path):
    history, _ = modules
    history.write(tmp_path / "x.json", {"ms": 1})
    history.write(tmp_path / "x.json", {"ms": 2, "earlier": {"ms": 1}}, measured={"ms": 2})
    assert json.loads((tmp_path / "x.json").read_text()) == {"ms": 2, "earlier": {"ms": 1}}
    lines = history.read(tmp_path / "x.jsonl")
    assert [line["figures"] for line in lines] == [{"ms": 1}, {"ms": 2}]
    assert {"cpu", "cores", "threads", "torch", "python"} <= lines[0]["hardware"].keys()
    assert all(lines[0][name] for name in ("commit", "date"))


def test_a_run_is_held_against_the_newest_one_on_the_same_hardware(modules):
    _, compare = modules
    runs = [
        line({"ms": 9.0}, commit="old"),
        line({"ms": 4.0, "mb": 100, "same": 1, "gone": 1, "was nothing": 0}, commit="before"),
        line({"ms": 1.0}, commit="other threads", threads=1),
        line({"ms": 1.0}, commit="other sets", instructions=("avx2", "amx_bf16")),
        line({"other": 1.0}, commit="another part"),
        line({"ms": 2.0, "mb": 130, "same": 1.01, "new": 5, "was nothing": 1}, commit="now"),
    ]
    first, *rest = compare.report("x", runs, 1.1)
    assert first == "x: before of 2026-11-29 -> now of 2026-11-29; 3 of 4 figures moved"
    assert [row.split() for row in rest] == [
        ["inf", "0", "->", "1", "was", "nothing"],
        ["0.500", "4", "->", "2", "ms"],
        ["1.300", "100", "->", "130", "mb"],
    ]
    assert list(compare.report("x", runs[:1], 1.1)) == [
        "x: old of 2026-11-29 is the first run of its figures on its hardware"
    ]


def test_a_line_without_instruction_sets_is_compared_and_said_so(modules):
    _, compare = modules
    [text] = compare.report("x", [line({"ms": 1.0}, instructions=()), line({"ms": 1.0})], 1.1)
    assert "instruction sets were not noted" in text
    assert compare.distance(2) == compare.distance(0.5) == math.log(2)


def test_every_result_file_has_its_history(modules):
    history, _ = modules
    for path in history.RESULTS.glob("*.json"):
        for run in history.read(path.with_suffix(".jsonl")):
            assert run.keys() == {"commit", "date", "hardware", "instructions", "figures"}, path.name
            assert run["figures"], path.name


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=1200)


def test_the_script_for_a_gpu_runs_in_all_its_parts_without_one(tmp_path):
    pytest.importorskip("grain")
    out = tmp_path / "gpu.json"
    done = run_python("gpu.py", "--device", "cpu", "--tiny", "--out", str(out))
    parts = json.loads(out.read_text())["parts"]
    assert done.returncode == 0, parts
    checked = {name for name, part in parts.items() if part.get("holds")}
    assert checked >= {"loss", "run", "ddp", "float16", "muon", "compile", "step ViT-B-32", "step ViT-B-16"}
    ways = {name.removeprefix("vit, ") for name in parts["curves"]["rows"]}
    assert ways >= {"float32, adamw", "bfloat16, adamw", "float16, adamw", "float32, muon"}
    assert [line["figures"] for line in map(json.loads, out.with_suffix(".jsonl").read_text().splitlines())]


def test_one_part_for_a_gpu_does_not_take_the_others(tmp_path):
    code = """if True:
        import os, pathlib, sys, time
        import gpu
        def wrong(setting): raise ValueError("no")
        gpu.PARTS = {"dies": (lambda _: os._exit(3), 60), "hangs": (lambda _: time.sleep(600), 60),
                     "raises": (wrong, 60), "does not hold": (lambda _: {"rows": {"a": {"holds": False}}}, 60),
                     "is good": (lambda _: {}, 60)}
        gpu.TINY_LIMIT = 5
        gpu.main()
        """
    out = tmp_path / "gpu.json"
    done = run_python("-c", code, "--device", "cpu", "--tiny", "--out", str(out))
    parts = json.loads(out.read_text())["parts"]
    assert {name: part.get("failed") for name, part in parts.items()} == {
        "dies": "exit code 3",
        "hangs": "not done after 5 s",
        "raises": "ValueError: no",
        "does not hold": None,
        "is good": None,
    }
    assert done.returncode == 1
    assert "1 of 5 parts are good. dies, hangs, raises, does not hold" in done.stdout


def test_without_a_gpu_the_script_for_one_writes_nothing(modules, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "gpu.json")])
    import gpu

    gpu.main()
    del sys.modules["gpu"]
    assert "torch sees no GPU" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
