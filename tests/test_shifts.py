from collections import Counter
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from diptych.cli.make_data import Shift
from diptych.errors import ConfigError
from diptych.sets.open import read_labelled
from diptych.sets.shifts import SEVERITIES, SHIFTS, shift, shifted


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A smooth ramp with a dark square."""
    ramp = np.linspace(60, 200, 224)[None, :, None] * np.ones((224, 1, 3)) * [1.0, 0.9, 0.8]
    ramp[80:140, 80:140] = 20
    return Image.fromarray(ramp.astype(np.uint8))


def made(photo, kind: str, severity: int = 3, seed: int = 0) -> np.ndarray:
    return np.asarray(shift(photo, kind, severity=severity, rng=np.random.default_rng(seed))).astype(float)


@pytest.mark.parametrize("kind", SEVERITIES)
def test_each_severity_is_further_from_the_picture(photo, kind):
    plain = np.asarray(photo).astype(float)
    far = [np.abs(made(photo, kind, severity) - plain).mean() for severity in range(1, 6)]
    assert far == sorted(far) or kind == "pixelate"  # whose blocks fall on other edges
    assert min(far) > 0
    assert made(photo, kind).shape == plain.shape


def test_strengths_are_those_published(photo):
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    noise = made(grey, "gaussian-noise", 1) / 255
    assert noise.std() == pytest.approx(0.08, rel=0.02)
    assert (made(grey, "impulse-noise", 5) != 128).mean() == pytest.approx(0.27, abs=0.01)
    assert np.unique(made(grey, "impulse-noise", 5)).tolist() == [0, 128, 255]
    shot = made(grey, "shot-noise", 1) / 255  # the variance of a Poisson count is its mean
    assert shot.std() == pytest.approx(np.sqrt(128 / 255 / 60), rel=0.03)
    assert made(grey, "brightness", 1)[0, 0].tolist() == [154, 154, 154]  # 128 + 0.1 * 255, rounded
    plain = np.asarray(photo).astype(float)
    assert made(photo, "contrast", 2)[..., 0].std() == pytest.approx(0.3 * plain[..., 0].std(), rel=0.02)
    assert len(np.unique(made(photo, "pixelate", 5)[0], axis=0)) == 56  # a quarter of 224


def test_a_blur_follows_the_size_of_the_picture(photo):
    small = photo.resize((112, 112), Image.Resampling.BOX)
    twice = made(photo, "gaussian-blur", 5)
    blurred = np.asarray(Image.fromarray(twice.astype(np.uint8)).resize((112, 112), Image.Resampling.BOX)).astype(float)
    assert np.abs(blurred - made(small, "gaussian-blur", 5)).mean() < 1


def test_a_disc_spreads_a_point_evenly_and_motion_along_a_line():
    point = Image.new("RGB", (224, 224))
    point.putpixel((100, 120), (255, 255, 255))
    disc = made(point, "defocus-blur", 2)[..., 0]
    rows, columns = disc.nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (116, 124, 96, 104)  # radius 4
    assert disc[120, 100] == disc[118, 101] == pytest.approx(255 / (np.pi * 4**2), rel=0.2)
    line = made(Image.fromarray(np.where(np.asarray(point) > 0, 255, 0).astype(np.uint8)), "motion-blur", 5)[..., 0]
    places = np.stack(line.nonzero()).T - [120, 100]
    far = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
    assert far[0] > 8 * far[1]  # thin
    assert np.abs(places.mean(axis=0)).max() < 0.5  # to both sides alike


def test_what_is_blurred_or_bent_keeps_its_light_and_a_plain_picture_stays():
    plain = Image.new("RGB", (90, 70), (40, 120, 200))
    for kind in ("defocus-blur", "motion-blur", "zoom-blur", "elastic"):
        assert np.array_equal(made(plain, kind, 5), np.asarray(plain))
        assert made(plain, kind, 5).shape == (70, 90, 3)


def test_zooming_leaves_the_middle_and_moves_the_rim():
    ring = np.zeros((224, 224, 3), np.uint8)
    ring[100:124, 100:124] = 255
    ring[:30] = 255
    zoomed = made(Image.fromarray(ring), "zoom-blur", 5)
    assert zoomed[112, 112, 0] == 255
    assert 0 < zoomed[20, 112, 0] < 255
    assert zoomed[60, 112, 0] == 0


def test_a_bent_picture_is_sampled_from_nearby_points(photo):
    strong, weak = (made(photo, "elastic", severity) for severity in (5, 1))
    plain = np.asarray(photo).astype(float)
    assert np.abs(strong - plain).mean() > np.abs(weak - plain).mean() > 0
    assert strong.min() >= plain.min()
    assert strong.max() <= plain.max()


@pytest.mark.parametrize("kind", ["pencil", "edges"])
def test_sketches_are_grey_lines_where_the_picture_has_edges(photo, kind):
    sketch = made(photo, kind)
    assert np.array_equal(sketch[..., 0], sketch[..., 2])
    assert sketch[80, 110, 0] < 128  # the edge of the square
    assert sketch[20, 40, 0] > 230  # the ramp


def test_noise_goes_by_the_seed(photo):
    assert np.array_equal(made(photo, "gaussian-noise", seed=1), made(photo, "gaussian-noise", seed=1))
    assert not np.array_equal(made(photo, "gaussian-noise", seed=1), made(photo, "gaussian-noise", seed=2))


def test_a_wrong_kind_or_severity_is_named(photo):
    with pytest.raises(ConfigError, match=r"pensil is not a kind of shift. Did you mean pencil\?"):
        made(photo, "pensil")
    with pytest.raises(ConfigError, match=r"from 1 to 5. Got 6"):
        made(photo, "jpeg", 6)


def test_a_picture_that_cannot_be_read_is_counted_and_left_out(photo, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        photo.save(tmp_path / name / "1.png")
    (tmp_path / "a" / "0.png").write_bytes(b"")
    skipped: Counter[str] = Counter()
    rows = list(shifted(read_labelled(tmp_path), "edges", skipped=skipped))
    assert [(key, label) for key, _, label in rows] == [("000001", 0), ("000002", 1)]
    assert skipped == {"empty": 1}


def test_the_command_offers_all_kinds():
    assert get_args(Shift) == SHIFTS
