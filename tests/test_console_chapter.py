"""Chapters as commands print and keep them, each by its own command."""

from pathlib import Path

import pytest

from diptych.cli.main import main
from diptych.eval.result_file import read_audit
from diptych.weights.bundle import Bundle


@pytest.mark.parametrize("name", ["wording", "typographic", "shortcuts", "corruptions"])
def test_a_probe_of_labelled_pictures_is_told_and_written(
    name: str, labelled_sets: Path, tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
):
    tiny_bundle.save(tmp_path / "tiny")
    command = ["audit", name, str(tmp_path / "tiny"), "--data", str(labelled_sets / "colours"), "--pictures", "4"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "95% interval" in out
    assert "p, Holm" in out
    assert "pictures: 4" in out
    kept = read_audit(tmp_path / "out" / f"{name}.json")  # with its model, so that another may be held against it
    assert kept.model.fingerprint == tiny_bundle.fingerprint()
    (chapter,) = kept.chapters
    assert chapter.name == name
    assert chapter.results[0].rows.keys
    assert chapter.results[0].model == kept.model
    assert all(one.picture is None for one in chapter.examples)


def test_scenes_are_drawn_told_and_written(tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]):
    tiny_bundle.save(tmp_path / "tiny")
    command = ["audit", "scenes", str(tmp_path / "tiny"), "--pairs", "1", "--counts", "10"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "without word order" in out
    assert "Counting solids from one to ten" in out
    assert read_audit(tmp_path / "out" / "scenes.json").chapters[0].name == "scenes"


def test_own_wordings_take_the_place_of_those_that_ship(
    labelled_sets: Path, tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
):
    tiny_bundle.save(tmp_path / "tiny")
    own = tmp_path / "own.toml"
    own.write_text('[[wording]]\nkind = "a"\ntemplate = "a {}"\n[[wording]]\nkind = "b"\ntemplate = "my {}"\n')
    command = ["audit", "wording", str(tmp_path / "tiny"), "--data", str(labelled_sets / "colours")]
    assert main([*command, "--wordings", str(own)]) == 0
    assert "my {} against a {}" in capsys.readouterr().out


def test_drawn_scenes_are_written_the_same_each_time_and_measured_as_tasks(
    tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
):
    for folder in ("one", "two"):
        command = ["make-data", "scenes", str(tmp_path / folder), "--tasks", "size", "--tasks", "counting"]
        assert main([*command, "--pairs", "2", "--counts", "10"]) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [f"scenes_{task}_{kind}" for task in ("counting", "size") for kind in ("drawings", "solids")]
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert Path("scenes_size_solids/order.json") in files
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    tiny_bundle.save(tmp_path / "tiny")
    capsys.readouterr()
    for name, n in (("scenes_size_drawings", "8"), ("scenes_counting_solids", "10")):
        data = str(tmp_path / "one" / name)
        assert main(["evaluate", "zero-shot", "--data", data, "--model", str(tmp_path / "tiny")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split()[0] == name
        assert n in lines[1].split()
