import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from diptych.data.profiles import (
    BT709,
    D65,
    adobe_rgb_profile,
    cicp_profile,
    gamma_profile,
    hlg_to_light,
    matrix_profile,
    pq_to_light,
    srgb_to_linear,
)

PATCHES = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (40, 90, 200), (128, 128, 128)]


def shown(profile: bytes, colours: list[tuple[int, int, int]]) -> np.ndarray:
    """[N, 3], what littleCMS makes of colours of a space, in sRGB."""
    image = Image.fromarray(np.array([colours], np.uint8))
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return np.array(ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), 1))[0].astype(int)


def test_srgb_by_its_numbers_is_srgb():
    mine = shown(matrix_profile(BT709, D65, srgb_to_linear), PATCHES)
    assert np.abs(mine - PATCHES).max() <= 1


def test_display_p3_is_worked_by_hand():
    to_xyz = {  # published matrices, D65
        "p3": [[0.486571, 0.265668, 0.198217], [0.228975, 0.691739, 0.079287], [0.0, 0.045113, 1.043944]],
        "srgb": [[0.412391, 0.357584, 0.180481], [0.212639, 0.715169, 0.072192], [0.019331, 0.119195, 0.950532]],
    }
    colour = np.array([100, 140, 120])
    light = np.linalg.solve(to_xyz["srgb"], np.array(to_xyz["p3"]) @ srgb_to_linear(colour / 255))
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(shown(cicp_profile(12, 13), [tuple(colour.tolist())])[0] - expected).max() <= 1.5


def test_adobe_rgb_has_more_green():
    (green, grey) = shown(adobe_rgb_profile(), [(100, 200, 100), (128, 128, 128)])
    assert green[0] < 60
    assert np.abs(grey - 128).max() <= 2  # gamma 2.2 and sRGB's curve nearly meet in the middle


def test_what_is_srgb_to_the_eye_has_no_profile():
    assert [cicp_profile(*points) for points in ((1, 13), (1, 1), (2, 2), (6, 6), (1, 14))] == [None] * 5


def test_curves_of_hdr_have_paper_white_at_203():
    assert pq_to_light(np.array([0.0, 0.5806888, 1.0])) == pytest.approx([0, 203, 10_000], abs=0.1)  # BT.2408, table 1
    assert hlg_to_light(np.array([0.0, 0.75, 1.0])) == pytest.approx([0, 203, 1000], abs=0.5)


@pytest.mark.parametrize(("transfer", "middle", "white"), [(16, 0.37, 0.58), (18, 0.5, 0.75)])
def test_hdr_keeps_what_is_darker_than_white_and_does_not_clip_what_is_brighter(transfer, middle, white):
    levels = [round(255 * signal) for signal in (0, middle, white, white + 0.1, 1)]
    black, _, paper, bright, brightest = (
        int(c[0]) for c in shown(cicp_profile(9, transfer), [(v,) * 3 for v in levels])
    )
    assert black == 0
    assert 235 <= paper < bright < brightest <= 255
    light = {16: pq_to_light, 18: hlg_to_light}[transfer](np.array([levels[1] / 255]))[0] / 203
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert shown(cicp_profile(9, transfer), [(levels[1],) * 3])[0] == pytest.approx([expected] * 3, abs=2)


def test_a_gamma_is_followed_and_nonsense_is_not():
    assert shown(gamma_profile(1.0, None), [(55, 55, 55)])[0] == pytest.approx([128] * 3, abs=1)  # 0.2159 of the light
    wrong = (0.3127, 0.329, 0.6, 0.3, 0.6, 0.3, 0.6, 0.3)  # the three primaries are one
    assert [gamma_profile(0.0, None), gamma_profile(0.45, wrong), gamma_profile(0.45, (0.0,) * 8)] == [None] * 3
