"""measures/perceptual_hash.py: 64 bits of a picture, and which hashes are near."""

import math

import numpy as np
import pytest
from PIL import Image

from diptych.errors import ConfigError, ShapeError
from diptych.measures import perceptual_hash as module
from diptych.measures.perceptual_hash import hamming, near_pairs, perceptual_hash


def plain_hash(grey: np.ndarray) -> tuple[int, float]:
    """The plain twin: each wave by its sum, in the order of u + v, then u."""
    bits, power = 0, 0.0
    lowest = sorted(((u, v) for u in range(32) for v in range(32)), key=lambda at: (at[0] + at[1], at[0]))[1:65]
    places = range(32)
    for u, v in lowest:
        down = [math.cos(math.pi * u * (2 * y + 1) / 64) for y in places]
        across = [math.cos(math.pi * v * (2 * x + 1) / 64) for x in places]
        wave = sum(int(grey[y, x]) * down[y] * across[x] for y in places for x in places)
        bits = bits << 1 | (wave > 0)
        power += wave**2 * (2 if u else 1) * (2 if v else 1) / 32**4
    return bits, math.sqrt(power)


def smooth(seed: int, count: int = 4) -> np.ndarray:
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (count, 7, 7), np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC)) for one in small])


def all_near(hashes, others, distance):
    return {
        (i, j)
        for i, a in enumerate(hashes.tolist())
        for j, b in enumerate(others.tolist())
        if (a ^ b).bit_count() <= distance
    }


def found(*args, **options) -> list[tuple[int, int]]:
    return [pair for i, j in near_pairs(*args, **options) for pair in zip(i.tolist(), j.tolist(), strict=True)]


def steps_apart(seed: int, count: int) -> np.ndarray:
    """Hashes around a few, 0 to 12 bits off."""
    draw = np.random.default_rng(seed)
    hashes = draw.integers(0, 2**64, 5, np.uint64)[draw.integers(0, 5, count)]
    off = draw.integers(0, 13, count)
    for step in range(12):
        hashes ^= np.where(off > step, np.uint64(1) << draw.integers(0, 64, count, np.uint64), np.uint64(0))
    return hashes


def test_a_hash_is_the_signs_of_the_64_slowest_waves_and_detail_their_deviation():
    grey = smooth(0)
    looks, _, detail = perceptual_hash(grey)
    twins = [plain_hash(one) for one in grey]
    assert looks.tolist() == [bits for bits, _ in twins]
    np.testing.assert_allclose(detail, [deviation for _, deviation in twins], rtol=1e-3)
    assert (looks.dtype, detail.dtype) == (np.uint64, np.float32)


def test_detail_of_a_picture_of_slow_waves_is_its_standard_deviation():
    x, y = np.meshgrid(np.arange(32), np.arange(32))
    wave = (
        np.cos(np.pi * 2 * (2 * x + 1) / 64) * 60
        + np.cos(np.pi * (2 * y + 1) / 64) * np.cos(np.pi * (2 * x + 1) / 64) * 50
    )
    grey = np.rint(128 + wave).astype(np.uint8)
    assert perceptual_hash(grey[None])[2][0] == pytest.approx(grey.std(), rel=0.01)


def test_the_mirrored_hash_is_the_hash_of_the_mirrored_picture():
    grey = np.random.default_rng(0).integers(0, 256, (50, 32, 32), np.uint8)
    looks, mirrored, _ = perceptual_hash(grey)
    flipped, back, _ = perceptual_hash(grey[:, :, ::-1])
    assert mirrored.tolist() == flipped.tolist()
    assert back.tolist() == looks.tolist()
    assert hamming(looks, mirrored).mean() > 20


def test_a_symmetric_picture_is_its_own_mirror_image_to_the_bit():
    grey = smooth(1)
    grey = np.concatenate([grey[:, :, :16], grey[:, :, 15::-1]], axis=2)
    looks, mirrored, _ = perceptual_hash(grey)
    assert looks.tolist() == mirrored.tolist()


