"""Does a model look where the thing is: a stand-in that does, one that does not, and the command on a shipped model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundles import make, new_tokenizer
from diptych.audit.pointing import pointing
from diptych.cli.main import main
from diptych.eval.chapter import Chapter
from diptych.eval.features import ModelFeatures
from diptych.eval.result import Result
from diptych.eval.result_file import read_audit
from diptych.measures.unit_length import unit_length
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle
from test_composed import COLOURS, colours  # noqa: F401, a fixture

Grid = Callable[[np.ndarray], np.ndarray]


def features_with(monkeypatch: pytest.MonkeyPatch, grid: Grid) -> ModelFeatures:
    """A model whose texts are their colours, and whose grids are what a function makes of pixels."""

    def encode_texts(self: Bundle, texts: list[str], **_: object) -> np.ndarray:
        rows = np.zeros((len(texts), self.embed_dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[3] = 0.1  # of words that are no colour, too
            for name, colour in COLOURS.items():
                if name in text.split() or name in text.rstrip(".").split():
                    row[:3] = np.array(colour) / 255
        return unit_length(rows)

    monkeypatch.setattr(Bundle, "encode_texts", encode_texts)
    monkeypatch.setattr(Bundle, "unread", lambda self, texts: [])
    monkeypatch.setattr(Bundle, "encode_grid", lambda self, pixels: grid(pixels))
    return ModelFeatures(make("tiny-vit", new_tokenizer()))


def by_colour(pixels: np.ndarray) -> np.ndarray:
    """[B, 8, 8, 32]: the colour of each cell."""
    cells = pixels.reshape(len(pixels), 8, pixels.shape[1] // 8, 8, pixels.shape[2] // 8, 3).mean(axis=(2, 4)) / 255
    grid = np.zeros((len(pixels), 8, 8, 32), np.float32)
    grid[..., :3] = cells
    grid[..., 3] = 0.1
    return grid


def mirrored(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(by_colour(pixels)[:, :, ::-1])


def of(chapter: Chapter, **case: str) -> Result:
    (found,) = [result for result in chapter.results if case.items() <= dict(result.case).items()]
    return found


def test_a_model_that_sees_each_place_points_rightly_and_one_that_mirrors_pictures_never(
    monkeypatch: pytest.MonkeyPatch,
    colours: LabelledImages,  # noqa: F811
):
    sees = pointing(features_with(monkeypatch, by_colour), colours, scenes=6, curves=2)
    case = {"prompts": "bare", "scene": "2 pictures"}
    assert of(sees, **case, asked="points into it").value == 1
    assert of(sees, **case, asked="points into it").n == 12
    assert of(sees, **case, asked="cells right").value == 1
    assert of(sees, **case, asked="IoU").value == 1
    assert of(sees, prompts="sentence", scene="4 pictures", asked="points into it").n == 24
    assert sees.examples == ()
    mirror = pointing(features_with(monkeypatch, mirrored), colours, scenes=6, curves=2)
    assert of(mirror, **case, asked="points into it").value == 0
    assert of(mirror, **case, asked="cells right").value == 0
    assert len(mirror.examples) == 12
    assert mirror.examples[0].picture is not None


def test_chance_is_said_and_is_what_maps_of_noise_reach(
    monkeypatch: pytest.MonkeyPatch,
    colours: LabelledImages,  # noqa: F811
):
    random = np.random.default_rng(0)
    noise = pointing(
        features_with(monkeypatch, lambda pixels: random.normal(size=(len(pixels), 8, 8, 32)).astype(np.float32)),
        colours,
        scenes=150,
        curves=1,
    )
    for scene, chance in (("2 pictures", 1 / 2), ("4 pictures", 1 / 4)):
        for asked, bound in (("points into it", 0.1), ("cells right", 0.05)):
            result = of(noise, prompts="bare", scene=scene, asked=asked)
            assert result.numbers["chance"] == chance
            assert abs(result.value - chance) < bound
    overlap = of(noise, prompts="bare", scene="4 pictures", asked="IoU")
    assert overlap.value == pytest.approx(overlap.numbers["chance"], abs=0.03)


def test_the_set_may_have_too_few_classes_for_the_larger_scenes_which_is_said(
    monkeypatch: pytest.MonkeyPatch,
    colours: LabelledImages,  # noqa: F811
    tmp_path: Path,
):
    for name in ("red", "green"):
        (tmp_path / "set" / name / "0.png").unlink()
        (tmp_path / "set" / name).rmdir()
    chapter = pointing(features_with(monkeypatch, by_colour), read_labelled(tmp_path / "set"), scenes=3, curves=1)
    assert chapter.not_measured == ("Scenes of 4: the set has too few classes.",)
    assert not any("absent" in result.case["asked"] for result in chapter.results)


def test_the_command_prints_the_chapter_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [
        "audit",
        "pointing",
        "diptych-pictogram",
        "--scenes",
        "12",
        "--curves",
        "6",
        "--out",
        tmp_path,
        "--seed",
        "3",
    ]
    assert main([*map(str, words)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Does it look where the thing is?")
    assert "chance is 50%" in printed
    kept = read_audit(tmp_path / "pointing.json").chapters[0].results
    pointed = kept[0]
    assert pointed.case["asked"] == "points into it"
    assert pointed.value > 0.9
    areas = {(one.case["asked"], one.case.get("order")): one.value for one in kept}
    assert areas["deletion", "by the map"] < areas["deletion", "at random"]
    assert areas["insertion", "by the map"] > areas["insertion", "at random"]
