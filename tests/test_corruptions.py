import numpy as np
import pytest
from PIL import Image

from diptych.audit.corruptions import LEVELS, _corrupted, corruptions
from diptych.sets.shifts import SEVERITIES
from probes import ColourReader, colour_set


@pytest.fixture(scope="module")
def chapter(tmp_path_factory: pytest.TempPathFactory):
    data = colour_set(tmp_path_factory.mktemp("colours") / "set", each=2)
    return corruptions(ColourReader(), data, seed=1)  # pyright: ignore[reportArgumentType]


def test_each_corruption_is_a_curve_of_five_severities(chapter):
    found = {(one.case["shown"], one.case["severity"]): one for one in chapter.results if one.case["prompts"] == "bare"}
    assert set(found) == {("as it is", "")} | {("all corruptions", str(level)) for level in LEVELS} | {
        (kind, "1 to 5") for kind in ("all corruptions", *SEVERITIES)
    }
    assert found["as it is", ""].value == 1
    for kind in SEVERITIES:
        curve = [found[kind, "1 to 5"].numbers[f"severity {level}"] for level in LEVELS]
        assert found[kind, "1 to 5"].value == pytest.approx(np.mean(curve))
        assert found[kind, "1 to 5"].n == 6  # a row a picture: what was done to one is drawn together


def test_the_mean_is_over_corruptions_and_severities(chapter):
    found = {(one.case["shown"], one.case["severity"]): one for one in chapter.results if one.case["prompts"] == "bare"}
    of_kinds = np.mean([found[kind, "1 to 5"].value for kind in SEVERITIES])
    of_levels = np.mean([found["all corruptions", str(level)].value for level in LEVELS])
    assert found["all corruptions", "1 to 5"].value == pytest.approx(of_kinds)
    assert of_levels == pytest.approx(of_kinds)
    assert found["all corruptions", "1 to 5"].numbers["severity 3"] == found["all corruptions", "3"].value
    assert len(chapter.contrasts) == 2 * len(SEVERITIES)


def test_the_same_picture_gets_the_same_noise_and_small_ones_are_enlarged():
    picture = Image.new("RGB", (32, 64), (90, 120, 150))
    once, again, other = (
        np.asarray(_corrupted(picture, index, kind="gaussian-noise", level=2, seed=0)) for index in (3, 3, 4)
    )
    assert once.shape == (448, 224, 3)
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
