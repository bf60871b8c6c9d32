import numpy as np
import pytest
from PIL import Image

from diptych.audit.compose import (
    before,
    coarser,
    framed,
    grey,
    in_texture,
    marked,
    object_mask,
    on_colour,
    shuffled,
    silhouette,
    turned_hue,
)


def ring(colour: tuple[int, int, int] = (200, 30, 30)) -> Image.Image:
    """A ring on white, whose hole is white, too."""
    v, u = np.mgrid[-32:32, -32:32]
    far = np.hypot(u, v)
    return Image.fromarray(np.where(((far < 26) & (far > 12))[..., None], colour, 255).astype(np.uint8))


def test_the_ground_is_what_hangs_together_with_the_border():
    mask = object_mask(ring())
    assert mask is not None
    assert mask[32, 32]  # white within the ring is no ground
    assert not mask[0, 0]
    assert mask.sum() == pytest.approx(np.pi * 26**2, rel=0.03)


def test_pictures_without_a_plain_ground_or_without_an_object_have_no_mask():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert object_mask(noise) is None
    assert object_mask(Image.new("RGB", (64, 64), "white")) is None


def test_an_object_keeps_its_pixels_before_another_ground():
    blue, scene = Image.new("RGB", (90, 30), (0, 0, 250)), ring()
    shown = np.asarray(before(scene, blue))
    mask = object_mask(scene)
    assert mask is not None
    assert np.array_equal(shown[mask], np.asarray(scene)[mask])
    assert (shown[~mask] == (0, 0, 250)).all()
    assert np.array_equal(np.asarray(on_colour(scene, 0, colour=(0, 0, 250))), shown)
    black = np.asarray(silhouette(scene, 0))
    assert (black[mask] == 0).all()
    assert (black[~mask] == 255).all()


def test_a_texture_fills_the_shape_of_another():
    shown = np.asarray(in_texture(ring(), ring((20, 160, 20))))
    mask = object_mask(ring())
    assert mask is not None
    assert (shown[~mask] == 255).all()
    inside = shown[mask].astype(int)
    assert (inside[:, 1] > inside[:, 0] + 50).mean() > 0.3  # green, with the white that lies between
    assert not (inside[:, 0] > inside[:, 1] + 50).any()  # nothing red is left


def test_colours_go_or_turn():
    assert grey(ring(), 0).getpixel((32, 12)) == (81, 81, 81)
    assert turned_hue(ring(), 0, turn=1 / 3).getpixel((32, 12)) == (30, 200, 30)
    assert turned_hue(ring(), 0, turn=1 / 3).getpixel((0, 0)) == (255, 255, 255)


def test_shuffled_parts_are_all_there():
    ramp = Image.fromarray(np.arange(64 * 64, dtype=np.uint32).reshape(64, 64).astype(np.uint8)).convert("RGB")
    mixed = np.asarray(shuffled(ramp, 1, seed=0))
    assert sorted(mixed.ravel().tolist()) == sorted(np.asarray(ramp).ravel().tolist())
    assert not np.array_equal(mixed, np.asarray(ramp))
    assert np.array_equal(mixed, np.asarray(shuffled(ramp, 1, seed=0)))


def test_frames_marks_and_coarser_pictures():
    wide = framed(Image.new("RGB", (80, 40), "white"), 0, colour="red")
    assert (wide.size, wide.getpixel((0, 0)), wide.getpixel((4, 4))) == ((88, 48), (255, 0, 0), (255, 255, 255))
    changed = np.asarray(marked(ring(), 0)) != np.asarray(ring())
    assert 0.01 < changed.any(axis=2).mean() < 0.3
    coarse = coarser(ring(), 0, side=8)
    assert coarse.size == (64, 64)
    assert len(np.unique(np.asarray(coarse))) > len(np.unique(np.asarray(ring())))
    assert np.array_equal(np.asarray(coarser(ring(), 0, side=64)), np.asarray(ring()))
