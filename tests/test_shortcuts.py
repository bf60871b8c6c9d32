from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.audit.shortcuts import partners, shortcuts
from probes import ColourReader, colour_set


def test_partners_are_of_another_class_or_of_the_same():
    targets = np.array([0, 0, 1, 1, 2])
    for seed in range(20):
        others = partners(targets, same=False, seed=seed)
        assert all(targets[other] != target for other, target in zip(others, targets, strict=True))
        assert partners(targets, same=True, seed=seed) == [1, 0, 3, 2, 4]  # the last is alone


def test_a_model_that_sees_colour_alone_is_found_out(tmp_path: Path):
    chapter = shortcuts(ColourReader(), colour_set(tmp_path / "set"))  # pyright: ignore[reportArgumentType]
    found = {(one.case["shown"], one.case["counted"]): one for one in chapter.results if one.case["prompts"] == "bare"}
    assert found["as it is", "right"].value == 1
    assert found["hues turned by 120°", "right"].value == 0
    assert found["hues turned by 120°", "answer changed"].value == 1
    assert found["parts shuffled", "right"].value == 1
    assert found["in the texture of another class", "right"].value == 0
    assert found["in the texture of another class", "follows the other"].value == 1
    assert found["before its own class", "right"].value == 1
    assert found["white frame", "answer changed"].value == 0
    names = {one.name: one for one in chapter.contrasts}
    assert names["right, hues turned by 120°: bare"].is_significant
    assert names["right, parts shuffled: bare"].comparison.difference == 0
    assert chapter.not_measured == ()
    assert chapter.examples
    assert chapter.conditions["cut out"] == "12 of the pictures"


def test_pictures_without_a_plain_ground_are_said_not_to_be_cut_out(tmp_path: Path):
    data = colour_set(tmp_path / "set")
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "set").rglob("*.png")):
        values = np.asarray(Image.open(path)).copy()
        values[values.min(axis=2) == 255] = rng.integers(230, 256, 3)
        values[::2] = rng.integers(0, 256, values[::2].shape)
        Image.fromarray(values).save(path)
    chapter = shortcuts(ColourReader(), data)  # pyright: ignore[reportArgumentType]
    assert "0 of 12" in chapter.not_measured[0]
    assert not any(one.case["varies"] == "background" for one in chapter.results)


def test_a_broken_picture_is_counted_and_left_out(tmp_path: Path):
    data = colour_set(tmp_path / "set")
    (tmp_path / "set" / "red" / "0.png").write_bytes(b"")
    chapter = shortcuts(ColourReader(), data)  # pyright: ignore[reportArgumentType]
    assert {one.n for one in chapter.results} == {11}
    assert chapter.results[0].skipped == {"empty": 1}
    assert pytest.approx(1) == chapter.results[0].value