def test_a_hash_is_the_same_alone_and_in_any_batch():
    grey = np.random.default_rng(0).integers(0, 256, (33, 32, 32), np.uint8)
    alone = [tuple(map(np.ndarray.item, perceptual_hash(one[None]))) for one in grey]
    assert alone == list(zip(*(column.tolist() for column in perceptual_hash(grey)), strict=True))


def test_brightness_and_contrast_leave_the_hash():
    grey = smooth(2)
    looks, _, detail = perceptual_hash((grey // 2).astype(np.uint8))
    brighter, _, stronger = perceptual_hash((grey // 2 + 90).astype(np.uint8))
    assert brighter.tolist() == looks.tolist()
    assert stronger.tolist() == detail.tolist()
    assert (hamming(perceptual_hash(grey)[0], looks) <= 2).all()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_plain_picture_has_no_detail_and_no_bits(level):
    looks, mirrored, detail = perceptual_hash(np.full((2, 32, 32), level, np.uint8))
    assert (looks.tolist(), mirrored.tolist(), detail.tolist()) == ([0, 0], [0, 0], [0, 0])


def test_no_pictures_have_no_hashes():
    looks, mirrored, detail = perceptual_hash(np.empty((0, 32, 32), np.uint8))
    assert looks.shape == mirrored.shape == detail.shape == (0,)


@pytest.mark.parametrize("grey", [np.zeros((32, 32), np.uint8), np.zeros((1, 32, 31), np.uint8), np.zeros((1, 32, 32))])
def test_other_shapes_are_named(grey):
    with pytest.raises(ShapeError, match=r"grey must be \[N, 32, 32\] uint8\. Got \["):
        perceptual_hash(grey)


@pytest.mark.parametrize("has_numpy_2", [True, False])
def test_the_distance_is_the_number_of_bits_that_differ(monkeypatch, has_numpy_2):
    if not has_numpy_2:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    a, b = steps_apart(0, 6), steps_apart(1, 4)
    plain = [[(int(x) ^ int(y)).bit_count() for y in b] for x in a]
    assert hamming(a[:, None], b[None]).tolist() == plain


@pytest.mark.parametrize("few", [0, 1 << 22])  # by bands, and as they are
@pytest.mark.parametrize("at_once", [1, 100, 1 << 20])
@pytest.mark.parametrize("distance", [0, 1, 3, 4, 7, 8, 12])
def test_near_pairs_are_those_of_comparing_all_each_once(monkeypatch, few, at_once, distance):
    monkeypatch.setattr(module, "_FEW", few)
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    hashes, others = steps_apart(2, 40), steps_apart(2, 55)[20:]
    pairs = found(hashes, others, distance=distance)
    assert len(pairs) == len(set(pairs)) > 0
    assert set(pairs) == all_near(hashes, others, distance)
    among = found(hashes, distance=distance)
    assert len(among) == len(set(among))
    assert set(among) == {(i, j) for i, j in all_near(hashes, hashes, distance) if i < j}


@pytest.mark.parametrize("few", [0, 1 << 22])
def test_none_and_one_have_no_pairs(monkeypatch, few):
    monkeypatch.setattr(module, "_FEW", few)
    none, one = np.empty(0, np.uint64), np.array([5], np.uint64)
    assert found(none, distance=3) == found(one, distance=3) == found(none, one, distance=3) == []
    assert found(one, none, distance=3) == []
    assert found(one, one, distance=3) == [(0, 0)]


def test_what_comes_at_once_is_bounded_where_a_band_is_crowded(monkeypatch):
    monkeypatch.setattr(module, "_FEW", 0)
    monkeypatch.setattr(module, "_AT_ONCE", 1000)
    hashes = np.arange(300, dtype=np.uint64)  # three bands are equal in all of them
    sizes = [len(i) for i, _ in near_pairs(hashes, distance=15)]
    assert sum(sizes) == 300 * 299 // 2
    assert max(sizes) <= 1000


@pytest.mark.parametrize("distance", [-1, 16])
def test_distances_of_different_pictures_are_refused(distance):
    with pytest.raises(ConfigError, match=rf"distance must be 0 to 15 of 64 bits.* Got {distance}"):
        list(near_pairs(np.zeros(1, np.uint64), distance=distance))
