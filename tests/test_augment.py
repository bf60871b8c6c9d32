from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from diptych.data.images import Preprocess
from diptych.errors import ConfigError
from diptych.pairs.augment import Augment, _Draws

WHOLE: dict[str, Any] = {"crop_scale": (1, 1), "crop_ratio": (1, 1)}
EVERYTHING: dict[str, Any] = {
    "rotate": 20,
    "shear": 8,
    "translate": 0.1,
    "flip": True,
    "color": 0.4,
    "hue": 0.1,
    "grayscale": 0.2,
    "lines": 0.3,
    "posterize": 0.3,
    "tone": 0.5,
    "margin": 0.3,
}


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def ramp(width, height):
    """Red is the place in x, green the place in y, both as shares of the side times 200, plus 20."""
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    channels = [
        np.tile(20 + 200 * x, (height, 1)),
        np.tile(20 + 200 * y[:, None], (1, width)),
        np.zeros((height, width)),
    ]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def map_of(pixels):
    """Where a picture of `ramp` was read: [2, 3], x and y by (u, v, 1); u, v are 0 in the middle of the output."""
    side = len(pixels)
    middle = slice(side // 4, side - side // 4)
    at = (np.arange(side) + 0.5) / side - 0.5
    u, v = (a[middle, middle].ravel() for a in np.meshgrid(at, at))
    inputs = np.stack([u, v, np.ones_like(u)], axis=-1)
    places = (pixels[middle, middle, :2].reshape(-1, 2) - 20.0) / 200
    return np.linalg.lstsq(inputs, places, rcond=None)[0].T


def test_a_picture_is_fixed_where_nothing_but_a_flip_is_drawn():
    assert Augment(**WHOLE).is_fixed
    assert Augment(**WHOLE, flip=True).is_fixed
    assert not Augment().is_fixed
    for name in EVERYTHING.keys() - {"flip"}:
        assert not Augment(**WHOLE, **{name: EVERYTHING[name]}).is_fixed, name


def test_all_off_is_preprocess_itself():
    augment, generator = Augment(**WHOLE), np.random.default_rng(0)
    for resize in ("shortest", "squash"):
        preprocess = Preprocess(image_size=32, resize=resize)
        for size in [(64, 64), (32, 32), (100, 37), (19, 45)]:
            pixels = augment(noise(*size), generator, preprocess)
            np.testing.assert_array_equal(pixels, preprocess.pixels(noise(*size)))


@pytest.mark.parametrize(
    ("resize", "size"), [("shortest", (300, 300)), ("shortest", (400, 300)), ("squash", (400, 200))]
)
def test_the_default_is_a_random_resized_crop(resize, size):
    augment, generator = Augment(crop_scale=(0.3, 0.5)), np.random.default_rng(0)
    areas, ratios, lefts = [], [], []
    for _ in range(40):
        (width, skew_x, x), (skew_y, height, y) = map_of(
            augment(ramp(*size), generator, Preprocess(image_size=64, resize=resize))
        )
        assert abs(skew_x) + abs(skew_y) < 0.01
        assert min(x - width / 2, y - height / 2) > -0.01
        assert max(x + width / 2, y + height / 2) < 1.01
        areas.append(width * height)
        ratios.append(width / height * (size[0] / size[1] if resize == "shortest" else 1))
        lefts.append(x - width / 2)
    assert 0.29 < min(areas) < 0.35 < 0.45 < max(areas) < 0.51
    assert 0.74 < min(ratios) < 0.85 < 1.2 < max(ratios) < 1.35
    assert min(lefts) < 0.1 < 0.25 < max(lefts)


def test_a_crop_that_does_not_fit_is_shrunk_and_placed_along_the_longer_side():
    augment, generator = Augment(crop_scale=(1, 1), crop_ratio=(1.0, 1.0001)), np.random.default_rng(0)
    maps = [map_of(augment(ramp(400, 200), generator, Preprocess(image_size=64))) for _ in range(20)]
    for (width, _, _), (_, height, y) in maps:
        np.testing.assert_allclose([width, height, y], [0.5, 1, 0.5], atol=0.02)  # a square of the shorter side
    places = [x for (_, _, x), _ in maps]
    assert 0.24 < min(places) < 0.35 < 0.65 < max(places) < 0.76


@pytest.mark.parametrize("source", [512, 96, 32])  # read from a smaller copy, as it is, from a larger copy
def test_rotation_turns_about_the_middle_and_keeps_lengths(source):
    augment, generator = Augment(**WHOLE, rotate=30), np.random.default_rng(0)
    angles = []
    for _ in range(20):
        places = map_of(augment(ramp(source, source), generator, Preprocess(image_size=64)))
        np.testing.assert_allclose(places[:, :2] @ places[:, :2].T, np.eye(2), atol=0.02)
        np.testing.assert_allclose(places[:, 2], 0.5, atol=0.006)  # 0.006 is 0.4 px of the output
        angles.append(np.degrees(np.arctan2(places[1, 0], places[0, 0])))
    assert -31 < min(angles) < -15
    assert 15 < max(angles) < 31


@pytest.mark.parametrize("size", [(512, 256), (40, 30)])
def test_a_rotation_of_a_picture_that_is_not_square_keeps_lengths_in_pixels(size):
    augment, generator = Augment(**WHOLE, rotate=30), np.random.default_rng(0)
    places = map_of(augment(ramp(*size), generator, Preprocess(image_size=64))) * np.array(size)[:, None] / min(size)
    np.testing.assert_allclose(places[:, :2] @ places[:, :2].T, np.eye(2), atol=0.02)
    np.testing.assert_allclose(places[:, 2], np.array(size) / min(size) / 2, atol=0.02)  # and turns about the middle


def test_shear_slides_rows_and_translation_moves():
    generator, preprocess = np.random.default_rng(0), Preprocess(image_size=64)
    sheared = [map_of(Augment(**WHOLE, shear=20)(ramp(96, 96), generator, preprocess)) for _ in range(20)]
    np.testing.assert_allclose([p[1] for p in sheared], [[0, 1, 0.5]] * 20, atol=0.01)
    np.testing.assert_allclose([p[0, 0] for p in sheared], 1, atol=0.01)
    slides = [p[0, 1] for p in sheared]
    assert -np.tan(np.radians(20.5)) < min(slides) < -0.2 < 0.2 < max(slides) < np.tan(np.radians(20.5))
    moved = np.array([map_of(Augment(**WHOLE, translate=0.2)(ramp(96, 96), generator, preprocess)) for _ in range(20)])
    np.testing.assert_allclose(moved[:, :, :2], [np.eye(2)] * 20, atol=0.01)
    for places in (moved[:, 0, 2], moved[:, 1, 2]):
        assert 0.29 < places.min() < 0.4 < 0.6 < places.max() < 0.71


def test_what_leaves_the_frame_is_white_and_only_that():
    black = Image.new("RGB", (96, 96))
    generator = np.random.default_rng(0)
    for _ in range(10):
        pixels = Augment(**WHOLE, rotate=45)(black, generator, Preprocess(image_size=64))
        assert pixels[16:48, 16:48].max() == 0
        assert set(np.unique(pixels)) <= {0, 255}
    large = Augment(**WHOLE, translate=0.5)(
        black.resize((640, 640)), np.random.default_rng(1), Preprocess(image_size=64)
    )
    draws = _Draws(*np.random.default_rng(1).random(len(_Draws._fields)))
    kept = (1 - abs(draws.translate_x - 0.5)) * (1 - abs(draws.translate_y - 0.5))
    assert (large == 0).mean() == pytest.approx(kept, abs=0.03)


def test_a_large_picture_is_reduced_without_aliasing():
    checkers = Image.fromarray((np.indices((640, 640)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("RGB")
    for rotate in (0, 20):
        pixels = Augment(rotate=rotate)(checkers, np.random.default_rng(0), Preprocess(image_size=48))[12:-12, 12:-12]
        assert np.abs(pixels.astype(int) - 127).max() <= 3


def test_flip_mirrors_half_of_the_time_and_leaves_the_other_choices_alone():
    flips = 0
    for seed in range(40):
        plain, flipped = (
            Augment(flip=flip)(noise(40, 40), np.random.default_rng(seed), Preprocess(image_size=24))
            for flip in (False, True)
        )
        mirrored = np.array_equal(flipped, plain[:, ::-1])
        assert mirrored or np.array_equal(flipped, plain)
        flips += mirrored
    assert 10 <= flips <= 30


def test_color_equals_its_plain_twin():
    image = Image.fromarray(np.random.default_rng(0).integers(100, 150, (16, 16, 3), dtype=np.uint8))
    augment, preprocess = Augment(**WHOLE, color=0.3), Preprocess(image_size=16)
    for seed in range(5):
        draws = _Draws(*np.random.default_rng(seed).random(len(_Draws._fields)))
        x = np.array(image, dtype=float)
        x = x * (0.7 + 0.6 * draws.brightness)
        mean_luma = (x @ [0.299, 0.587, 0.114]).mean()
        x = mean_luma + (x - mean_luma) * (0.7 + 0.6 * draws.contrast)
        luma = (x @ [0.299, 0.587, 0.114])[..., None]
        x = luma + (x - luma) * (0.7 + 0.6 * draws.saturation)
        pixels = augment(image, np.random.default_rng(seed), preprocess)
        assert np.abs(pixels - x).max() <= 0.51  # rounded, and nothing else


def test_grayscale_is_the_luma_and_hue_keeps_it():
    generator, preprocess = np.random.default_rng(0), Preprocess(image_size=1)
    image = Image.new("RGB", (1, 1), (200, 100, 50))  # luma 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert Augment(**WHOLE, grayscale=1)(image, generator, preprocess).tolist() == [[[124, 124, 124]]]
    image = Image.new("RGB", (1, 1), (140, 120, 110))
    turned = np.array([Augment(**WHOLE, hue=0.5)(image, generator, preprocess)[0, 0] for _ in range(20)])
    np.testing.assert_allclose(turned @ [0.299, 0.587, 0.114], 124.84, atol=0.6)
    assert (turned.argmax(axis=1) != 0).any()
    grey = Image.new("RGB", (1, 1), (90, 90, 90))
    assert Augment(**WHOLE, hue=0.5)(grey, generator, preprocess).tolist() == [[[90, 90, 90]]]


@pytest.mark.parametrize("style", [{"lines": 1.0}, {"posterize": 1.0}, {"tone": 1.0}, {"margin": 1.0}])
def test_a_style_leaves_all_other_choices_alone_those_after_the_picture_too(style):
    generator, other = np.random.default_rng(5), np.random.default_rng(5)
    plain = Augment(**WHOLE, translate=0.2)(ramp(96, 96), generator, Preprocess(image_size=64))
    styled = Augment(**WHOLE, translate=0.2, **style)(ramp(96, 96), other, Preprocess(image_size=64))
    assert (plain != styled).mean() > 0.3
    assert generator.random() == other.random()
    if not style.keys() & {"margin", "lines"}:  # which move what they read, or draw on the white
        assert ((plain == 255).all(axis=-1) <= (styled == 255).all(axis=-1)).all()  # moved alike


def test_styles_come_as_often_as_they_are_asked_for():
    image, preprocess = noise(32, 32), Preprocess(image_size=32)
    found = [Augment(**WHOLE, lines=0.25)(image, np.random.default_rng(seed), preprocess) for seed in range(200)]
    grey = [np.ptp(pixels, axis=-1).max() == 0 for pixels in found]
    assert 30 <= sum(grey) <= 70
    assert all(is_grey or np.array_equal(pixels, np.array(image)) for pixels, is_grey in zip(found, grey, strict=True))
    levels = [
        len(np.unique(Augment(**WHOLE, posterize=1)(image, np.random.default_rng(seed), preprocess)))
        for seed in range(60)
    ]
    assert set(levels) == {2, 3, 4, 5}


def test_tone_goes_to_either_side_and_not_too_far():
    image, preprocess = Image.new("RGB", (1, 1), (64, 64, 64)), Preprocess(image_size=1)
    found = [Augment(**WHOLE, tone=1)(image, np.random.default_rng(s), preprocess)[0, 0, 0] for s in range(100)]
    assert 16 <= min(found) < 24  # 255 * (64 / 255) ** 2 = 16.06
    assert 115 < max(found) <= 128  # 255 * (64 / 255) ** 0.5 = 127.75
    assert 35 < sum(value < 64 for value in found) < 65


def test_a_margin_is_white_and_around_the_middle():
    preprocess, found = Preprocess(image_size=64), []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        places = map_of(Augment(**WHOLE, margin=0.5)(ramp(128, 64), generator, preprocess))
        np.testing.assert_allclose(places[:, 2], 0.5, atol=0.01)
        np.testing.assert_allclose(places[0, 0] * 2, places[1, 1], atol=0.04)  # the shorter side is the whole crop
        found.append(places[1, 1])
        black = Augment(**WHOLE, margin=0.5)(Image.new("RGB", (64, 64)), np.random.default_rng(seed), preprocess)
        assert (black == 0).mean() == pytest.approx(1 / places[1, 1] ** 2, abs=0.05)
    assert 0.99 < min(found) < 1.15
    assert 1.35 < max(found) < 1.52


def test_the_same_generator_state_gives_the_same_picture():
    augment, preprocess, image = Augment(**EVERYTHING), Preprocess(image_size=48), noise(64, 64)
    first, again, other = (augment(image, np.random.default_rng(seed), preprocess) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    side=st.integers(1, 50),
    seed=st.integers(0, 99),
    resize=st.sampled_from(["shortest", "squash"]),
    strength=st.floats(0, 1),
)
def test_any_options_on_any_picture_give_a_picture(width, height, side, seed, resize, strength):
    augment = Augment(
        crop_scale=(1 - 0.95 * strength, 1.0),
        crop_ratio=(0.5, 2.0),
        rotate=180 * strength,
        shear=60 * strength,
        translate=0.5 * strength,
        flip=True,
        color=strength,
        hue=0.5 * strength,
        grayscale=0.5,
        lines=strength / 2,
        posterize=strength / 2,
        tone=4 * strength,
        margin=strength,
    )
    pixels = augment(noise(width, height), np.random.default_rng(seed), Preprocess(image_size=side, resize=resize))
    assert (pixels.shape, pixels.dtype) == ((side, side, 3), np.uint8)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize(
    "options",
    [
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 1.1)},
        {"crop_ratio": (2.0, 1.0)},
        {"crop_ratio": (1.0,)},
        {"rotate": -1},
        {"shear": 61},
        {"translate": 0.6},
        {"color": 1.5},
        {"hue": 0.6},
        {"grayscale": float("nan")},
        {"lines": 1.1},
        {"posterize": -0.1},
        {"tone": 5},
        {"margin": float("nan")},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Augment(**options)


@pytest.mark.parametrize("seed", range(4))
def test_a_picture_that_keeps_its_shape_is_turned_and_not_sheared(seed):
    wide = Image.new("RGB", (192, 96), "white")
    ImageDraw.Draw(wide).ellipse((72, 24, 120, 72), fill="black")
    preprocess = Preprocess(image_size=48, resize="naflex", patch_size=8, max_patches=32)  # 4 x 8 patches
    turned = Augment(crop_scale=(1, 1), crop_ratio=(1, 1), rotate=60)
    rows = turned(wide, np.random.default_rng(seed), preprocess)
    assert rows[-1, :2].tolist() == [4, 8]
    pixels = rows[:, 2:].reshape(4, 8, 8, 8, 3).swapaxes(1, 2).reshape(32, 64, 3)
    down, across = (pixels[..., 0] < 128).nonzero()
    assert abs(np.ptp(down) - 15) <= 1  # a disc stays a disc, of 16 pixels
    assert abs(np.ptp(across) - 15) <= 1
    assert abs(down.mean() - 15.5) < 0.5
    assert abs(across.mean() - 31.5) < 0.5
