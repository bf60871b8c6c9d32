"""`diptych caption`: what it prints, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import drawing, png
from diptych.cli.main import main
from diptych.train.captioner import Caption
from diptych.train.heads import Captioner, Heads
from diptych.train.trainer import train
from diptych.weights.bundle import Bundle
from runs import change

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def captioner(tiny_recipe, tmp_path_factory) -> Path:
    objectives = (*tiny_recipe.objectives, Caption(width=16, heads=2))
    out = tmp_path_factory.mktemp("captioner")
    train(change(tiny_recipe, objectives=objectives, steps=2), out)
    return out / "bundle"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["caption", *map(str, words)])
        return code, *capsys.readouterr()

    return run_


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    path.write_bytes(png(drawing("red", "circle", 32)))
    return path


def test_one_picture_gets_a_line_that_is_the_captioners_text(captioner, picture, run):
    text, written = Captioner(Bundle.load(captioner), Heads.load(captioner))(picture, beams=2)
    assert run(picture, "--model", captioner, "--beams", 2) == (0, f"{text}\n", "")
    code, out, _ = run(picture, "--model", captioner, "--beams", 2, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["beams"] == 2
    assert told["images"] == [{"path": str(picture), "caption": text, "score": written.score}]


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_written(captioner, picture, run):
    (picture.parent / "torn.png").write_bytes(picture.read_bytes()[:40])
    code, out, err = run(picture.parent, "--model", captioner)
    assert code == 0
    assert "red.png" in out
    assert "torn.png" not in out
    assert err.startswith("diptych: skipped: ")
    code, out, err = run(picture.parent / "torn.png", "--model", captioner)
    assert (code, out) == (2, "")
    assert "torn.png" in err


def test_a_model_that_writes_no_captions_and_a_call_without_pictures_are_refused(undisturbed, picture, run):
    code, out, err = run(picture, "--model", undisturbed[0] / "bundle")
    assert (code, out) == (2, "")
    assert "must have learned to write captions" in err
    code, out, err = run("--model", undisturbed[0] / "bundle")
    assert (code, out) == (2, "")
    assert "there must be a picture" in err
