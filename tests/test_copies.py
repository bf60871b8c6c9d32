import numpy as np
import pytest
from PIL import Image, ImageOps

from diptych.curate.copies import (
    LEAST_COSINE,
    NEAREST,
    THRESHOLD,
    Sketches,
    best_scores,
    candidates,
    second_look,
    small_grey,
)
from diptych.errors import ImageError
from scenes import CHANGES, jpeg, scene

KNOWN = [scene(number) for number in range(40)]


@pytest.fixture(scope="module")
def known() -> Sketches:
    return Sketches.of([small_grey(picture) for picture in KNOWN], known=True)


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found_among_known_pictures(change: str, known: Sketches):
    copies = Sketches.of([small_grey(CHANGES[change](picture)) for picture in KNOWN[:12]])
    nearest, scores = best_scores(copies, known)
    assert nearest.tolist() == list(range(12))
    assert scores.min() >= THRESHOLD


def test_other_pictures_are_no_copies(known: Sketches):
    _, scores = best_scores(Sketches.of([small_grey(scene(number)) for number in range(500, 530)]), known)
    assert scores.max() < THRESHOLD


def test_what_becomes_of_a_picture_does_not_hang_on_those_beside_it(known: Sketches):
    small = [small_grey(CHANGES["crop 90 %"](picture)) for picture in KNOWN] * 2
    together = Sketches.of(small)
    pairs = candidates(together, known)
    scores = best_scores(together, known)[1]
    for number in (0, 7, 63, 79):
        alone = Sketches.of(small[number : number + 1])
        np.testing.assert_array_equal(alone.features[0], together.features[number])
        its = candidates(alone, known)
        assert its.known.tolist() == pairs.known[pairs.rows == number].tolist()
        assert best_scores(alone, known)[1][0] == scores[number]


def test_candidates_are_the_nearest_and_those_of_a_near_hash(known: Sketches):
    pictures = Sketches.of([small_grey(scene(number)) for number in (3, 900)])
    pairs = candidates(pictures, known)
    cosines = np.einsum("nvd,kwd->nvkw", pictures.features, known.features).max(axis=(1, 3))
    for row in range(2):
        expected = {int(k) for k in np.argsort(-cosines[row])[:NEAREST] if cosines[row, k] >= LEAST_COSINE}
        for k in range(len(KNOWN)):
            both = (known.hashes[k], known.mirrored_hashes[k])
            if min((int(pictures.hashes[row]) ^ int(one)).bit_count() for one in both) <= 10:
                expected.add(k)
        assert set(pairs.known[pairs.rows == row].tolist()) == expected
    assert 3 in pairs.known[pairs.rows == 0]


def test_plain_pictures_are_not_copies_of_each_other():
    plain = Sketches.of([small_grey(Image.new("RGB", (60, 40), colour)) for colour in ("black", "white", "gray")])
    assert not plain.has_detail.any()
    assert best_scores(plain, plain)[1].max() == 0


def test_nothing_is_near_where_nothing_is_known(known: Sketches):
    none = Sketches.of([])
    assert best_scores(none, known)[0].shape == (0,)
    nearest, scores = best_scores(known, none)
    assert (set(nearest.tolist()), set(scores.tolist())) == ({-1}, {0.0})
    assert second_look(none.small, none.small) == []


def test_a_plain_frame_is_left_out_and_a_picture_is_not():
    framed = ImageOps.expand(scene(5), border=(10, 24, 10, 24), fill="black")
    assert np.abs(small_grey(framed).astype(int) - small_grey(scene(5))).mean() < 4
    assert small_grey(Image.new("L", (5, 3), 77)).tolist() == [[77] * 64] * 64


def test_a_file_is_read_as_its_picture_and_a_bad_one_is_named():
    large = scene(2).resize((1440, 960), Image.Resampling.BICUBIC)
    assert np.abs(small_grey(jpeg(large)).astype(int) - small_grey(large)).mean() < 2
    with pytest.raises(ImageError):
        small_grey(b"no picture")
